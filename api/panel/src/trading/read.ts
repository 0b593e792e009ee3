/** What several pages read. */
import { useQuery } from "@tanstack/react-query";
import { useCallback, useMemo } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";

export type Account = Shape<"AccountShown">;
export type Feed = Shape<"FeedShown">;
export type Order = Shape<"OrderShown">;
export type Algo = Shape<"AlgoShown">;
export type Fill = Shape<"FillOfOrder">;
export type Portfolio = Shape<"PortfolioShown">;

const PAGE = 1_000;
const NO_ACCOUNTS: Account[] = [];

/** All accounts that the user sees; none until they are read, and `error` where they cannot be. */
export function useAccounts(): { accounts: Account[]; error: unknown; retry: () => void } {
  const { data, error, refetch } = useQuery({
    queryKey: ["accounts"],
    queryFn: () =>
      readAll((cursor) => expect(api.GET("/v1/accounts", { params: { query: { limit: PAGE, cursor } } }))),
    staleTime: 30_000,
  });
  return { accounts: data?.items ?? NO_ACCOUNTS, error, retry: () => void refetch() };
}

export const readFeeds = () =>
  readAll((cursor) => expect(api.GET("/v1/feeds", { params: { query: { limit: PAGE, cursor } } })));

export function useFeeds() {
  return useQuery({
    queryKey: ["feeds"],
    queryFn: readFeeds,
    staleTime: 30_000,
  });
}

/** Which feed carries an instrument; of several, the first that is enabled. */
export function useFeedOf(): (instrument: string) => string | null {
  const { data } = useFeeds();
  const byInstrument = useMemo(() => {
    const found = new Map<string, string>();
    for (const feed of data?.items ?? []) {
      if (!feed.enabled) continue;
      for (const each of feed.instruments) if (!found.has(each)) found.set(each, feed.id);
    }
    return found;
  }, [data]);
  return useCallback((instrument: string) => byInstrument.get(instrument) ?? null, [byInstrument]);
}

export const readAlgos = () =>
  readAll((cursor) => expect(api.GET("/v1/algos", { params: { query: { limit: PAGE, cursor } } })));

/** All open positions and accounts that the user may see. */
export const readPortfolios = () =>
  readAll((cursor) => expect(api.GET("/v1/portfolios", { params: { query: { limit: PAGE, cursor } } })));
