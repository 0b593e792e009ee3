/**
 * Rows that the stream changes: kept by key, handed to React at most ten times a second.
 *
 * On a computer that needs long to draw them they come less often, so that at least half of its time is left for
 * whoever scrolls and types.
 */
import { replaceEqualDeep } from "@tanstack/react-query";

const PACE_MS = 100;
const SLOWEST_MS = 1_000;

export class LiveRows<Row> {
  private readonly byKey = new Map<string, Row>();
  private shown: readonly Row[] = [];
  private readonly listeners = new Set<() => void>();
  private timer: ReturnType<typeof setTimeout> | null = null;
  private pace = PACE_MS;

  constructor(private readonly keyOf: (row: Row) => string) {}

  /** Replace everything by what was read, and by what `lay` puts over it, at once. */
  fill(rows: readonly Row[], lay: () => void): void {
    const before = new Map(this.byKey);
    this.byKey.clear();
    for (const row of rows) {
      const key = this.keyOf(row);
      // One that is as it was stays the same one, and is not drawn again.
      this.byKey.set(key, replaceEqualDeep(before.get(key), row));
    }
    lay();
    this.publish();
  }

  put(row: Row): void {
    this.byKey.set(this.keyOf(row), row);
    this.publishSoon();
  }

  remove(key: string): void {
    if (this.byKey.delete(key)) this.publishSoon();
  }

  get(key: string): Row | undefined {
    return this.byKey.get(key);
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** The same array until something has changed. */
  readonly snapshot = (): readonly Row[] => this.shown;

  private publishSoon(): void {
    this.timer ??= setTimeout(() => {
      this.publish();
    }, this.pace);
  }

  private publish(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
    this.shown = [...this.byKey.values()];
    const began = performance.now();
    for (const each of this.listeners) each();
    // React draws before the next task.
    setTimeout(() => {
      this.pace = Math.min(SLOWEST_MS, Math.max(PACE_MS, 2 * (performance.now() - began)));
    });
  }
}
