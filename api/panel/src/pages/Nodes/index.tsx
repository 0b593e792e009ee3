import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Nodes">
      <Panel title="Nodes">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
