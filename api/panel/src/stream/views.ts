/**
 * What a GET answers, pushed by the server as it changes (topics `view:<path>`, docs/api.md).
 *
 * A page reads it once by REST, as ever, and the stream lays what is newer into the query's cache. Without a stream, or
 * where it brings nothing, the page asks again by itself; a problem that the stream tells of makes it ask too, so errors
 * look as they do elsewhere.
 */
import { keepPreviousData, type QueryKey, useQuery, useQueryClient, type UseQueryResult } from "@tanstack/react-query";
import { useEffect, useRef, useSyncExternalStore } from "react";

import type { PageOf } from "@/api/all";

import { useLink, useStream } from "./hooks";

/** The server sends a view again after at most some ten seconds, changed or not. */
const SILENT_MS = 20_000;
const UNCONNECTED_MS = 5_000;

export function useView<T>(given: {
  /** Of the route, below `/v1/`; null: only `read`, nothing is pushed. */
  path: string | null;
  queryKey: QueryKey;
  read: () => Promise<T>;
  /** What is shown of a body that was pushed, after what is known; null where only `read` tells. The same function in every render. */
  from?: (body: unknown, known: T | undefined) => T | null;
  /** Show what was there under the key before, until there is something under this one. */
  keep?: boolean;
}): UseQueryResult<T> {
  const { path, queryKey, read, from = asItCame } = given;
  const client = useQueryClient();
  const stream = useStream();
  const isConnected = useLink().state === "connected";
  // Each version that comes begins this pause anew.
  const query = useQuery({
    queryKey,
    queryFn: read,
    staleTime: 1_000,
    ...(given.keep ? { placeholderData: keepPreviousData as never } : {}),
    refetchInterval: isConnected && path !== null ? SILENT_MS : UNCONNECTED_MS,
  });
  const isSeen = useSyncExternalStore(onVisibility, () => !document.hidden);
  const key = useRef(queryKey);
  useEffect(() => {
    key.current = queryKey;
  });
  useEffect(() => {
    // Nothing is pushed to a page that nobody sees.
    if (path === null || !isSeen) return;
    return stream.onUpdates(`view:${path}`, (updates) => {
      const exactly = { queryKey: key.current, exact: true };
      // What is being read now may be newer.
      if (client.isFetching(exactly)) return;
      const body = updates.at(-1)?.body ?? null;
      const shown = body === null ? null : from(body, client.getQueryData<T>(key.current));
      if (shown === null) void client.invalidateQueries(exactly);
      else client.setQueryData<T>(key.current, shown);
    });
  }, [client, stream, path, from, isSeen]);
  return query;
}

/** For lists: the rows where all of them came; longer ones are read page by page. */
export function wholeList<Row>(body: unknown): { items: Row[]; whole: boolean } | null {
  const page = body as PageOf<Row>;
  return page.next ? null : { items: page.items, whole: true };
}

/** For lists that only grow, newest first, of which the newest are pushed: null where some between were missed. */
export function newestOf<Row>(idOf: (row: Row) => unknown) {
  return (body: unknown, known: { items: Row[]; whole: boolean } | undefined): { items: Row[]; whole: boolean } | null => {
    const page = body as PageOf<Row>;
    if (!page.next) return { items: page.items, whole: true };
    const last = page.items.at(-1);
    const place = known && last ? known.items.findIndex((each) => idOf(each) === idOf(last)) : -1;
    return known && place >= 0 ? { items: [...page.items, ...known.items.slice(place + 1)], whole: known.whole } : null;
  };
}

const asItCame = <T,>(body: unknown): T => body as T;

function onVisibility(changed: () => void): () => void {
  document.addEventListener("visibilitychange", changed);
  return () => {
    document.removeEventListener("visibilitychange", changed);
  };
}
