import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Strategies">
      <Panel title="Strategies">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
