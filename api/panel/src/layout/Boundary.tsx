import { Button } from "@mantine/core";
import { Component, type ReactNode } from "react";

import { ErrorNote } from "@/components/ErrorNote";

/** A page that fails is told so in its place; the rest of the panel goes on, and so does the page at another path, `at`. */
export class Boundary extends Component<{ at: string; children: ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static getDerivedStateFromError(error: Error): { error: Error } {
    return { error };
  }

  override componentDidCatch(error: Error): void {
    console.error(error);
  }

  override componentDidUpdate(before: { at: string }): void {
    if (before.at !== this.props.at && this.state.error) this.setState({ error: null });
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    // A page of the release before is not on the server any more.
    const isOld = /dynamically imported module|Importing a module script failed/i.test(error.message);
    return (
      <div className="page">
        <h1 className="hidden-label">This page failed</h1>
        <ErrorNote
          error={isOld ? new Error("The panel was updated meanwhile, or the server is away.") : error}
          title="This page failed"
        />
        <div>
          <Button
            onClick={() => {
              location.reload();
            }}
          >
            Load the panel again
          </Button>
        </div>
      </div>
    );
  }
}
