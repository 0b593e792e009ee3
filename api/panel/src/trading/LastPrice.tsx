import { memo } from "react";

import type { Update } from "@/stream/connection";
import { useNewest } from "@/stream/hooks";

import { type Tick, useAge } from "./price";

/** The last price of an instrument as it moves; a tick draws this cell and nothing else. */
export const LastPrice = memo(function LastPrice(given: { feed: string | null; instrument: string }) {
  const update = useNewest<Tick>(given.feed === null ? null : `ticks:${given.feed}/${given.instrument}`);
  const price = update?.body.price ?? update?.body.bid ?? null;
  if (update === null || price === null) return <span className="muted">–</span>;
  return <Fresh price={price} update={update} />;
});

function Fresh({ price, update }: { price: number; update: Update<Tick> }) {
  const { isOld, words } = useAge(update);
  return (
    <span className={`number${isOld ? " stale" : ""}`} title={words ? `${update.at}: ${words}` : update.at}>
      {price.toLocaleString("en-US", { maximumFractionDigits: 8 })}
    </span>
  );
}
