/** Tables whose rows the server sorts and filters, and of which only those that are looked at are here. */
import { useEffect } from "react";

export interface Asked {
  /** Somewhere in a row. */
  text: string;
  /** A column's id, with `-` in front for the largest first; "" for the server's own order. */
  sort: string;
  /** What each column that is filtered by must be like, as `filterOf` takes it. */
  filters: ReadonlyArray<{ id: string; wanted: string }>;
}

/** Its functions stay the same between renders. */
export interface Remote<Row> {
  /** How many rows pass, and the place among them of the first that is here. */
  total: number;
  offset: number;
  onAsk: (asked: Asked) => void;
  /** The places of the first and the last row that are looked at. */
  onWindow: (first: number, last: number) => void;
  /** All that pass, for the CSV file. */
  all: () => Promise<readonly Row[]>;
}

/** Tell what is asked for and looked at, whenever it changes; `filters` stay the same array until they do. */
export function useTold<Row>(remote: Remote<Row> | undefined, { text, sort, filters }: Asked, first: number, last: number): void {
  const { onAsk, onWindow } = remote ?? {};
  useEffect(() => onAsk?.({ text, sort, filters }), [onAsk, text, sort, filters]);
  useEffect(() => {
    if (last >= first) onWindow?.(first, last);
  }, [onWindow, first, last]);
}
