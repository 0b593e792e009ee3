import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Algos">
      <Panel title="Algos">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
