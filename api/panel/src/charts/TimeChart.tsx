import { useComputedColorScheme } from "@mantine/core";
import { createChart, type IChartApi, type ISeriesApi, LineSeries, type UTCTimestamp } from "lightweight-charts";
import { useEffect, useRef } from "react";

import { instant, localSecond } from "@/format/time";

import { chartColors, chartOptions } from "./look";

export interface Line {
  title: string;
  points: { at: string; value: number | null }[];
  color?: string;
}

/**
 * Lines over time, by the reader's clock; of `days`, which begin at 00:00 UTC, by their dates. What they show  stands as
 * figures beside it or in a table: a picture alone tells not everybody.
 */
export default function TimeChart(given: { label: string; lines: Line[]; days?: boolean; height?: number }) {
  const holder = useRef<HTMLDivElement>(null);
  const chart = useRef<IChartApi | null>(null);
  const series = useRef<ISeriesApi<"Line">[]>([]);
  const scheme = useComputedColorScheme("dark");
  const { lines, days = false } = given;
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
    series.current = lines.map((line, index) => {
      const drawn = made.addSeries(LineSeries, {
        color: line.color ?? colors.line[index % colors.line.length] ?? colors.text,
        lineWidth: 2,
        title: lines.length > 1 ? line.title : "",
        priceLineVisible: false,
      });
      drawn.setData(inOrder(line.points, days));
      return drawn;
    });
    made.timeScale().fitContent();
  }, [lines, days, scheme]);
  return <div ref={holder} role="img" aria-label={given.label} style={{ height: given.height ?? 180, width: "100%" }} />;
}

/** One point for a second, in the order of time, as the library wants them. */
function inOrder(points: Line["points"], days: boolean): { time: UTCTimestamp; value: number }[] {
  const bySecond = new Map<number, number>();
  for (const { at, value } of points) {
    const ms = instant(at);
    if (value !== null && Number.isFinite(value)) bySecond.set(days ? Math.floor(ms / 1000) : localSecond(ms), value);
  }
  return [...bySecond].sort(([a], [b]) => a - b).map(([time, value]) => ({ time: time as UTCTimestamp, value }));
}
