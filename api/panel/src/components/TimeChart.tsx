import { useComputedColorScheme } from "@mantine/core";
import { ColorType, createChart, type IChartApi, type ISeriesApi, LineSeries, type UTCTimestamp } from "lightweight-charts";
import { useEffect, useRef } from "react";

import { instant } from "@/format/time";

export interface Line {
  title: string;
  points: { at: string; value: number | null }[];
  color?: string;
}

/** Colours of a chart in the theme that is on, read from the page's own variables. */
export function chartColors(): { text: string; grid: string; up: string; down: string; line: string[] } {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(name).trim();
  return {
    text: read("--qd-muted"),
    grid: read("--qd-line"),
    up: read("--qd-up"),
    down: read("--qd-down"),
    line: [read("--qd-info"), read("--qd-warn"), read("--qd-good"), read("--qd-bad")],
  };
}

export function chartOptions(colors: ReturnType<typeof chartColors>) {
  return {
    autoSize: true,
    layout: {
      background: { type: ColorType.Solid, color: "transparent" },
      textColor: colors.text,
      fontSize: 11,
      // Its logo would bring an inline style, which the page's policy refuses; the panel names the library in About.
      attributionLogo: false,
    },
    grid: { vertLines: { color: colors.grid }, horzLines: { color: colors.grid } },
    rightPriceScale: { borderColor: colors.grid },
    timeScale: { borderColor: colors.grid, timeVisible: true, secondsVisible: false },
  } as const;
}

/** Lines over time. What they show stands as figures beside it or in a table: a picture alone tells not everybody. */
export default function TimeChart(given: { label: string; lines: Line[]; height?: number }) {
  const holder = useRef<HTMLDivElement>(null);
  const chart = useRef<IChartApi | null>(null);
  const series = useRef<ISeriesApi<"Line">[]>([]);
  const scheme = useComputedColorScheme("dark");
  useEffect(() => {
    const inside = holder.current;
    if (!inside) return;
    const made = createChart(inside, chartOptions(chartColors()));
    chart.current = made;
    return () => {
      made.remove();
      chart.current = null;
      series.current = [];
    };
  }, [scheme]);
  useEffect(() => {
    const made = chart.current;
    if (!made) return;
    const colors = chartColors();
    for (const each of series.current) made.removeSeries(each);
    series.current = given.lines.map((line, index) => {
      const drawn = made.addSeries(LineSeries, {
        color: line.color ?? colors.line[index % colors.line.length] ?? colors.text,
        lineWidth: 2,
        title: given.lines.length > 1 ? line.title : "",
        priceLineVisible: false,
      });
      drawn.setData(inOrder(line.points));
      return drawn;
    });
    made.timeScale().fitContent();
  }, [given.lines, scheme]);
  return <div ref={holder} role="img" aria-label={given.label} style={{ height: given.height ?? 180, width: "100%" }} />;
}

/** One point for a second, in the order of time, as the library wants them. */
function inOrder(points: Line["points"]): { time: UTCTimestamp; value: number }[] {
  const bySecond = new Map<number, number>();
  for (const { at, value } of points) {
    if (value !== null && Number.isFinite(value)) bySecond.set(Math.floor(instant(at) / 1000), value);
  }
  return [...bySecond].sort(([a], [b]) => a - b).map(([time, value]) => ({ time: time as UTCTimestamp, value }));
}
