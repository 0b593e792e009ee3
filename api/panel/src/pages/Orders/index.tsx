import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Orders">
      <Panel title="Orders">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
