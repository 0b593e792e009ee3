import { memo } from "react";

import type { Update } from "@/stream/connection";
import { useNewest } from "@/stream/hooks";

import { type Tick, useAge } from "./price";

/** The last price of an instrument as it moves; a tick draws this cell and nothing else. */
export const LastPrice = memo(function LastPrice(given: { feed: string | null; instrument: string }) {
  const update = useNewest<Tick>(given.feed === null ? null : `ticks:${given.feed}/${given.instrument}`);
  if (update === null) return <span className="muted">–</span>;
  const { price, bid, ask } = update.body;
  if (price == null) {
    // A quote is no price that anybody has paid.
    return (
      <span className="muted" title={`No trade yet; bid ${shown(bid)}, ask ${shown(ask)}`}>
        –
      </span>
    );
  }
  return <Fresh price={price} update={update} />;
});

function Fresh({ price, update }: { price: number; update: Update<Tick> }) {
  const { isOld, words } = useAge(update);
  return (
    <span className={`number${isOld ? " stale" : ""}`} title={words ? `${update.at}: ${words}` : update.at}>
      {shown(price)}
    </span>
  );
}

/** All digits that a float holds, also of what is far below a cent. */
const shown = (price: number | null): string =>
  price == null ? "–" : price.toLocaleString("en-US", { maximumSignificantDigits: 15 });
