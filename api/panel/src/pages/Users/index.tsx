import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Users">
      <Panel title="Users">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
