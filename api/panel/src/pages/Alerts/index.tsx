import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Alerts">
      <Panel title="Alerts">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
