/** The stream in React. */
import { hashKey, type QueryKey, useQuery } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";

import type { Change, Connection, LinkStatus, Update } from "./connection";
import { type Apply, Followed, type Read } from "./followed";

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
 * They are read whenever a part that shows them appears or its key changes, and are loading until then: what was read for
 * an earlier look misses the changes that nobody heard in between. `apply` lays a change over the rows; one that comes
 * while they are being read is laid over them again afterwards, so nothing falls between the two.
 */
export function useLiveRows<Row, Body>(given: {
  queryKey: QueryKey;
  read: () => Promise<Read<Row>>;
  keyOf: (row: Row) => string;
  topic: string;
  apply: Apply<Row, Body>;
}): LiveQuery<Row> {
  const { queryKey, read, keyOf, topic, apply } = given;
  const stream = useStream();
  const key = hashKey(queryKey);
  const look = () => ({ key, stream, followed: new Followed<Row, Body>(stream, keyOf) });
  const [held, setHeld] = useState(look);
  let current = held;
  if (held.key !== key || held.stream !== stream) {
    current = look();
    setHeld(current);
  }
  const { followed } = current;
  const query = useQuery({
    // Under a key of its own: a read that another look began has not seen what this one must.
    queryKey: [...queryKey, "live", followed.number],
    queryFn: () => followed.read(read, apply),
    gcTime: 0,
  });
  useChanges<Body>(topic, (changes) => {
    followed.hear(changes, apply);
  });
  const rows = useSyncExternalStore(followed.rows.subscribe, followed.rows.snapshot);
  const resets = useSyncExternalStore(
    (changed) => stream.onReset(changed),
    () => stream.resets,
  );
  const isBehind = followed.resets !== null && followed.resets !== resets;
  return {
    rows,
    isLoading: query.isLoading,
    error: query.error,
    isStale: useStale() || query.isError || isBehind,
    isCut: query.data ? !query.data.whole : false,
    refetch: () => void query.refetch(),
  };
}
