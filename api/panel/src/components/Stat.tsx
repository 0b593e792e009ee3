import { Skeleton } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "react-router";

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

/** How much of a limit is used, 0 to 1 and beyond: a bar and the percentage. */
export function UseBar(given: { use: number | null | undefined; label: string }) {
  if (given.use == null) return <span className="muted">no limit</span>;
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
