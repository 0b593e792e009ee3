import { useMantineColorScheme } from "@mantine/core";
import { BaselineSeries, createChart, type IChartApi, type ISeriesApi, type UTCTimestamp } from "lightweight-charts";
import { useEffect, useRef } from "react";

import { localSecond } from "@/format/time";

import { chartColors, chartOptions } from "./look";

export interface Point {
  /** Milliseconds since the epoch. */
  at: number;
  value: number;
}

/** A line above and below nothing, in the colours of gain and loss. */
export function LineChart(given: { points: Point[]; label: string; height?: number }) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<IChartApi | null>(null);
  const series = useRef<ISeriesApi<"Baseline"> | null>(null);
  const { colorScheme } = useMantineColorScheme();
  useEffect(() => {
    if (!box.current) return;
    const colors = chartColors();
    const { up, down } = colors;
    const made = createChart(box.current, chartOptions(colors));
    chart.current = made;
    series.current = made.addSeries(BaselineSeries, {
      baseValue: { type: "price", price: 0 },
      topLineColor: up, bottomLineColor: down, lineWidth: 2,
      topFillColor1: `${up}40`, topFillColor2: `${up}08`, bottomFillColor1: `${down}08`, bottomFillColor2: `${down}40`,
      priceLineVisible: false,
    });
    return () => {
      made.remove();
      chart.current = null;
      series.current = null;
    };
  }, [colorScheme]);
  const { points } = given;
  useEffect(() => {
    // One point a second, in their order: the chart takes nothing else.
    const bySecond = new Map<number, number>();
    for (const each of points) {
      if (Number.isFinite(each.at) && Number.isFinite(each.value)) bySecond.set(localSecond(each.at), each.value);
    }
    const data = [...bySecond].sort(([a], [b]) => a - b).map(([time, value]) => ({ time: time as UTCTimestamp, value }));
    series.current?.setData(data);
    chart.current?.timeScale().fitContent();
  }, [points, colorScheme]);
  return (
    <figure style={{ margin: 0 }}>
      <div ref={box} role="img" aria-label={given.label} style={{ height: given.height ?? 250 }} />
      <figcaption className="muted" style={{ fontSize: "0.65rem", textAlign: "right" }}>
        Charts by{" "}
        <a href="https://www.tradingview.com/" target="_blank" rel="noreferrer" className="muted">
          TradingView Lightweight Charts
        </a>
      </figcaption>
    </figure>
  );
}
