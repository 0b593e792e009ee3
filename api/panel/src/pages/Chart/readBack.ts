/** History in pieces, the newest first: what is looked at is drawn while older bars are still being read. */
import { api, expect, type Shape } from "@/api/client";
import { instant } from "@/format/time";

import type { Bar } from "./bars";

type Gap = Shape<"GapShown">;

export interface Told {
  bars: Bar[];
  gaps: Gap[];
  /** Seconds: all that opened before is told. */
  until: number;
  /** Whether the oldest is not there yet. */
  isPart: boolean;
}

/** A server makes a page of so many minutes at most: of days, some weeks at a time. */
const DAYS_AT_ONCE = 30 * 86_400;
const MOST_AT_ONCE = 600;

/** The last `count` bars; `take` gets what is known after each piece. */
export async function readBack(given: {
  instrument: string;
  interval: string;
  width: number;
  count: number;
  now: number;
  signal: AbortSignal;
  take: (told: Told) => void;
}): Promise<Told> {
  const { instrument, interval, width, count, signal } = given;
  const piece = width >= 86_400 ? DAYS_AT_ONCE : width * MOST_AT_ONCE;
  const oldest = given.now - count * width;
  let told: Told = { bars: [], gaps: [], until: given.now, isPart: true };
  for (let end = given.now, isNewest = true; end > oldest; end -= piece, isNewest = false) {
    const start = Math.max(oldest, end - piece);
    const bars: Bar[] = [];
    const gaps: Gap[] = [];
    let cursor: string | undefined;
    let until = end;
    do {
      const page = await expect(
        api.GET("/v1/history", {
          // The newest piece ends where the server's clock says that bars are closed.
          params: { query: { instrument, interval, start: iso(start), limit: 1_000, ...(isNewest ? {} : { end: iso(end) }), ...(cursor ? { cursor } : {}) } },
          signal,
        }),
      );
      bars.push(...(page.items as Bar[]));
      gaps.push(...page.gaps);
      until = Math.floor(instant(page.until) / 1000);
      cursor = page.next ?? undefined;
    } while (cursor !== undefined);
    told = {
      bars: [...bars, ...told.bars],
      gaps: [...gaps, ...told.gaps],
      until: isNewest ? until : told.until,
      isPart: start > oldest,
    };
    given.take(told);
  }
  return told;
}

const iso = (second: number): string => new Date(second * 1000).toISOString();
