/** Tables whose rows the server sorts and filters, and of which only those that are looked at are here. */
import { useEffect } from "react";

export interface Asked {
  /** Somewhere in a row. */
  text: string;
  /** A column's id, with `-` in front for the largest first; "" for the server's own order. */
  sort: string;
}

/** Its functions stay the same between renders. */
export interface Remote<Row> {
  /** How many rows pass, and the place among them of the first that is here. */
  total: number;
  offset: number;
  /** Columns that the server sorts by. */
  sortable: ReadonlySet<string>;
  onAsk: (asked: Asked) => void;
  /** The places of the first and the last row that are looked at. */
  onWindow: (first: number, last: number) => void;
  /** All that pass, for the CSV file. */
  all: () => Promise<readonly Row[]>;
}

/** Tell what is asked for and looked at, whenever it changes. */
export function useTold<Row>(remote: Remote<Row> | undefined, { text, sort }: Asked, first: number, last: number): void {
  const { onAsk, onWindow } = remote ?? {};
  useEffect(() => onAsk?.({ text, sort }), [onAsk, text, sort]);
  useEffect(() => {
    if (last >= first) onWindow?.(first, last);
  }, [onWindow, first, last]);
}
