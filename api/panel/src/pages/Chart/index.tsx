/** Candles from history that go on live, indicators, and the marks of orders and fills. */
import { Checkbox, Group, SegmentedControl, Select } from "@mantine/core";
import { useLocalStorage } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useCallback, useRef, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentInput } from "@/components/InstrumentInput";
import { Page } from "@/components/Page";
import { useChanges, useNewest, useStale, useUpdates } from "@/stream/hooks";
import { useSpaced } from "@/stream/useSpaced";
import { OPEN } from "@/trading/orders";
import { type Tick, useAge } from "@/trading/price";
import { type Order, useFeedOf } from "@/trading/read";

import { type Bar, Bars, type Live, secondOf } from "./bars";
import type { Indicator } from "./Candles";

const Candles = lazy(() => import("./Candles"));

const INTERVALS: Record<string, number> = { "1s": 1, "5s": 5, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": 86_400 };
const NO_ORDERS: Order[] = [];
/** Bars of history at the beginning. */
const BARS = 600;

const INDICATORS: { value: Indicator; label: string }[] = [
  { value: "sma", label: "SMA 20" },
  { value: "ema", label: "EMA 50" },
  { value: "bollinger", label: "Bollinger 20, 2" },
  { value: "rsi", label: "RSI 14" },
];

export default function Chart() {
  const { instrument = null } = useParams();
  const navigate = useNavigate();
  const [interval, setInterval] = useLocalStorage({ key: "qd-chart-interval", defaultValue: "1m" });
  const [shown, setShown] = useLocalStorage<Indicator[]>({ key: "qd-chart-indicators", defaultValue: ["sma"] });
  const [account, setAccount] = useState("");
  const accounts = useQuery({
    queryKey: ["accounts"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/accounts", { params: { query: { limit: 1000, cursor } } }))),
    staleTime: 30_000,
  });
  return (
    <Page
      title={instrument ?? "Chart"}
      actions={
        <>
          <InstrumentInput
            label="Instrument"
            hideLabel
            width={220}
            value={instrument}
            onChange={(id) => {
              if (id) void navigate(`/chart/${encodeURIComponent(id)}`);
            }}
          />
          <SegmentedControl size="xs" aria-label="Width of a bar" data={Object.keys(INTERVALS)} value={interval} onChange={setInterval} />
        </>
      }
    >
      <Group gap="md">
        {INDICATORS.map((each) => (
          <Checkbox
            key={each.value}
            size="xs"
            label={each.label}
            checked={shown.includes(each.value)}
            onChange={(event) => {
              setShown(event.currentTarget.checked ? [...shown, each.value] : shown.filter((one) => one !== each.value));
            }}
          />
        ))}
        <Select
          aria-label="Marks of which account"
          data={[{ value: "", label: "Marks of all accounts" }, ...(accounts.data?.items ?? []).map((each) => ({ value: each.id, label: each.id }))]}
          value={account}
          onChange={(value) => {
            setAccount(value ?? "");
          }}
        />
        <span className="muted">Times are UTC.</span>
      </Group>
      {instrument ? (
        <Drawn key={`${instrument} ${interval}`} instrument={instrument} interval={interval} indicators={shown} account={account} />
      ) : (
        <p className="grid-note">
          <strong>Choose an instrument</strong>Its candles come from history and go on live.
        </p>
      )}
      <p className="muted">
        Drawn with{" "}
        <a href="https://www.tradingview.com/" target="_blank" rel="noreferrer">
          TradingView
        </a>{" "}
        Lightweight Charts™, © TradingView, Inc.
      </p>
    </Page>
  );
}

function Drawn(given: { instrument: string; interval: string; indicators: Indicator[]; account: string }) {
  const { instrument, interval } = given;
  const [bars] = useState(() => new Bars());
  const [all, setAll] = useState<Bar[]>([]);
  const [gaps, setGaps] = useState<Shape<"GapShown">[]>([]);
  const newest = useRef<((bar: Bar) => void) | null>(null);
  const latest = useRef(0);
  const history = useQuery({
    queryKey: ["history", instrument, interval],
    queryFn: async () => {
      const start = new Date(Date.now() - BARS * (INTERVALS[interval] ?? 60) * 1000).toISOString();
      const found = await expect(api.GET("/v1/history", { params: { query: { instrument, interval, start, limit: 1000 } } }));
      bars.history(found.items as Bar[]);
      setAll(bars.all());
      setGaps(found.gaps);
      return found;
    },
    gcTime: 0,
    staleTime: Infinity,
    retry: 1,
  });
  useUpdates<Live>(interval === "1d" ? null : `bars:${instrument}/${interval}`, (updates) => {
    let isOther = false;
    for (const { body } of updates) {
      if ("missing" in body) {
        bars.distrust(body.missing.start, body.missing.end);
        void history.refetch();
      } else {
        const isNew = secondOf(body) > latest.current;
        latest.current = Math.max(latest.current, secondOf(body));
        // Indicators are drawn of whole bars: again when the next one begins.
        if (bars.put(body) === "older" || isNew) isOther = true;
        else newest.current?.(body);
      }
    }
    if (isOther) setAll(bars.all());
  });
  const orders = useQuery({
    queryKey: ["chart-orders", instrument, given.account],
    queryFn: () =>
      expect(
        api.GET("/v1/orders", {
          // Of open ones all there are: an old one may stand behind hundreds that have ended.
          params: { query: { instrument, limit: 1000, state: [...OPEN], ...(given.account ? { account: given.account } : {}) } },
        }),
      ),
  });
  const fills = useQuery({
    queryKey: ["chart-fills", instrument, given.account],
    queryFn: () =>
      expect(
        api.GET("/v1/fills", {
          params: { query: { instrument, limit: 1000, ...(given.account ? { account: given.account } : {}) } },
        }),
      ),
  });
  // A market maker changes orders all the time: marks follow once a second, and after the last of them.
  const markAgain = useSpaced(
    () => {
      void orders.refetch();
      void fills.refetch();
    },
    500,
    1_000,
  );
  useChanges<{ order?: Shape<"OrderShown"> } | null>("orders", (changes) => {
    if (changes.some((change) => change.body?.order?.instrument === instrument)) markAgain();
  });
  const open = orders.data?.items ?? NO_ORDERS;
  const onReady = useCallback((draw: (bar: Bar) => void) => {
    newest.current = draw;
  }, []);
  const isStale = useStale();
  const last = all.at(-1);
  return (
    <section className={`panel fill${isStale ? " stale" : ""}`} aria-label={`Chart of ${instrument}`}>
      <header>
        <Prices instrument={instrument} />
        <span className="actions muted" role="status">
          {String(open.length)} open orders, {String(fills.data?.items.length ?? 0)} fills marked
          {gaps.length ? `, ${String(gaps.length)} gaps in history` : ""}
        </span>
      </header>
      <div className="body flush" style={{ flex: 1, minHeight: 380, position: "relative" }}>
        <ErrorNote error={history.error} retry={() => void history.refetch()} />
        <ErrorNote error={orders.error ?? fills.error} />
        {!history.error && !last && !history.isLoading ? (
          <p className="grid-note">
            <strong>No bar yet</strong>Nothing was recorded of it in this span; what comes is drawn at once.
          </p>
        ) : null}
        <Suspense fallback={null}>
          <Candles
            label={`Candles of ${instrument}, ${interval} each${last ? `; the last closed at ${String(last.close)}` : ""}`}
            bars={all}
            indicators={given.indicators}
            orders={open}
            fills={fills.data?.items ?? []}
            onReady={onReady}
          />
        </Suspense>
      </div>
    </section>
  );
}

function Prices(given: { instrument: string }) {
  const feed = useFeedOf()(given.instrument);
  const update = useNewest<Tick>(feed ? `ticks:${feed}/${given.instrument}` : null);
  const tick = update?.body;
  const { isOld, words } = useAge(update);
  if (!feed) return <span className="muted">No feed carries it.</span>;
  const shown = (value: number | null | undefined) => (value == null ? "–" : String(value));
  return (
    <span className={`number${isOld ? " stale" : ""}`} title={update?.at}>
      <strong>{shown(tick?.price)}</strong> <span className="muted">bid</span> {shown(tick?.bid)} <span className="muted">ask</span>{" "}
      {shown(tick?.ask)} <span className="muted">{words}</span>
    </span>
  );
}
