/** Bars of history with live ones laid over them: by their opening, the newer word wins. */
import { instant } from "@/format/time";

export interface Bar {
  opened_at: string;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  closed?: boolean;
}

export type Live = Bar | { missing: { start: string; end: string } };

/** Seconds since the epoch, as the chart counts. */
export const secondOf = (bar: Bar): number => Math.floor(instant(bar.opened_at) / 1000);

export class Bars {
  private readonly past = new Map<number, Bar>();
  private readonly live = new Map<number, Bar>();
  private until = -Infinity;

  /**
   * What history tells, in the place of what it told before. All that opened before `until` (seconds) and has traded is
   * in it, whole; a closed bar of the stream is as new or newer.
   */
  history(bars: Bar[], until: number): void {
    this.past.clear();
    this.until = until;
    for (const bar of bars) this.past.set(secondOf(bar), bar);
  }

  /**
   * A bar of the stream; whether it is the newest (drawn at once), an older one amended, or one under way that history
   * has whole.
   */
  put(bar: Bar): "newest" | "older" | "known" {
    const start = secondOf(bar);
    const last = Math.max(-Infinity, ...this.past.keys(), ...this.live.keys());
    this.live.set(start, bar);
    // History has what is older.
    if (this.live.size > 400) this.live.delete(Math.min(...this.live.keys()));
    if (!this.counts(start, bar)) return "known";
    return start >= last ? "newest" : "older";
  }

  /** Whether the last bar of the stream before `start` was still under way: how it closed was not told. */
  isOpenBefore(start: number): boolean {
    const before = Math.max(-Infinity, ...[...this.live.keys()].filter((each) => each < start));
    const bar = this.live.get(before);
    return bar !== undefined && bar.closed === false && before >= this.until;
  }

  /** Bars there may be absent or wrong: history is right about them. */
  distrust(start: string, end: string): void {
    for (const at of [...this.live.keys()]) {
      if (at * 1000 >= instant(start) && at * 1000 < instant(end)) this.live.delete(at);
    }
  }

  all(): Bar[] {
    const found = new Map(this.past);
    for (const [start, bar] of this.live) if (this.counts(start, bar)) found.set(start, bar);
    return [...found].sort(([a], [b]) => a - b).map(([, bar]) => bar);
  }

  private counts(start: number, bar: Bar): boolean {
    return bar.closed !== false || start >= this.until;
  }
}

/** The bar that narrower ones make of the span that begins at `start` (seconds), under way; null where none is in it. */
export function underWay(bars: readonly Bar[], start: number, width: number): Bar | null {
  const inside = bars.filter((each) => secondOf(each) >= start && secondOf(each) < start + width);
  const [first] = inside;
  const last = inside.at(-1);
  if (!first || !last) return null;
  return {
    opened_at: new Date(start * 1000).toISOString(),
    open: first.open,
    high: Math.max(...inside.map((each) => each.high)),
    low: Math.min(...inside.map((each) => each.low)),
    close: last.close,
    volume: inside.reduce((sum, each) => sum + each.volume, 0),
    closed: false,
  };
}

/** When the bar opened in which something fell at `at` (seconds); undefined where there is none. `starts` are in order. */
export function barAt(starts: readonly number[], at: number, width: number): number | undefined {
  const start = starts.findLast((each) => each <= at);
  return start !== undefined && at < start + width ? start : undefined;
}
