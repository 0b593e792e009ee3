/** Positions at the last prices, live, of every account that the user sees. */
import { useMemo } from "react";

import type { Shape } from "@/api/client";
import type { Column } from "@/components/DataTable";
import { useNow } from "@/components/values";
import { serverTime } from "@/format/clock";
import { formatSpan, instant } from "@/format/time";
import { type LiveQuery, useLiveRows } from "@/stream/hooks";

import { type Portfolio, readPortfolios } from "./read";

/** When the session told it, and whether that is too long ago: a session tells every two seconds, changed or not. */
interface Told {
  at: string;
  isOld: boolean;
}

export type Position = Shape<"ValuedPosition"> & Told;
export type HeldAccount = Shape<"ValuedAccount"> & { user: string } & Told;

const OLD_MS = 10_000;

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
  const now = serverTime(useNow());
  // A text, so that the rows are the same ones until a session falls silent or comes back.
  const silent = rows.filter((view) => now - instant(view.at) > OLD_MS).map((view) => view.user).join("\n");
  const [positions, accounts] = useMemo(() => {
    const dead = new Set(silent.split("\n"));
    const told = (view: Portfolio): Told => ({ at: view.at, isOld: dead.has(view.user) });
    return [
      rows.flatMap((view) =>
        view.positions.filter((each) => /[1-9]/.test(each.quantity)).map((each) => ({ ...each, ...told(view) })),
      ),
      rows.flatMap((view) => view.accounts.map((each) => ({ ...each, user: view.user, ...told(view) }))),
    ];
  }, [rows, silent]);
  return { ...live, positions, accounts };
}

/** How old a row's figures are, in words. */
export const toldColumn: Column<Told> = {
  id: "told",
  header: "As of",
  kind: "time",
  value: (row) => row.at,
  cell: (row) => <ToldAt {...row} />,
  width: 84,
  title: "When its session told it; one that tells nothing any more leaves its last figures",
};

function ToldAt({ at, isOld }: Told) {
  const now = serverTime(useNow());
  if (!isOld) return <span className="muted">now</span>;
  return (
    <span className="state" data-tone="bad" title={at}>
      {formatSpan(now - instant(at))} old
    </span>
  );
}
