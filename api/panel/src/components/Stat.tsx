import { Skeleton } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "react-router";

import { signOf } from "@/format/decimal";

import { StateBadge } from "./StateBadge";

/** One figure with its name; with `to` it leads to the page about it. */
export function Stat(given: {
  label: string;
  value: ReactNode;
  hint?: ReactNode;
  to?: string;
  loading?: boolean;
  stale?: boolean;
}) {
  const inside = (
    <>
      <div className="label">{given.label}</div>
      <div className={`value${given.stale ? " stale" : ""}`}>
        {given.loading ? <Skeleton height={20} width={80} mt={4} /> : given.value}
      </div>
      <div className="hint">{given.hint}</div>
    </>
  );
  return given.to ? (
    <Link className="stat" to={given.to}>
      {inside}
    </Link>
  ) : (
    <div className="stat">{inside}</div>
  );
}

/**
 * How much of a limit is used, 0 to 1 and beyond: a bar and the percentage.
 *
 * `limit` is null where none is in force. One that nothing is a part of, zero or one without a figure of its own, has no
 * use and holds all the same; `isKnown` is false where its use cannot be told now.
 */
export function UseBar(given: {
  use: number | null;
  used: string | null;
  limit: string | null;
  label: string;
  isKnown?: boolean;
}) {
  if (given.limit === null) return <span className="muted">no limit</span>;
  if (given.use === null) {
    if (given.used !== null && signOf(given.limit) <= 0 && signOf(given.used) > 0) return <StateBadge state="breached" label="reached" />;
    return <span className="muted">{given.isKnown === false ? "not known" : "–"}</span>;
  }
  const percent = Math.round(given.use * 100);
  const tone = given.use >= 1 ? "bad" : given.use >= 0.8 ? "warn" : "good";
  return (
    <div className="usebar" data-tone={tone}>
      <div
        className="track"
        role="meter"
        aria-label={given.label}
        aria-valuenow={percent}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuetext={`${String(percent)} % of the limit${given.use >= 1 ? ", reached" : ""}`}
      >
        <div style={{ width: `${String(Math.min(100, percent))}%` }} />
      </div>
      <span className="number">{percent} %{given.use >= 1 ? " !" : ""}</span>
    </div>
  );
}
