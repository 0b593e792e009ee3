import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Profile">
      <Panel title="Profile">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
