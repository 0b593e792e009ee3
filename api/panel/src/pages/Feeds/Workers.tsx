/** How the workers share the instruments: one bar each, as long as its share. */
import { StateBadge } from "@/components/StateBadge";
import { formatNumber } from "@/format/measure";

import type { Feed } from "./feed";
import "./feeds.css";

/** Whether the shares differ by one at most, as they should once nothing moves. */
export function isEven(shares: number[]): boolean {
  return shares.length === 0 || Math.max(...shares) - Math.min(...shares) <= 1;
}

export function Workers(given: { feed: Feed }) {
  const { feed } = given;
  const planned = new Map(Object.entries(feed.assigned).map(([shard, held]) => [Number(shard), held]));
  const shards = [...new Set([...planned.keys(), ...feed.live.map((each) => each.shard)])].sort((a, b) => a - b);
  const shares = [...planned.values()];
  const carriedOf = (shard: number) => feed.live.find((each) => each.shard === shard)?.instrument_count ?? 0;
  // The plan is settled before the last worker has let go.
  const isSettled = feed.settled && shards.every((shard) => carriedOf(shard) === (planned.get(shard) ?? 0));
  const most = Math.max(1, ...shares, ...feed.live.map((each) => each.instrument_count));
  if (!shards.length) return <p className="muted">{feed.enabled ? "No worker has told anything yet." : "The feed is off."}</p>;
  return (
    <>
      <p role="status" className="muted">
        {isSettled ? "Settled" : `Moving: ${String(feed.pending_steps ?? 0)} steps to go`};{" "}
        {isEven(shares)
          ? `split evenly, ${shares.length ? `${String(Math.min(...shares))} to ${String(Math.max(...shares))}` : "0"} instruments on each of ${String(shares.length)} workers`
          : `not split evenly yet: ${shares.join(", ")}`}
        .
      </p>
      <table className="workers" aria-label={`Workers of ${feed.id}`}>
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">State</th>
            <th scope="col">Machine</th>
            <th scope="col" style={{ width: "40%" }}>Share</th>
            <th scope="col" className="number">Instruments</th>
            <th scope="col" className="number">Ticks/s</th>
            <th scope="col" className="number">Reconnects</th>
          </tr>
        </thead>
        <tbody>
          {shards.map((shard) => {
            const live = feed.live.find((each) => each.shard === shard);
            const carried = carriedOf(shard);
            const state = (feed.gone ?? []).includes(shard) ? "down" : (feed.silent ?? []).includes(shard) ? "silent" : !live ? "starting" : live.connected ? "connected" : "reconnecting";
            return (
              <tr key={shard}>
                <th scope="row">{shard}</th>
                <td>
                  <StateBadge state={state} reason={live?.reason} />
                </td>
                <td>{live?.node ?? "–"}</td>
                <td>
                  <div className="share" role="img" aria-label={`${String(carried)} instruments of ${String(planned.get(shard) ?? 0)} planned`}>
                    <div style={{ width: `${String((100 * carried) / most)}%` }} />
                  </div>
                </td>
                <td className="number">
                  {String(carried)}
                  {carried === (planned.get(shard) ?? 0) ? "" : ` → ${String(planned.get(shard) ?? 0)}`}
                </td>
                <td className="number">{formatNumber(live?.rate)}</td>
                <td className="number">{live ? String(live.reconnects) : "–"}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </>
  );
}
