import { memo } from "react";

import { useNewest } from "@/stream/hooks";

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
  return (
    <span className="number" title={update?.at}>
      {price.toLocaleString("en-US", { maximumFractionDigits: 8 })}
    </span>
  );
});
