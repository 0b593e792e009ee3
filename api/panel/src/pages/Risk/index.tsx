import { Page, Panel } from "@/components/Page";

export default function View() {
  return (
    <Page title="Risk">
      <Panel title="Risk">
        <span className="muted">This page is being built.</span>
      </Panel>
    </Page>
  );
}
