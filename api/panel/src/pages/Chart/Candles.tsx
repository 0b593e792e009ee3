import { useComputedColorScheme } from "@mantine/core";
import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  type IChartApi,
  type IPriceLine,
  type ISeriesApi,
  type ISeriesMarkersPluginApi,
  LineSeries,
  LineStyle,
  type SeriesMarker,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import { useEffect, useRef } from "react";

import type { Shape } from "@/api/client";
import { chartColors, chartOptions } from "@/charts/look";
import { roughly, trimDecimal } from "@/format/decimal";
import { instant } from "@/format/time";

import { type Bar, barAt, secondOf } from "./bars";
import { bollinger, ema, rsi, type Series, sma } from "./indicators";

export type Indicator = "sma" | "ema" | "bollinger" | "rsi";

interface Parts {
  chart: IChartApi;
  candles: ISeriesApi<"Candlestick">;
  volume: ISeriesApi<"Histogram">;
  markers: ISeriesMarkersPluginApi<Time>;
  lines: ISeriesApi<"Line">[];
  prices: IPriceLine[];
}

/** Places after the point of a decimal, those that tell nothing left off. */
const placesOf = (decimal: string): number => trimDecimal(decimal).split(".")[1]?.length ?? 0;

const timeOf = (bar: Bar) => secondOf(bar) as UTCTimestamp;
const candleOf = (bar: Bar) => ({ time: timeOf(bar), open: bar.open, high: bar.high, low: bar.low, close: bar.close });

export default function Candles(given: {
  label: string;
  bars: Bar[];
  indicators: Indicator[];
  orders: Shape<"OrderShown">[];
  fills: Shape<"FillOfOrder">[];
  /** Seconds that a bar spans. */
  width: number;
  /** The smallest step of its price, a decimal; undefined while that is not known. */
  tick: string | undefined;
  /** Gets what draws a newest bar without drawing all again. */
  onReady: (draw: (bar: Bar) => void) => void;
}) {
  const holder = useRef<HTMLDivElement>(null);
  const parts = useRef<Parts | null>(null);
  const fitted = useRef(false);
  const scheme = useComputedColorScheme("dark");
  const { bars, indicators, orders, fills, width, tick, onReady } = given;

  useEffect(() => {
    const inside = holder.current;
    if (!inside) return;
    const colors = chartColors();
    const chart = createChart(inside, chartOptions(colors));
    const candles = chart.addSeries(CandlestickSeries, {
      upColor: colors.up, downColor: colors.down, wickUpColor: colors.up, wickDownColor: colors.down, borderVisible: false,
    });
    const volume = chart.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, color: colors.grid, lastValueVisible: false, priceLineVisible: false });
    chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    parts.current = { chart, candles, volume, markers: createSeriesMarkers(candles, []), lines: [], prices: [] };
    fitted.current = false;
    onReady((bar) => {
      candles.update(candleOf(bar));
      volume.update({ time: timeOf(bar), value: bar.volume });
    });
    return () => {
      onReady(() => undefined);
      chart.remove();
      parts.current = null;
    };
  }, [scheme, onReady]);

  useEffect(() => {
    if (tick === undefined) return;
    const size = Number(trimDecimal(tick));
    if (size > 0) parts.current?.candles.applyOptions({ priceFormat: { type: "price", precision: placesOf(tick), minMove: size } });
  }, [tick, scheme]);

  useEffect(() => {
    const all = parts.current;
    if (!all) return;
    all.candles.setData(bars.map(candleOf));
    all.volume.setData(bars.map((bar) => ({ time: timeOf(bar), value: bar.volume })));
    if (bars.length && !fitted.current) {
      fitted.current = true;
      all.chart.timeScale().setVisibleLogicalRange({ from: Math.max(0, bars.length - 150), to: bars.length + 4 });
    }
  }, [bars, scheme]);

  useEffect(() => {
    const all = parts.current;
    if (!all) return;
    const colors = chartColors();
    for (const line of all.lines) all.chart.removeSeries(line);
    while (all.chart.panes().length > 1) all.chart.removePane(1);
    const closes = bars.map((bar) => bar.close);
    const draw = (title: string, values: Series, color: string | undefined, pane = 0) => {
      const line = all.chart.addSeries(
        LineSeries,
        { title, color: color ?? colors.text, lineWidth: 1, priceLineVisible: false, lastValueVisible: pane > 0 },
        pane,
      );
      line.setData(
        bars.flatMap((bar, index) => {
          const value = values[index];
          return value == null ? [] : [{ time: timeOf(bar), value }];
        }),
      );
      return line;
    };
    all.lines = [];
    if (indicators.includes("sma")) all.lines.push(draw("SMA 20", sma(closes, 20), colors.line[0]));
    if (indicators.includes("ema")) all.lines.push(draw("EMA 50", ema(closes, 50), colors.line[1]));
    if (indicators.includes("bollinger")) {
      const { upper, lower } = bollinger(closes, 20, 2);
      all.lines.push(draw("upper", upper, colors.text), draw("lower", lower, colors.text));
    }
    if (indicators.includes("rsi")) all.lines.push(draw("RSI 14", rsi(closes, 14), colors.line[0], 1));
  }, [bars, indicators, scheme]);

  useEffect(() => {
    const all = parts.current;
    if (!all) return;
    const colors = chartColors();
    for (const line of all.prices) all.candles.removePriceLine(line);
    all.prices = orders.flatMap((order) => {
      const price = order.limit_price ?? order.stop_price;
      if (price == null) return [];
      return [
        all.candles.createPriceLine({
          price: roughly(price),
          color: order.side === "buy" ? colors.up : colors.down,
          lineWidth: 1,
          lineStyle: LineStyle.Dashed,
          axisLabelVisible: true,
          title: `${order.side} ${order.open_quantity}${order.algo ? ` ${order.algo}` : ""}`,
        }),
      ];
    });
  }, [orders, scheme]);

  useEffect(() => {
    const all = parts.current;
    if (!all) return;
    const colors = chartColors();
    const starts = bars.map(secondOf);
    const marks = fills.flatMap((each): SeriesMarker<Time>[] => {
      const at = Math.floor(instant(each.fill.at) / 1000);
      // Markers stand on bars only.
      const start = barAt(starts, at, width);
      if (start === undefined) return [];
      const isBuy = each.side === "buy";
      return [
        {
          time: start as UTCTimestamp,
          position: isBuy ? "belowBar" : "aboveBar",
          shape: isBuy ? "arrowUp" : "arrowDown",
          color: isBuy ? colors.up : colors.down,
          text: bars.length < 400 && fills.length < 60 ? `${isBuy ? "B" : "S"} ${each.fill.quantity}` : "",
        },
      ];
    });
    all.markers.setMarkers(marks.sort((a, b) => Number(a.time) - Number(b.time)));
  }, [fills, bars, width, scheme]);

  return <div ref={holder} role="img" aria-label={given.label} style={{ position: "absolute", inset: 0 }} />;
}
