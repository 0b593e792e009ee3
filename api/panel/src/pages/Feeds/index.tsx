import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Feeds">
      <Panel title="Feeds">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
