/** One order: how it stands, its story, changing and cancelling it. */
import { Button, Drawer, Group, Stack, Table, Text } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Money, Price, Quantity, Time } from "@/components/values";
import { signOf } from "@/format/decimal";
import { useMay } from "@/session/rights";
import { useChanges, useStale } from "@/stream/hooks";

import { ChangeOrder } from "./ChangeOrder";
import { isOpen, type OrderChange, OrderState, Side } from "./orders";
import type { Order } from "./read";

export function OrderDetail(given: { account: string; id: string; onClose: () => void }) {
  const { account, id } = given;
  const client = useQueryClient();
  const may = useMay("trade");
  const stale = useStale();
  const [dialog, confirm] = useConfirm();
  const [changes, setChanges] = useState(false);
  const queryKey = ["order", account, id];
  const path = { account, client_order_id: id };
  const { data: order, error, refetch } = useQuery({
    queryKey,
    queryFn: () => expect(api.GET("/v1/orders/{account}/{client_order_id}", { params: { path } })),
  });
  useChanges<OrderChange>("orders", (news) => {
    if (news.some(({ body }) => body.order.account === account && body.order.client_order_id === id)) {
      void client.invalidateQueries({ queryKey });
    }
  });
  const open = order && isOpen(order);
  return (
    <Drawer opened onClose={given.onClose} position="right" size="lg" title={<strong>Order {id}</strong>}>
      <ErrorNote error={error} retry={() => void refetch()} />
      {order || error ? null : <span className="muted">Loading…</span>}
      {order ? (
        <Stack gap="md" className={stale ? "stale" : ""}>
          <Group justify="space-between">
            <Group gap="md">
              <Side side={order.side} />
              <strong>
                <Quantity value={order.quantity} /> {order.instrument}
              </strong>
              <OrderState order={order} />
            </Group>
            {open && may ? (
              <Group gap="xs">
                <Button
                  variant="default"
                  onClick={() => {
                    setChanges(!changes);
                  }}
                >
                  Change
                </Button>
                <Button
                  color="red.9"
                  onClick={() => {
                    confirm({
                      title: "Cancel this order",
                      verb: "Cancel the order",
                      danger: true,
                      children: "The broker is asked to take it back. It may still fill until the broker has.",
                      act: async () => {
                        await expect(api.DELETE("/v1/orders/{account}/{client_order_id}", { params: { path } }));
                        await client.invalidateQueries({ queryKey });
                      },
                    });
                  }}
                >
                  Cancel it
                </Button>
              </Group>
            ) : null}
          </Group>
          {order.reason ? <Text className="wrap">{order.reason}</Text> : null}
          {changes && open ? <ChangeOrder order={order} onDone={() => { setChanges(false); void client.invalidateQueries({ queryKey }); }} onMoved={() => void client.invalidateQueries({ queryKey })} /> : null}
          <Facts order={order} />
          <div>
            <Text component="h3" fw={600} mb={4}>
              What happened
            </Text>
            <Table aria-label="Events of the order">
              <Table.Thead>
                <Table.Tr>
                  {["When", "What", "By", "Why"].map((each) => (
                    <Table.Th key={each}>{each}</Table.Th>
                  ))}
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {order.events.map((event, index) => (
                  <Table.Tr key={`${event.at} ${String(index)}`}>
                    <Table.Td>
                      <Time at={event.at} />
                    </Table.Td>
                    <Table.Td>
                      {event.kind.replaceAll("_", " ")}
                      {event.fill ? (
                        <span>
                          {" "}
                          <Quantity value={event.fill.quantity} /> at <Price value={event.fill.price} />, fee{" "}
                          <Money value={event.fill.fee} currency={event.fill.fee_currency} places={4} />
                        </span>
                      ) : null}
                    </Table.Td>
                    <Table.Td title={event.cause}>{event.actor}</Table.Td>
                    <Table.Td className="wrap">{event.reason || event.raw}</Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </div>
        </Stack>
      ) : null}
      {dialog}
    </Drawer>
  );
}

function Facts({ order }: { order: Order }) {
  const facts: [string, React.ReactNode][] = [
    ["Account", order.account],
    ["Algo", order.algo ? <Link to={`/algos/${encodeURIComponent(order.algo)}`}>{order.algo}</Link> : "by hand"],
    ["Type", order.type.replaceAll("_", " ")],
    ["Stands", order.time_in_force],
    ["Limit", <Price key="limit" value={order.limit_price} />],
    ["Stop", <Price key="stop" value={order.stop_price} />],
    ["Trails by", order.trail_percent ? `${order.trail_percent} %` : <Price key="trail" value={order.trail_price} />],
    ["Filled", <Quantity key="filled" value={order.filled_quantity} />],
    ["Open", <Quantity key="open" value={order.open_quantity} />],
    ["Average price", <Price key="average" value={signOf(order.filled_quantity) ? order.average_price : null} />],
    ["May only reduce", order.reduce_only ? "yes" : "no"],
    ["Broker's id", order.broker_order_id ?? "–"],
    ["Placed", <Time key="placed" at={order.created_at} />],
  ];
  return (
    <dl style={{ display: "grid", gridTemplateColumns: "repeat(3, 1fr)", gap: 8, margin: 0 }}>
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt className="muted">{name}</dt>
          <dd style={{ margin: 0 }}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
