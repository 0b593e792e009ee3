import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Reconciliation">
      <Panel title="Reconciliation">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
