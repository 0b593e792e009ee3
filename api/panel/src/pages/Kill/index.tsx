import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Kill switch">
      <Panel title="Kill switch">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
