/** Candles from history that go on live, indicators, and the marks of orders and fills. */
import { Checkbox, Group, SegmentedControl, Select } from "@mantine/core";
import { useLocalStorage } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentInput } from "@/components/InstrumentInput";
import { Page } from "@/components/Page";
import { instant } from "@/format/time";
import { useChanges, useNewest, useStale, useUpdates } from "@/stream/hooks";
import { useSpaced } from "@/stream/useSpaced";
import { OPEN } from "@/trading/orders";
import { type Tick, useAge } from "@/trading/price";
import { type Order, useFeedOf } from "@/trading/read";

import { type Bar, barAt, Bars, type Live, secondOf, underWay } from "./bars";
import type { Indicator } from "./Candles";
import { readBack, type Told } from "./readBack";

const Candles = lazy(() => import("./Candles"));

const INTERVALS: Record<string, number> = { "1s": 1, "5s": 5, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": 86_400 };
/** Of what the bar is made that is under way when the chart is opened: its stream begins with the next one. */
const NARROWER: Record<string, string> = { "5s": "1s", "5m": "1m", "15m": "1m", "1h": "1m" };
const NO_ORDERS: Order[] = [];
const NO_FILLS: Shape<"FillOfOrder">[] = [];
/** Bars of history at the beginning. */
const BARS = 600;
/** What a provider has told of the last minute it may still add to. */
const FINAL_MS = 65_000;

const INDICATORS: { value: Indicator; label: string }[] = [
  { value: "sma", label: "SMA 20" },
  { value: "ema", label: "EMA 50" },
  { value: "bollinger", label: "Bollinger 20, 2" },
  { value: "rsi", label: "RSI 14" },
];

export default function Chart() {
  const { instrument = null } = useParams();
  const navigate = useNavigate();
  const [interval, setInterval] = useLocalStorage({ key: "qd-chart-interval", defaultValue: "1m", getInitialValueInEffect: false });
  const [shown, setShown] = useLocalStorage<Indicator[]>({ key: "qd-chart-indicators", defaultValue: ["sma"], getInitialValueInEffect: false });
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
  const width = INTERVALS[interval] ?? 60;
  const [bars] = useState(() => new Bars());
  const [all, setAll] = useState<Bar[]>([]);
  const [told, setTold] = useState<Pick<Told, "gaps" | "isPart">>({ gaps: [], isPart: true });
  const newest = useRef<((bar: Bar) => void) | null>(null);
  const latest = useRef(0);
  const history = useQuery({
    queryKey: ["history", instrument, interval],
    queryFn: ({ signal }) =>
      readBack({
        instrument, interval, width, count: BARS, now: Math.floor(Date.now() / 1000), signal,
        take: (found) => {
          bars.history(found.bars, found.until);
          setAll(bars.all());
          setTold(found);
        },
      }),
    gcTime: 0,
    staleTime: Infinity,
    retry: 1,
  });
  const final = useRef<ReturnType<typeof setTimeout> | null>(null);
  useEffect(
    () => () => {
      if (final.current) clearTimeout(final.current);
    },
    [],
  );
  // Of what the stream did not tell whole: now, and once its provider adds nothing to it any more.
  const readAgain = () => {
    void history.refetch();
    if (final.current) clearTimeout(final.current);
    final.current = setTimeout(() => void history.refetch(), FINAL_MS);
  };
  const take = (body: Bar): boolean => {
    const start = secondOf(body);
    const isNew = start > latest.current;
    latest.current = Math.max(latest.current, start);
    if (isNew && bars.isOpenBefore(start)) readAgain();
    const where = bars.put(body);
    // Indicators are drawn of whole bars: again when the next one begins.
    if (where === "older" || (where === "newest" && isNew)) return true;
    if (where === "newest") newest.current?.(body);
    return false;
  };
  useUpdates<Live>(interval === "1d" ? null : `bars:${instrument}/${interval}`, (updates) => {
    let isOther = false;
    for (const { body } of updates) {
      if ("missing" in body) {
        bars.distrust(body.missing.start, body.missing.end);
        void history.refetch();
      } else if (take(body)) isOther = true;
    }
    if (isOther) setAll(bars.all());
  });
  useUnderWay(instrument, interval, width, (bar) => {
    // Once a bar of the stream is there, this one is history's.
    if (secondOf(bar) >= latest.current && take(bar)) setAll(bars.all());
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
  const tick = useQuery({
    queryKey: ["instrument", instrument],
    queryFn: () => expect(api.GET("/v1/instruments/{instrument}", { params: { path: { instrument } } })),
    staleTime: Infinity,
  }).data?.tick_size;
  const open = orders.data?.items ?? NO_ORDERS;
  const starts = useMemo(() => all.map(secondOf), [all]);
  const marked = useMemo(
    () => (fills.data?.items ?? NO_FILLS).filter((each) => barAt(starts, Math.floor(instant(each.fill.at) / 1000), width) !== undefined),
    [fills.data, starts, width],
  );
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
          {String(open.length)} open orders, {String(marked.length)} fills marked
          {told.gaps.length ? `, ${String(told.gaps.length)} ${told.gaps.length === 1 ? "gap" : "gaps"} in history` : ""}
          {history.isFetching && told.isPart && last ? ", older bars are being read" : ""}
          {interval === "1d" ? ", closed days only" : ""}
        </span>
      </header>
      <div className="body flush" style={{ flex: 1, minHeight: 380, position: "relative" }}>
        <ErrorNote error={history.error} retry={() => void history.refetch()} />
        <ErrorNote error={orders.error ?? fills.error} />
        {!history.error && !last && !history.isFetching ? (
          <p className="grid-note">
            <strong>No bar yet</strong>Nothing was recorded of it in this span;{" "}
            {interval === "1d" ? "a day is drawn once it has closed." : "what comes is drawn at once."}
          </p>
        ) : null}
        <Suspense fallback={null}>
          <Candles
            label={`Candles of ${instrument}, ${interval} each${last ? `; the last closed at ${String(last.close)}` : ""}`}
            bars={all}
            indicators={given.indicators}
            orders={open}
            fills={marked}
            width={width}
            tick={tick}
            onReady={onReady}
          />
        </Suspense>
      </div>
    </section>
  );
}

/**
 * The bar that is under way when the chart is opened, made of narrower ones until the first whole bar of the stream: else
 * an hour's chart would show nothing of the hour.
 */
function useUnderWay(instrument: string, interval: string, width: number, draw: (bar: Bar) => void): void {
  const narrower = NARROWER[interval] ?? "";
  const [start] = useState(() => Math.floor(Date.now() / 1000 / width) * width);
  const [bars] = useState(() => new Bars());
  const [isOver, setOver] = useState(narrower === "");
  const feed = useFeedOf()(instrument);
  const isWanted = !isOver && feed !== undefined;
  const show = () => {
    const bar = underWay(bars.all(), start, width);
    if (bar) draw(bar);
  };
  const past = useQuery({
    queryKey: ["history-under-way", instrument, interval],
    queryFn: async ({ signal }) => {
      const found = await readBack({
        instrument, interval: narrower, width: INTERVALS[narrower] ?? 60, now: Math.floor(Date.now() / 1000), signal,
        count: Math.ceil((Date.now() / 1000 - start) / (INTERVALS[narrower] ?? 60)),
        take: () => undefined,
      });
      bars.history(found.bars, found.until);
      show();
      return found;
    },
    enabled: isWanted,
    gcTime: 0,
    staleTime: Infinity,
    retry: 1,
  });
  useUpdates<Live>(isWanted ? `bars:${instrument}/${narrower}` : null, (updates) => {
    for (const { body } of updates) {
      if ("missing" in body) void past.refetch();
      else if (secondOf(body) >= start + width) {
        setOver(true);
        return;
      } else bars.put(body);
    }
    if (past.data) show();
  });
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
