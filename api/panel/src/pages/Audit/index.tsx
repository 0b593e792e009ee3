import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Audit">
      <Panel title="Audit">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
