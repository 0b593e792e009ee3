/** Orders: their columns, and those that a page follows live. */
import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import type { Column } from "@/components/DataTable";
import { StateBadge } from "@/components/StateBadge";
import { Price, Quantity, Time } from "@/components/values";
import { type LiveQuery, useLiveRows } from "@/stream/hooks";

import { LastPrice } from "./LastPrice";
import type { Order } from "./read";

export type OrderEvent = Shape<"EventShown">;
export interface OrderChange {
  order: Order;
  event: OrderEvent;
}

type State = Order["state"];

export const OPEN: readonly State[] = ["pending", "submitted", "partially_filled", "unknown"];
export const isOpen = (order: Order): boolean => OPEN.includes(order.state);
export const orderKey = (order: Pick<Order, "account" | "client_order_id">): string =>
  `${order.account}/${order.client_order_id}`;

export interface OrdersWanted {
  which: "open" | "all";
  algo?: string;
  account?: string;
  since?: string;
  most?: number;
}

/** Orders by REST, kept up to date by the stream. */
export function useOrders(wanted: OrdersWanted): LiveQuery<Order> {
  const { which, algo, account, since, most = 5_000 } = wanted;
  const fits = (order: Order) =>
    (which === "all" || isOpen(order)) &&
    (algo === undefined || order.algo === algo) &&
    (account === undefined || order.account === account);
  return useLiveRows<Order, OrderChange>({
    queryKey: ["orders", which, algo ?? "", account ?? "", since ?? ""],
    read: () =>
      readAll(
        (cursor) =>
          expect(
            api.GET("/v1/orders", {
              params: {
                query: {
                  limit: 1_000,
                  cursor,
                  ...(which === "open" ? { state: [...OPEN] } : {}),
                  ...(algo === undefined ? {} : { algo }),
                  ...(account === undefined ? {} : { account }),
                  ...(since === undefined ? {} : { since }),
                },
              },
            }),
          ),
        most,
      ),
    keyOf: orderKey,
    topic: "orders",
    apply: (rows, { body }) => {
      const known = rows.get(orderKey(body.order));
      // An older change may come again after a reading that has a newer one.
      if (known && known.updated_at > body.order.updated_at) return;
      if (fits(body.order)) rows.put(body.order);
      else rows.remove(orderKey(body.order));
    },
  });
}

/** The side as a word and a sign. */
export function Side({ side }: { side: string }) {
  return <span className={side === "buy" ? "up" : "down"}>{side === "buy" ? "▲ buy" : "▼ sell"}</span>;
}

export function OrderState({ order }: { order: Order }) {
  const label = order.cancelling && isOpen(order) ? "cancelling" : undefined;
  return <StateBadge state={label ?? order.state} reason={order.reason} />;
}

/** Columns of a table of orders; `feedOf` tells where the last price comes from. */
export function orderColumns(feedOf: (instrument: string) => string | null): Column<Order>[] {
  return [
    { id: "instrument", header: "Instrument", value: (o) => o.instrument, width: 162 },
    { id: "side", header: "Side", value: (o) => o.side, cell: (o) => <Side side={o.side} />, width: 68 },
    { id: "type", header: "Type", value: (o) => o.type.replaceAll("_", " "), width: 78 },
    { id: "quantity", header: "Quantity", kind: "decimal", value: (o) => o.quantity, cell: (o) => <Quantity value={o.quantity} />, width: 84 },
    { id: "filled", header: "Filled", kind: "decimal", value: (o) => o.filled_quantity, cell: (o) => <Quantity value={o.filled_quantity} />, width: 78 },
    { id: "limit", header: "Limit", kind: "decimal", value: (o) => o.limit_price, cell: (o) => <Price value={o.limit_price} />, width: 90 },
    { id: "stop", header: "Stop", kind: "decimal", value: (o) => o.stop_price, cell: (o) => <Price value={o.stop_price} />, width: 84 },
    { id: "last", header: "Last", kind: "number", value: () => null, cell: (o) => <LastPrice feed={feedOf(o.instrument)} instrument={o.instrument} />, width: 92, title: "Last price of the market, live" },
    { id: "average", header: "Average", kind: "decimal", value: (o) => o.average_price, cell: (o) => <Price value={o.filled_quantity === "0" ? null : o.average_price} />, width: 90, hidden: true },
    { id: "state", header: "State", value: (o) => (o.cancelling && isOpen(o) ? "cancelling" : o.state), cell: (o) => <OrderState order={o} />, width: 126 },
    { id: "reason", header: "Reason", value: (o) => o.reason, width: 150, hidden: true },
    { id: "account", header: "Account", value: (o) => o.account, width: 90 },
    { id: "algo", header: "Algo", value: (o) => o.algo, width: 90 },
    { id: "tif", header: "Stands", value: (o) => o.time_in_force, width: 62, hidden: true },
    { id: "created", header: "Placed", kind: "time", value: (o) => o.created_at, cell: (o) => <Time at={o.created_at} />, width: 130, hidden: true },
    { id: "updated", header: "Changed", kind: "time", value: (o) => o.updated_at, cell: (o) => <Time at={o.updated_at} />, width: 96 },
    { id: "key", header: "Key", value: (o) => o.client_order_id, width: 180, hidden: true },
    { id: "broker", header: "Broker's id", value: (o) => o.broker_order_id, width: 110, hidden: true },
  ];
}
