/** The stream in React. */
import { useQuery, type QueryKey } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";

import type { Change, Connection, LinkStatus, Update } from "./connection";
import { LiveRows } from "./rows";

export const StreamContext = createContext<Connection | null>(null);

export function useStream(): Connection {
  const stream = useContext(StreamContext);
  if (!stream) throw new Error("no stream: the page stands outside the signed-in part");
  return stream;
}

export function useLink(): LinkStatus {
  const stream = useStream();
  return useSyncExternalStore(
    (changed) => stream.onStatus(changed),
    () => stream.status,
  );
}

/** Whether what the stream keeps up to date may be old now; show it in class `stale`. */
export function useStale(): boolean {
  return useLink().state !== "connected";
}

/** Call `listener` with the changes of a topic, once a frame; it may be another function in every render. */
export function useChanges<Body>(topic: string, listener: (changes: Change<Body>[]) => void): void {
  const stream = useStream();
  const latest = useRef(listener);
  useEffect(() => {
    latest.current = listener;
  });
  useEffect(
    () =>
      stream.onChanges(topic, (changes) => {
        latest.current(changes as Change<Body>[]);
      }),
    [stream, topic],
  );
}

/** The newest update of a topic of market data (`ticks:…`, `depth:…`); null topic: none. */
export function useNewest<Body>(topic: string | null): Update<Body> | null {
  const stream = useStream();
  const [newest, setNewest] = useState<Update<Body> | null>(null);
  useEffect(() => {
    setNewest(null);
    if (topic === null) return;
    return stream.onUpdates(topic, (updates) => {
      setNewest((updates.at(-1) ?? null) as Update<Body> | null);
    });
  }, [stream, topic]);
  return newest;
}

/** All updates of a topic, bars say, as they come. */
export function useUpdates<Body>(topic: string | null, listener: (updates: Update<Body>[]) => void): void {
  const stream = useStream();
  const latest = useRef(listener);
  useEffect(() => {
    latest.current = listener;
  });
  useEffect(() => {
    if (topic === null) return;
    return stream.onUpdates(topic, (updates) => {
      latest.current(updates as Update<Body>[]);
    });
  }, [stream, topic]);
}

export interface LiveQuery<Row> {
  rows: readonly Row[];
  isLoading: boolean;
  error: unknown;
  /** Not kept up to date at the moment. */
  isStale: boolean;
  /** There is more than was read. */
  isCut: boolean;
  refetch: () => void;
}

/**
 * Rows read by REST and kept up to date by a topic of the stream.
 *
 * `apply` lays a change over the rows. Changes that come while the rows are being read are laid over them again
 * afterwards, so nothing falls between the two.
 */
export function useLiveRows<Row, Body>(given: {
  queryKey: QueryKey;
  read: () => Promise<{ items: Row[]; whole: boolean }>;
  keyOf: (row: Row) => string;
  topic: string;
  apply: (rows: LiveRows<Row>, change: Change<Body>) => void;
}): LiveQuery<Row> {
  const { queryKey, read, keyOf, topic, apply } = given;
  const [rows] = useState(() => new LiveRows<Row>(keyOf));
  const during = useRef<Change<Body>[]>([]);
  const query = useQuery({
    queryKey: [...queryKey, "live"],
    queryFn: async () => {
      during.current = [];
      return read();
    },
  });
  useChanges<Body>(topic, (changes) => {
    during.current.push(...changes);
    if (during.current.length > 20_000) during.current.splice(0, 10_000);
    for (const change of changes) apply(rows, change);
  });
  const { data, dataUpdatedAt } = query;
  const latest = useRef(apply);
  useEffect(() => {
    latest.current = apply;
  });
  useEffect(() => {
    if (!data) return;
    rows.fill(data.items);
    for (const change of during.current) latest.current(rows, change);
    // Each reading counts, also one that found what the one before had found.
  }, [data, dataUpdatedAt, rows]);
  const shown = useSyncExternalStore(rows.subscribe, rows.snapshot);
  return {
    rows: shown,
    isLoading: query.isLoading,
    error: query.error,
    isStale: useStale() || query.isError,
    isCut: data ? !data.whole : false,
    refetch: () => void query.refetch(),
  };
}
