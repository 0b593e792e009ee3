/** Executions: their columns, and those that a page follows live. */
import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import type { Column } from "@/components/DataTable";
import { Money, Price, Quantity, Time } from "@/components/values";
import { type LiveQuery, useLiveRows } from "@/stream/hooks";

import { type OrderChange, Side } from "./orders";
import type { Fill } from "./read";

export const fillKey = (fill: Fill): string => `${fill.account}/${fill.client_order_id}/${fill.fill.execution_id}`;

/** The newest executions, of one algo where it is named; new ones come by the orders' own changes. */
export function useFills(wanted: { algo?: string; account?: string; most?: number }): LiveQuery<Fill> {
  const { algo, account, most = 2_000 } = wanted;
  return useLiveRows<Fill, OrderChange>({
    queryKey: ["fills", algo ?? "", account ?? ""],
    read: () =>
      readAll(
        (cursor) =>
          expect(
            api.GET("/v1/fills", {
              params: {
                query: {
                  limit: 1_000,
                  cursor,
                  ...(algo === undefined ? {} : { algo }),
                  ...(account === undefined ? {} : { account }),
                },
              },
            }),
          ),
        most,
      ),
    keyOf: fillKey,
    topic: "orders",
    apply: (rows, { body: { order, event } }) => {
      if (!event.fill) return;
      if (algo !== undefined && order.algo !== algo) return;
      if (account !== undefined && order.account !== account) return;
      rows.put({
        account: order.account,
        client_order_id: order.client_order_id,
        instrument: order.instrument,
        side: order.side,
        algo: order.algo,
        fill: event.fill,
      });
    },
  });
}

export const FILL_COLUMNS: Column<Fill>[] = [
  { id: "at", header: "Time", kind: "time", value: (f) => f.fill.at, cell: (f) => <Time at={f.fill.at} />, width: 130 },
  { id: "instrument", header: "Instrument", value: (f) => f.instrument, width: 190 },
  { id: "side", header: "Side", value: (f) => f.side, cell: (f) => <Side side={f.side} />, width: 75 },
  { id: "quantity", header: "Quantity", kind: "decimal", value: (f) => f.fill.quantity, cell: (f) => <Quantity value={f.fill.quantity} />, width: 95 },
  { id: "price", header: "Price", kind: "decimal", value: (f) => f.fill.price, cell: (f) => <Price value={f.fill.price} />, width: 105 },
  { id: "fee", header: "Fee", kind: "decimal", value: (f) => f.fill.fee, cell: (f) => <Money value={f.fill.fee} currency={f.fill.fee_currency} places={4} />, width: 115 },
  { id: "account", header: "Account", value: (f) => f.account, width: 110 },
  { id: "algo", header: "Algo", value: (f) => f.algo, width: 110 },
  { id: "order", header: "Order", value: (f) => f.client_order_id, width: 190 },
  { id: "execution", header: "Execution", value: (f) => f.fill.execution_id, width: 150, hidden: true },
];
