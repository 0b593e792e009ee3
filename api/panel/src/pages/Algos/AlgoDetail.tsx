import { Alert, Button, Group, Menu, Tabs } from "@mantine/core";
import { IconChevronDown } from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useMemo, useState } from "react";
import { useNavigate, useSearchParams } from "react-router";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { useMay } from "@/session/rights";
import { useChanges, useStale } from "@/stream/hooks";
import { useView } from "@/stream/views";
import { FILL_COLUMNS, fillKey, useFills } from "@/trading/fills";
import { orderColumns, orderKey, useOrders } from "@/trading/orders";
import { type Algo, useFeedOf } from "@/trading/read";

import { stateOf, wordsFor } from "./algos";
import { Commands } from "./commands";
import { AlgoEvents } from "./AlgoEvents";
import { AlgoFacts, AlgoStats } from "./AlgoFacts";
import { AlgoPositions } from "./AlgoPositions";
import { Log } from "./Log";
import { Parameters } from "./Parameters";
import { EditPlacement } from "./Placement";
import { Versions } from "./Versions";

const EquityPanel = lazy(() => import("@/charts/EquityPanel"));

export type AlgoWithStop = Shape<"AlgoWithStop">;

export function useAlgo(id: string) {
  const client = useQueryClient();
  const queryKey = ["algo", id];
  const query = useView({
    path: `algos/${id}`,
    queryKey,
    read: () => expect(api.GET("/v1/algos/{id}", { params: { path: { id } } })),
  });
  useChanges<Algo | null>("algos", (changes) => {
    const mine = changes.filter((each) => each.key === id).at(-1);
    if (!mine) return;
    if (mine.body === null) void client.invalidateQueries({ queryKey });
    else {
      const { body } = mine;
      client.setQueryData<AlgoWithStop>(queryKey, (known) =>
        known && known.updated_at <= body.updated_at
          ? { ...known, ...body, live: known.epoch === body.epoch ? (known.live ?? null) : null }
          : known,
      );
    }
  });
  return query;
}

export function AlgoDetail({ id }: { id: string }) {
  const query = useAlgo(id);
  const may = useMay("algos");
  const stale = useStale() || query.isError;
  const [search, setSearch] = useSearchParams();
  const tab = search.get("tab") ?? "overview";
  const { data: algo } = query;
  if (!algo) {
    return (
      <Page title={id}>
        {query.isError ? <ErrorNote error={query.error} retry={() => void query.refetch()} /> : <span className="muted">Loading…</span>}
      </Page>
    );
  }
  return (
    <Page
      title={algo.id}
      note={
        <Group gap="md">
          <StateBadge state={stateOf(algo)} reason={wordsFor(algo)} />
          <span>{wordsFor(algo)}</span>
        </Group>
      }
      actions={may ? <Acts algo={algo} /> : undefined}
    >
      {algo.deprecated ? (
        <Alert color="yellow" p="xs" title="Its version is deprecated">
          {algo.deprecated}
        </Alert>
      ) : null}
      {algo.stop && !algo.stop.done ? (
        <Alert color="blue" p="xs" title="It is being stopped" role="status">
          Waiting: {algo.stop.waiting.join("; ")}
        </Alert>
      ) : null}
      <AlgoStats algo={algo} stale={stale} />
      <Tabs
        value={tab}
        keepMounted={false}
        onChange={(value) => {
          setSearch(value && value !== "overview" ? { tab: value } : {}, { replace: true });
        }}
        style={{ flex: 1, display: "flex", flexDirection: "column", minHeight: 380 }}
      >
        <Tabs.List mb={10}>
          <Tabs.Tab value="overview">Overview</Tabs.Tab>
          <Tabs.Tab value="parameters">Parameters</Tabs.Tab>
          <Tabs.Tab value="log">Log</Tabs.Tab>
          <Tabs.Tab value="orders">Orders</Tabs.Tab>
          <Tabs.Tab value="fills">Fills</Tabs.Tab>
          <Tabs.Tab value="events">History</Tabs.Tab>
          {algo.strategy_version ? <Tabs.Tab value="versions">Versions</Tabs.Tab> : null}
        </Tabs.List>
        <Tabs.Panel value="overview">
          <div className="columns">
            <Suspense fallback={<Panel title="Equity" className="span-7"><span className="muted">Loading…</span></Panel>}>
              <EquityPanel className="span-7" what="algo" id={id} />
            </Suspense>
            <AlgoFacts algo={algo} stale={stale} className="span-5" actions={may ? <Edit algo={algo} /> : undefined} />
            <AlgoPositions id={id} className="span-12" />
          </div>
        </Tabs.Panel>
        <Tabs.Panel value="parameters">
          <Parameters algo={algo} />
        </Tabs.Panel>
        <Tabs.Panel value="log" style={FILL}>
          <Log id={id} />
        </Tabs.Panel>
        <Tabs.Panel value="orders" style={FILL}>
          <OrdersOf id={id} />
        </Tabs.Panel>
        <Tabs.Panel value="fills" style={FILL}>
          <FillsOf id={id} />
        </Tabs.Panel>
        <Tabs.Panel value="events" style={FILL}>
          <AlgoEvents id={id} />
        </Tabs.Panel>
        <Tabs.Panel value="versions">
          <Versions algo={algo} />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}

const FILL = { flex: 1, display: "flex", flexDirection: "column", minHeight: 300 } as const;

function Acts({ algo }: { algo: Algo }) {
  const [dialog, confirm] = useConfirm();
  const navigate = useNavigate();
  const client = useQueryClient();
  const ids = useMemo(() => [algo.id], [algo.id]);
  const path = { id: algo.id };
  return (
    <>
      <Commands ids={ids} />
      <Menu position="bottom-end" shadow="md">
        <Menu.Target>
          <Button variant="default" rightSection={<IconChevronDown size={13} aria-hidden />}>
            Rare
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item
            disabled={!algo.previous_version}
            onClick={() => {
              confirm({
                title: `Roll ${algo.id} back`,
                verb: "Roll back",
                children: `It goes back to version ${algo.previous_version?.slice(0, 12) ?? ""}, with the parameters of then; if it runs, it restarts.`,
                act: async () => {
                  await expect(api.POST("/v1/algos/{id}/rollback", { params: { path }, body: { parameters: null } }));
                  await client.invalidateQueries({ queryKey: ["algo", algo.id] });
                },
              });
            }}
          >
            Roll back to the version before
          </Menu.Item>
          <Menu.Item
            color="red"
            onClick={() => {
              confirm({
                title: `Remove ${algo.id}`,
                verb: "Remove it",
                danger: true,
                typed: algo.id,
                children: "It is removed with its snapshot. Its orders, its log and its history stay readable.",
                act: async () => {
                  await expect(api.DELETE("/v1/algos/{id}", { params: { path } }));
                  await client.invalidateQueries({ queryKey: ["algos"] });
                  void navigate("/algos");
                },
              });
            }}
          >
            Remove
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {dialog}
    </>
  );
}

function Edit({ algo }: { algo: Algo }) {
  const [opened, setOpened] = useState(false);
  return (
    <>
      <Button size="compact-xs" variant="default" onClick={() => { setOpened(true); }}>
        Labels and placement…
      </Button>
      {opened ? <EditPlacement algo={algo} onClose={() => { setOpened(false); }} /> : null}
    </>
  );
}

function OrdersOf({ id }: { id: string }) {
  const orders = useOrders({ which: "all", algo: id, most: 2_000 });
  const feedOf = useFeedOf();
  const navigate = useNavigate();
  const columns = useMemo(() => orderColumns(feedOf).filter((each) => each.id !== "algo"), [feedOf]);
  return (
    <Panel title="Its orders" flush fill>
      <DataTable
        name="algo-orders"
        label={`Orders of ${id}`}
        rows={orders.rows}
        columns={columns}
        rowId={orderKey}
        sort="-updated"
        loading={orders.isLoading}
        error={orders.error}
        retry={orders.refetch}
        stale={orders.isStale}
        cut={orders.isCut}
        empty={{ title: "It has placed no order yet" }}
        onOpen={(order) =>
          void navigate(`/orders/${encodeURIComponent(order.account)}/${encodeURIComponent(order.client_order_id)}?which=all`)
        }
      />
    </Panel>
  );
}

function FillsOf({ id }: { id: string }) {
  const fills = useFills({ algo: id });
  return (
    <Panel title="Its fills" flush fill>
      <DataTable
        name="algo-fills"
        label={`Fills of ${id}`}
        rows={fills.rows}
        columns={FILL_COLUMNS}
        rowId={fillKey}
        sort="-at"
        loading={fills.isLoading}
        error={fills.error}
        retry={fills.refetch}
        stale={fills.isStale}
        cut={fills.isCut}
        empty={{ title: "It has traded nothing yet" }}
      />
    </Panel>
  );
}
