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
  private readonly byStart = new Map<number, Bar>();
  private readonly live = new Map<number, Bar>();

  /** What history tells; what the stream has said is as new or newer. */
  history(bars: Bar[]): void {
    this.byStart.clear();
    for (const bar of bars) this.byStart.set(secondOf(bar), bar);
    for (const [start, bar] of this.live) this.byStart.set(start, bar);
  }

  /** A bar of the stream; whether it is the newest (drawn at once) or an older one amended. */
  put(bar: Bar): "newest" | "older" {
    const start = secondOf(bar);
    this.live.set(start, bar);
    // History has what is older.
    if (this.live.size > 400) this.live.delete(Math.min(...this.live.keys()));
    const last = Math.max(-Infinity, ...this.byStart.keys());
    this.byStart.set(start, bar);
    return start >= last ? "newest" : "older";
  }

  /** Bars there may be absent or wrong: history is right about them. */
  distrust(start: string, end: string): void {
    for (const at of [...this.live.keys()]) {
      if (at * 1000 >= instant(start) && at * 1000 < instant(end)) this.live.delete(at);
    }
  }

  all(): Bar[] {
    return [...this.byStart].sort(([a], [b]) => a - b).map(([, bar]) => bar);
  }
}
