import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Deck">
      <Panel title="Deck">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
