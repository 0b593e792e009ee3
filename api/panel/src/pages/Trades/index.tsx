import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Trades">
      <Panel title="Trades">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
