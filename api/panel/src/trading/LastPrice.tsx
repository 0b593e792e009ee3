import { memo } from "react";

import { useNow } from "@/components/values";
import { formatSpan, instant } from "@/format/time";
import { useNewest } from "@/stream/hooks";

/** A price that has not moved for so long is shown as old. */
const OLD_MS = 60_000;

interface Tick {
  price: number | null;
  bid: number | null;
  ask: number | null;
}

/** The last price of an instrument as it moves; a tick draws this cell and nothing else. */
export const LastPrice = memo(function LastPrice(given: { feed: string | null; instrument: string }) {
  const update = useNewest<Tick>(given.feed === null ? null : `ticks:${given.feed}/${given.instrument}`);
  const price = update?.body.price ?? update?.body.bid ?? null;
  if (price === null) return <span className="muted">–</span>;
  return <Fresh price={price} at={update?.at ?? ""} />;
});

function Fresh({ price, at }: { price: number; at: string }) {
  const age = useNow() - instant(at);
  const old = age > OLD_MS;
  return (
    <span className={`number${old ? " stale" : ""}`} title={old ? `${at}: ${formatSpan(age)} old` : at}>
      {price.toLocaleString("en-US", { maximumFractionDigits: 8 })}
    </span>
  );
}
