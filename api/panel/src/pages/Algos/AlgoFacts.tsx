import { Code } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "react-router";

import type { Shape } from "@/api/client";
import { Labels } from "@/components/Labels";
import { Panel } from "@/components/Page";
import { Stat } from "@/components/Stat";
import { Money, Quantity, Time } from "@/components/values";
import type { Algo } from "@/trading/read";

const ms = (value: number | null | undefined) => (value == null ? "–" : `${value.toFixed(1)} ms`);

const PACKING = { spread: "the emptiest", pack: "the fullest" };

/** How its present incarnation goes. */
export function AlgoStats({ algo, stale }: { algo: Algo; stale: boolean }) {
  const { live } = algo;
  return (
    <div className="stats">
      <Stat stale={stale} label="Realised, less fees" value={<Money value={live?.realised} currency={live?.currency} signed />} hint={live && live.realised === null ? "in several currencies, which are not added up" : "this incarnation"} />
      <Stat stale={stale} label="Open orders" value={live?.open_orders ?? "–"} hint={live ? `${String(live.orders_acked)} acknowledged` : "not running"} />
      <Stat stale={stale} label="Fills" value={live?.fills ?? "–"} hint={live ? `${String(live.denied)} denied by limits` : ""} />
      <Stat stale={stale} label="Ticks" value={live?.ticks.toLocaleString("en-US") ?? "–"} hint={live?.tick_age_s == null ? "none yet" : `last ${live.tick_age_s.toFixed(1)} s ago`} />
      <Stat stale={stale} label="Tick to strategy, p99" value={ms(live?.tick_to_strategy_ms.p99)} hint={`median ${ms(live?.tick_to_strategy_ms.p50)}`} />
      <Stat stale={stale} label="Intent to broker, p99" value={ms(live?.intent_to_ack_ms.p99)} hint={`median ${ms(live?.intent_to_ack_ms.p50)}`} />
    </div>
  );
}

export function AlgoFacts(given: { algo: Shape<"AlgoWithStop">; stale: boolean; className: string; actions?: ReactNode }) {
  const { algo, stale, className } = given;
  const { placement } = algo;
  const facts: [string, ReactNode][] = [
    ["Strategy", <Link key="s" to={`/strategies/${encodeURIComponent(algo.strategy)}`}>{algo.strategy}</Link>],
    ["Version", algo.strategy_version ? <Code key="v">{algo.strategy_version.slice(0, 12)}</Code> : "built in"],
    ["Account", <Link key="a" to={`/accounts/${encodeURIComponent(algo.account)}`}>{algo.account}</Link>],
    ["User", algo.user],
    ["Feed", <Link key="f" to={`/feeds/${encodeURIComponent(algo.feed)}`}>{algo.feed}</Link>],
    ["Wanted", algo.want],
    ["Pinned to", algo.node || "any machine"],
    ["Runs on", algo.live?.node ?? (algo.placed || "–")],
    ["Machines", placement.selector || "any labels"],
    ["Of several", `${PACKING[placement.packing]}${placement.apart === "no" ? "" : `, apart from its account's others${placement.apart === "prefer" ? " where possible" : ""}`}`],
    ["Needs", `${String(placement.cpus)} cores, ${String(placement.memory_mb)} MiB`],
    ["At most", `${String(placement.cpu_limit)} cores for long, else ${placement.over_cpu === "end" ? "it is ended" : "it gets what others leave"}`],
    ["Incarnation", String(algo.epoch)],
    ["Labels", <Labels key="l" labels={algo.labels} />],
    ["When it stops", `orders ${algo.stop_orders}, position ${algo.stop_position}`],
    ["Batches lost", algo.live ? String(algo.live.batches_lost) : "–"],
    ["Added", <Time key="c" at={algo.created_at} />],
    ["Changed", <Time key="u" at={algo.updated_at} />],
  ];
  const positions = Object.entries(algo.live?.positions ?? {});
  return (
    <Panel title="What it is" className={className} stale={stale} actions={given.actions}>
      <dl style={{ display: "grid", gridTemplateColumns: "repeat(auto-fit, minmax(150px, 1fr))", gap: "6px 12px", margin: 0 }}>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt className="muted" style={{ fontSize: "0.69rem" }}>{name}</dt>
            <dd style={{ margin: 0, overflowWrap: "anywhere" }}>{value}</dd>
          </div>
        ))}
      </dl>
      <h3 style={{ margin: "12px 0 4px", fontSize: "0.78rem" }}>It holds</h3>
      {positions.length ? (
        <ul style={{ margin: 0, paddingLeft: 18 }}>
          {positions.map(([instrument, quantity]) => (
            <li key={instrument}>
              <Quantity value={quantity} signed /> <Link to={`/chart/${encodeURIComponent(instrument)}`}>{instrument}</Link>
            </li>
          ))}
        </ul>
      ) : (
        <span className="muted">nothing</span>
      )}
      <h3 style={{ margin: "12px 0 4px", fontSize: "0.78rem" }}>Trades</h3>
      <span className="wrap">{algo.instruments.join(", ")}</span>
    </Panel>
  );
}
