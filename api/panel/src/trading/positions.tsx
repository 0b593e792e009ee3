/** Positions at the last prices, live, of every account that the user sees. */
import { useMemo } from "react";

import type { Shape } from "@/api/client";
import type { Column } from "@/components/DataTable";
import { useNow } from "@/components/values";
import { serverTime } from "@/format/clock";
import { formatSpan, instant } from "@/format/time";
import { type LiveQuery, useLiveRows } from "@/stream/hooks";

import { type Portfolio, readPortfolios } from "./read";

/**
 * When the session told it, and whether that is too long ago: a session tells every two seconds, changed or not. Figures
 * are as old as the prices they were made with, too: `pricedAt` is when the oldest of these came, where that is long ago;
 * "" where it is of an execution.
 */
interface Told {
  at: string;
  isOld: boolean;
  pricedAt?: string;
}

export type Position = Shape<"ValuedPosition"> & Told;
export type HeldAccount = Shape<"ValuedAccount"> & { user: string } & Told;

const OLD_MS = 10_000;
/** A price that the market has not told anew for so long is shown as old. */
const OLD_PRICE_MS = 60_000;

/** When the market told the price of what is held, if that was long before `at`. */
function oldPrice(held: Shape<"ValuedPosition">, at: string): string | undefined {
  if (held.mark === null) return undefined;
  const told = held.mark_at ?? "";
  return told && instant(at) - instant(told) <= OLD_PRICE_MS ? undefined : told;
}

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
    const told = (view: Portfolio, held: Shape<"ValuedPosition">[]): Told => {
      const [pricedAt] = held.flatMap((each) => oldPrice(each, view.at) ?? []).sort();
      return { at: view.at, isOld: dead.has(view.user) || pricedAt !== undefined, ...(pricedAt === undefined ? {} : { pricedAt }) };
    };
    const heldIn = (view: Portfolio) => view.positions.filter((each) => /[1-9]/.test(each.quantity));
    return [
      rows.flatMap((view) => heldIn(view).map((each) => ({ ...each, ...told(view, [each]) }))),
      rows.flatMap((view) =>
        view.accounts.map((each) => ({
          ...each, user: view.user, ...told(view, heldIn(view).filter((held) => held.account === each.account)),
        })),
      ),
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
  width: 116,
  title: "When its session told it, and with prices of when: a session or a market that is silent leaves its last figures",
};

function ToldAt({ at, isOld, pricedAt }: Told) {
  const now = serverTime(useNow());
  if (!isOld) return <span className="muted">now</span>;
  // A silent session says less than a silent market.
  const isSilent = now - instant(at) > OLD_MS;
  const words = isSilent || pricedAt === undefined
    ? `${formatSpan(now - instant(at))} old`
    : pricedAt ? `price ${formatSpan(now - instant(pricedAt))} old` : "no price yet";
  return (
    <span className="state" data-tone={isSilent ? "bad" : "warn"} title={isSilent ? at : pricedAt}>
      {words}
    </span>
  );
}
