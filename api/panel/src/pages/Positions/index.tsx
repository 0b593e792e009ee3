import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Positions">
      <Panel title="Positions">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
