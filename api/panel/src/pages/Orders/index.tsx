import { Anchor, Button, Group, List, ScrollArea, SegmentedControl, Text } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useMemo, useRef, useState } from "react";
import { useNavigate, useParams, useSearchParams } from "react-router";

import { api, expect } from "@/api/client";
import { wordsOf } from "@/api/problem";
import { useConfirm } from "@/components/ConfirmAction";
import { DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { Price, Quantity } from "@/components/values";
import { useMay } from "@/session/rights";
import { OrderDetail } from "@/trading/OrderDetail";
import { isOpen, orderColumns, orderKey, Side, useOrders } from "@/trading/orders";
import { OrderTicket } from "@/trading/OrderTicket";
import { type Order, useFeedOf } from "@/trading/read";

/** So many orders are named in the dialog that cancels them. */
const NAMED = 200;

export default function Orders() {
  const { account, key } = useParams();
  const [search, setSearch] = useSearchParams();
  const navigate = useNavigate();
  const may = useMay("trade");
  const feedOf = useFeedOf();
  const which = search.get("which") === "all" ? "all" : "open";
  const orders = useOrders({ which });
  const columns = useMemo(() => orderColumns(feedOf), [feedOf]);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [dialog, confirm] = useConfirm();
  const chosen = orders.rows.filter((each) => selected.has(orderKey(each)) && isOpen(each));
  const query = search.size ? `?${search.toString()}` : "";
  const passes = useRef<((id: string) => boolean) | null>(null);

  const cancelChosen = () => {
    const words = `Cancel ${String(chosen.length)} ${chosen.length === 1 ? "order" : "orders"}`;
    confirm({
      title: words,
      verb: words,
      danger: true,
      children: (
        <>
          <Text>The brokers are asked to take these back. Each may still fill until its broker has.</Text>
          <Chosen orders={chosen} hidden={chosen.filter((each) => passes.current?.(orderKey(each)) === false)} />
        </>
      ),
      act: async () => {
        const refused = await cancelAll(chosen);
        setSelected(new Set());
        if (refused.length) throw new Error(refused.join("\n"));
      },
    });
  };
  return (
    <Page
      title="Orders"
      actions={
        may ? (
          <>
            {chosen.length ? (
              <Button color="red.9" onClick={cancelChosen}>
                Cancel {chosen.length} chosen
              </Button>
            ) : null}
            <Button
              leftSection={<IconPlus size={14} aria-hidden />}
              onClick={() => {
                setSearch({ ...Object.fromEntries(search), ticket: "new" });
              }}
            >
              Place an order
            </Button>
          </>
        ) : undefined
      }
    >
      <Panel title={which === "open" ? "Open orders" : "Orders, newest first"} flush fill>
        <DataTable
          name="orders"
          label="Orders"
          rows={orders.rows}
          columns={columns}
          rowId={orderKey}
          sort="-updated"
          loading={orders.isLoading}
          error={orders.error}
          retry={orders.refetch}
          stale={orders.isStale}
          cut={orders.isCut}
          empty={{
            title: which === "open" ? "No order is open" : "No order yet",
            hint: "Orders of algos and those placed by hand are shown here as they move.",
          }}
          openId={account !== undefined && key !== undefined ? `${account}/${key}` : null}
          onOpen={(order) =>
            void navigate(`/orders/${encodeURIComponent(order.account)}/${encodeURIComponent(order.client_order_id)}${query}`)
          }
          {...(may ? { selected, onSelect: setSelected, passes } : {})}
          tools={
            <Group gap="xs">
              <SegmentedControl
                size="xs"
                aria-label="Which orders"
                value={which}
                onChange={(value) => {
                  setSearch(value === "all" ? { which: "all" } : {});
                  setSelected(new Set());
                }}
                data={[
                  { value: "open", label: "Open" },
                  { value: "all", label: "All" },
                ]}
              />
              <Anchor size="sm" href="/v1/orders.csv" download>
                the whole history as CSV
              </Anchor>
            </Group>
          }
        />
      </Panel>
      {account !== undefined && key !== undefined ? (
        <OrderDetail key={`${account}/${key}`} account={account} id={key} onClose={() => void navigate(`/orders${query}`)} />
      ) : null}
      <OrderTicket
        opened={may && search.get("ticket") !== null}
        onClose={() => {
          const { ticket: _, ...rest } = Object.fromEntries(search);
          setSearch(rest, { replace: true });
        }}
      />
      {dialog}
    </Page>
  );
}

/** What is about to be cancelled, each by what it is; those that a filter hides first. */
function Chosen({ orders, hidden }: { orders: Order[]; hidden: Order[] }) {
  const ordered = [...hidden, ...orders.filter((each) => !hidden.includes(each))];
  const one = hidden.length === 1;
  return (
    <>
      {hidden.length ? (
        <Text mt="xs" c="var(--qd-warn)">
          {hidden.length} of them {one ? "is" : "are"} not in the table now: the filters hide {one ? "it" : "them"}.
        </Text>
      ) : null}
      <ScrollArea.Autosize mah={280} mt="xs">
        <List size="sm" aria-label="Orders to cancel">
          {ordered.slice(0, NAMED).map((each) => (
            <List.Item key={orderKey(each)}>
              <Side side={each.side} /> <Quantity value={each.quantity} /> {each.instrument}
              {each.limit_price === null ? "" : <> at <Price value={each.limit_price} /></>}
              {each.stop_price === null ? "" : <>, stop <Price value={each.stop_price} /></>}
              {/[1-9]/.test(each.filled_quantity) ? <>, <Quantity value={each.filled_quantity} /> filled</> : ""}{" "}
              <span className="muted">
                on {each.account}
                {hidden.includes(each) ? ", hidden" : ""}
              </span>
            </List.Item>
          ))}
        </List>
        {ordered.length > NAMED ? <Text size="sm">and {ordered.length - NAMED} more</Text> : null}
      </ScrollArea.Autosize>
    </>
  );
}

/** Cancel each; what was refused, in words. Eight at a time: a broker counts requests. */
async function cancelAll(orders: Order[]): Promise<string[]> {
  const refused: string[] = [];
  const left = [...orders];
  const work = async () => {
    for (let order = left.pop(); order; order = left.pop()) {
      const path = { account: order.account, client_order_id: order.client_order_id };
      try {
        await expect(api.DELETE("/v1/orders/{account}/{client_order_id}", { params: { path } }));
      } catch (error) {
        refused.push(`${orderKey(order)}: ${wordsOf(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
  return refused;
}
