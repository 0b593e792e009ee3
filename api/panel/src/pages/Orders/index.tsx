import { Anchor, Button, Group, SegmentedControl } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { useNavigate, useParams, useSearchParams } from "react-router";

import { api, expect } from "@/api/client";
import { wordsOf } from "@/api/problem";
import { useConfirm } from "@/components/ConfirmAction";
import { DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { useMay } from "@/session/rights";
import { OrderDetail } from "@/trading/OrderDetail";
import { isOpen, orderColumns, orderKey, useOrders } from "@/trading/orders";
import { OrderTicket } from "@/trading/OrderTicket";
import { type Order, useFeedOf } from "@/trading/read";

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

  const cancelChosen = () => {
    confirm({
      title: `Cancel ${String(chosen.length)} orders`,
      verb: `Cancel ${String(chosen.length)} orders`,
      danger: true,
      children: "The brokers are asked to take them back. Each may still fill until its broker has.",
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
          {...(may ? { selected, onSelect: setSelected } : {})}
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
