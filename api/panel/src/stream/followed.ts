/**
 * Rows that were read and are changed by what comes after.
 *
 * A read is shown only together with every change since it began: what it had found may be older than what was shown
 * already. It belongs to one look at some rows; the next look, also at the same ones, reads for itself.
 */
import type { Change, Connection } from "./connection";
import { LiveRows } from "./rows";

export interface Read<Row> {
  items: Row[];
  /** There is no more than that. */
  whole: boolean;
}

/** Lays a change over rows. */
export type Apply<Row, Body> = (rows: LiveRows<Row>, change: Change<Body>) => void;

let looks = 0;

export class Followed<Row, Body> {
  /** No other look has this number. */
  readonly number = (looks += 1);
  readonly rows: LiveRows<Row>;
  /** How many resets the stream had had when the read that is shown began; null: none is shown. */
  resets: number | null = null;
  /** What came since the newest read began, while it is under way. */
  private since: Change<Body>[] | null = null;

  constructor(
    private readonly stream: Connection,
    keyOf: (row: Row) => string,
  ) {
    this.rows = new LiveRows(keyOf);
  }

  /** Read and show; where a newer read has begun meanwhile, nothing is shown of this one. */
  async read(read: () => Promise<Read<Row>>, apply: Apply<Row, Body>): Promise<{ whole: boolean }> {
    for (;;) {
      const since: Change<Body>[] = [];
      const { resets } = this.stream;
      this.since = since;
      try {
        const { items, whole } = await read();
        if (this.since !== since) return { whole };
        // Nobody tells what changed before the reset, and it may have been read before.
        if (this.stream.resets !== resets) continue;
        this.resets = resets;
        this.rows.fill(items, () => {
          for (const change of since) apply(this.rows, change);
        });
        return { whole };
      } finally {
        if (this.since === since) this.since = null;
      }
    }
  }

  hear(changes: Change<Body>[], apply: Apply<Row, Body>): void {
    this.since?.push(...changes);
    for (const change of changes) apply(this.rows, change);
  }
}
