/** Where our books and the broker's differ, what was decided about it, and each day's comparison. */
import { Button, Group, Modal, Select, Stack, Switch, Tabs, Textarea } from "@mantine/core";
import { IconDownload, IconRefresh } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { useAct, useLateFailure } from "@/components/useAct";
import { Time } from "@/components/values";
import { formatSpan } from "@/format/time";
import { useMe } from "@/session/session";
import { useStale } from "@/stream/hooks";
import { useView, wholeList } from "@/stream/views";

import { Days } from "./Days";

type Break = Shape<"BreakShown">;

const stateOf = (found: Break): string => (found.resolved_at ? (found.settlement ?? "resolved") : found.tolerated ? "explained" : "open");

const columns: Column<Break>[] = [
  { id: "opened", header: "Opened", value: (found) => found.opened_at, kind: "time", width: 140, cell: (found) => <Time at={found.opened_at} /> },
  {
    id: "state", header: "State", value: stateOf, width: 110,
    cell: (found) => <StateBadge state={stateOf(found)} tone={found.resolved_at ? "good" : found.tolerated ? "info" : "bad"} />,
  },
  { id: "account", header: "Account", value: (found) => found.account, width: 130 },
  { id: "kind", header: "Kind", value: (found) => found.kind, width: 110 },
  { id: "instrument", header: "Instrument", value: (found) => found.instrument, width: 160 },
  { id: "ours", header: "Ours", value: (found) => found.ours, width: 150 },
  { id: "theirs", header: "The broker's", value: (found) => found.theirs, width: 150 },
  { id: "age", header: "Age", value: (found) => found.age_s, kind: "number", width: 90, cell: (found) => formatSpan(found.age_s * 1000) },
  { id: "order", header: "Order", value: (found) => found.client_order_id, width: 130 },
  { id: "by", header: "Decided by", value: (found) => found.resolved_by, width: 110 },
  { id: "resolution", header: "Decision", value: (found) => found.resolution, width: 220 },
];

export default function Reconciliation() {
  const { rights } = useMe();
  const [resolved, setResolved] = useState(false);
  const [open, setOpen] = useState<Break | null>(null);
  const query = useView({
    path: resolved ? null : "breaks",
    queryKey: ["breaks", resolved],
    from: wholeList<Break>,
    read: () =>
      readAll((cursor) => expect(api.GET("/v1/breaks", { params: { query: { resolved, limit: 1000, cursor } } }))),
  });
  const rows = useMemo(() => query.data?.items ?? [], [query.data]);
  const isStale = useStale() || query.isError;
  return (
    <Page title="Reconciliation" note="The broker is right: until a difference is explained or accepted, its instrument can only be reduced.">
      {rights.includes("trade") ? <Check /> : null}
      <Tabs defaultValue="breaks" keepMounted={false} className="fill">
        <Tabs.List>
          <Tabs.Tab value="breaks">Breaks</Tabs.Tab>
          <Tabs.Tab value="days">Days</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="breaks" className="fill">
          <div className="panel fill">
            <DataTable
              name="breaks"
              label="Breaks"
              rows={rows}
              columns={columns}
              rowId={(found) => found.id}
              sort="-opened"
              loading={query.isLoading}
              error={query.error}
              retry={() => void query.refetch()}
              stale={isStale}
              cut={query.data ? !query.data.whole : false}
              onOpen={setOpen}
              tools={
                <Switch
                  size="xs"
                  label="Show settled ones too"
                  checked={resolved}
                  onChange={(event) => {
                    setResolved(event.currentTarget.checked);
                  }}
                />
              }
              empty={{ title: "No break", hint: "Our books and the brokers' agree." }}
            />
          </div>
        </Tabs.Panel>
        <Tabs.Panel value="days" className="fill">
          <Days />
        </Tabs.Panel>
      </Tabs>
      {open ? (
        <Decide
          found={open}
          mayDecide={rights.includes("trade")}
          onClose={() => {
            setOpen(null);
          }}
        />
      ) : null}
    </Page>
  );
}

/** Both sides, and the decision: explain (it stays, and is known) or accept the broker's side as ours. */
function Decide(given: { found: Break; mayDecide: boolean; onClose: () => void }) {
  const { found } = given;
  const client = useQueryClient();
  const [note, setNote] = useState("");
  const params = { path: { id: found.id } };
  // Both sides as they were seen: where they have changed meanwhile, the server refuses.
  const body = { ours: found.ours, theirs: found.theirs, note: note.trim() };
  const { busy, error, run } = useAct(`The break of ${found.instrument || found.account}`);
  const settle = (how: "accept" | "explain") =>
    void run(async () => {
      try {
        if (how === "accept") await expect(api.POST("/v1/breaks/{id}/accept", { params, body }));
        else await expect(api.POST("/v1/breaks/{id}/explain", { params, body }));
      } finally {
        void client.invalidateQueries({ queryKey: ["breaks"] });
      }
    }, given.onClose);
  const isOpen = !found.resolved_at;
  return (
    <Modal opened onClose={given.onClose} title={<strong>{`${found.kind} of ${found.instrument || found.account}`}</strong>} size="lg">
      <Stack gap="sm">
        <Group grow align="stretch">
          <Panel title="Ours">
            <div className="mono wrap">{found.ours || "nothing"}</div>
          </Panel>
          <Panel title="The broker's">
            <div className="mono wrap">{found.theirs || "nothing"}</div>
          </Panel>
        </Group>
        <div>
          In account {found.account}, opened <Time at={found.opened_at} />
          {found.client_order_id ? `, order ${found.client_order_id}` : ""}.
        </div>
        {found.resolution ? (
          <div className="wrap">
            Decided{found.resolved_by ? ` by ${found.resolved_by}` : ""}: {found.resolution}
          </div>
        ) : null}
        {isOpen && given.mayDecide ? (
          <>
            <Textarea
              label="Note"
              description="Kept in the audit: how it came about, and how you know"
              required
              maxLength={500}
              value={note}
              onChange={(event) => {
                setNote(event.currentTarget.value);
              }}
            />
            <ErrorNote error={error} />
            <Group justify="flex-end" gap="xs">
              <Button
                variant="default"
                disabled={!note.trim()}
                loading={busy}
                onClick={() => {
                  settle("explain");
                }}
              >
                Explain: it stays, and trading goes on
              </Button>
              <Button
                disabled={!note.trim()}
                loading={busy}
                onClick={() => {
                  settle("accept");
                }}
              >
                Accept the broker&apos;s side
              </Button>
            </Group>
          </>
        ) : null}
      </Stack>
    </Modal>
  );
}

/** Compare an account with its broker now. */
function Check() {
  const client = useQueryClient();
  const [account, setAccount] = useState<string | null>(null);
  const accounts = useQuery({
    queryKey: ["accounts"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/accounts", { params: { query: { limit: 1000, cursor } } }))),
  });
  const check = useMutation({
    mutationFn: (id: string) => expect(api.POST("/v1/accounts/{id}/reconcile", { params: { path: { id } } })),
    onError: useLateFailure("Compare with the broker"),
    onSettled: () => client.invalidateQueries({ queryKey: ["breaks"] }),
  });
  const told = check.data;
  return (
    <Panel title="Compare now">
      <Group align="end" gap="xs">
        <Select
          label="Account"
          data={(accounts.data?.items ?? []).filter((each) => each.enabled).map((each) => each.id)}
          value={account}
          onChange={setAccount}
        />
        <Button
          leftSection={<IconRefresh size={14} aria-hidden />}
          disabled={!account}
          loading={check.isPending}
          onClick={() => {
            if (account) check.mutate(account);
          }}
        >
          Compare with the broker
        </Button>
        <a href="/v1/reconciliations?format=csv&limit=1000" download>
          <IconDownload size={13} aria-hidden /> The newest 1,000 days as CSV
        </a>
      </Group>
      <div role="status" style={{ marginTop: 6 }}>
        {told ? (
          <span>
            {told.account}: {String(told.orders)} orders, {String(told.executions)} executions and {String(told.positions)}{" "}
            positions are alike; cash {told.our_cash ?? "–"} here, {told.their_cash} {told.currency} there
            {told.cash_not_compared ? ` (${told.cash_not_compared})` : ""}; {String(told.breaks.length)} breaks
            {told.adopted.length ? `; adopted ${told.adopted.join(", ")}` : ""}
            {told.made_up ? `; ${String(told.made_up)} messages made up for` : ""}.
          </span>
        ) : null}
      </div>
      <ErrorNote error={check.error ?? accounts.error} />
    </Panel>
  );
}
