/** Amounts and times as cells and texts. Amounts are decimal strings and stay so. */
import { Tooltip } from "@mantine/core";
import { useEffect } from "react";

import { formatDecimal, signOf, trimDecimal } from "@/format/decimal";
import { store, useStore } from "@/format/store";
import { formatSpan, formatTime, instant } from "@/format/time";

type Text = string | null | undefined;

/** Money; `signed` marks gains and losses by sign and colour. */
export function Money(given: { value: Text; currency?: string | undefined; signed?: boolean; places?: number }) {
  const sign = given.signed ? signOf(given.value) : 0;
  const tone = sign > 0 ? " up" : sign < 0 ? " down" : "";
  return (
    <span className={`number${tone}`} title={given.value ?? undefined}>
      {formatDecimal(given.value, { places: given.places ?? 2, sign: given.signed ?? false })}
      {given.currency && given.value != null ? <span className="muted"> {given.currency}</span> : null}
    </span>
  );
}

/** A quantity or a price: every place it has. */
export function Quantity(given: { value: Text; signed?: boolean }) {
  const value = given.value == null ? given.value : trimDecimal(given.value);
  return <span className="number">{formatDecimal(value, { sign: given.signed ?? false })}</span>;
}

export const Price = Quantity;

/** An instant in the reader's own time; the title has all of it. */
export function Time(given: { at: Text }) {
  if (!given.at) return <span className="muted">–</span>;
  return (
    <time dateTime={given.at} title={given.at} className="number">
      {formatTime(given.at)}
    </time>
  );
}

const second = store(Date.now());
let followers = 0;
let timer: ReturnType<typeof setInterval> | null = null;

/** The present in milliseconds, once a second. */
export function useNow(): number {
  useEffect(() => {
    followers += 1;
    if (!timer) {
      // Nobody has followed it meanwhile.
      second.set(Date.now());
      timer = setInterval(() => {
        second.set(Date.now());
      }, 1_000);
    }
    return () => {
      followers -= 1;
      if (followers === 0 && timer) {
        clearInterval(timer);
        timer = null;
      }
    };
  }, []);
  return useStore(second);
}

/** How long ago, or in how long. */
export function Ago(given: { at: Text; ahead?: boolean }) {
  const now = useNow();
  if (!given.at) return <span className="muted">–</span>;
  const span = given.ahead ? instant(given.at) - now : now - instant(given.at);
  return (
    <Tooltip label={given.at}>
      <time dateTime={given.at}>{given.ahead ? `in ${formatSpan(span)}` : `${formatSpan(span)} ago`}</time>
    </Tooltip>
  );
}
