import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Chart">
      <Panel title="Chart">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
