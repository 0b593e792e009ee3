import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Accounts & brokers">
      <Panel title="Accounts & brokers">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
