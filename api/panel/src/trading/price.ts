/** Prices as they come, and how old they are. */
import { useNow } from "@/components/values";
import { formatSpan, instant } from "@/format/time";
import type { Update } from "@/stream/connection";
import { useStale } from "@/stream/hooks";

export interface Tick {
  price: number | null;
  bid: number | null;
  ask: number | null;
}

/** A price that has not moved for so long is shown as old. */
const OLD_MS = 60_000;
/** Its age is told from here on. */
const TOLD_MS = 10_000;

/** When each update was first shown. No state: a tick must draw its cell once. */
const cameAt = new WeakMap<Update<Tick>, number>();

/**
 * How old a price is: by its own time, or since it came here, whichever is longer, for this computer's clock may be wrong.
 * Without a connection it is old at once: nobody knows what the market has done since.
 */
export function useAge(update: Update<Tick> | null): { isOld: boolean; words: string } {
  const now = useNow();
  const isCut = useStale();
  if (!update) return { isOld: false, words: "" };
  const came = cameAt.get(update) ?? Date.now();
  cameAt.set(update, came);
  const own = now - instant(update.at);
  const age = Math.max(now - came, Number.isNaN(own) ? 0 : own);
  return { isOld: isCut || age > OLD_MS, words: age > TOLD_MS ? `${formatSpan(age)} ago` : "" };
}
