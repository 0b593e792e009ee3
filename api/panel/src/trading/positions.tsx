/** Positions at the last prices, live, of every account that the user sees. */
import { useMemo } from "react";

import type { Shape } from "@/api/client";
import { type LiveQuery, useLiveRows } from "@/stream/hooks";

import { type Portfolio, readPortfolios } from "./read";

export type Position = Shape<"ValuedPosition">;
export type HeldAccount = Shape<"ValuedAccount"> & { user: string };

export function usePortfolios(): LiveQuery<Portfolio> {
  return useLiveRows<Portfolio, Portfolio>({
    queryKey: ["portfolios"],
    read: readPortfolios,
    keyOf: (view) => view.user,
    topic: "portfolio",
    apply: (rows, { body }) => {
      const known = rows.get(body.user);
      if (!known || known.at <= body.at) rows.put(body);
    },
  });
}

/** What is held, and the accounts it is held in. */
export function useHoldings(): Omit<LiveQuery<never>, "rows"> & { positions: Position[]; accounts: HeldAccount[] } {
  const live = usePortfolios();
  const { rows } = live;
  const [positions, accounts] = useMemo(
    () => [
      rows.flatMap((view) => view.positions.filter((each) => /[1-9]/.test(each.quantity))),
      rows.flatMap((view) => view.accounts.map((each) => ({ ...each, user: view.user }))),
    ],
    [rows],
  );
  return { ...live, positions, accounts };
}
