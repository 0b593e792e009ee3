/** Each account's day, as it was compared with the broker's. */
import { Drawer, Stack, Table } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Money, Time } from "@/components/values";

type Day = Shape<"DayShown">;
type Tally = Shape<"TallyShown">;

const differing = (tally: Tally | null | undefined) => tally?.differing ?? 0;
const allDiffering = (day: Day) =>
  differing(day.orders) + differing(day.executions) + differing(day.positions) + (day.cash?.agrees === false ? 1 : 0);

export function stateOf(day: Day): string {
  if (!day.made_at) return "waiting";
  if (allDiffering(day) || day.breaks?.length) return "differs";
  // What nobody has compared agrees with nothing.
  const isWhole = day.orders && day.executions && day.positions && day.cash && !day.cash.not_compared;
  return isWhole ? "agreed" : "compared in part";
}

const shared = (tally: Tally | null | undefined) => (tally ? `${String(tally.matched)} / ${String(tally.differing)}` : "–");

const columns: Column<Day>[] = [
  { id: "day", header: "Day", value: (day) => day.day, width: 100 },
  { id: "account", header: "Account", value: (day) => day.account, width: 140 },
  {
    id: "state", header: "State", value: stateOf, width: 110,
    cell: (day) => <StateBadge state={stateOf(day)} reason={day.reason} tone={stateOf(day) === "differs" ? "bad" : stateOf(day) === "agreed" ? "good" : "warn"} />,
  },
  { id: "orders", header: "Orders alike / not", value: (day) => day.orders?.matched, kind: "number", width: 120, cell: (day) => shared(day.orders) },
  { id: "executions", header: "Executions", value: (day) => day.executions?.matched, kind: "number", width: 110, cell: (day) => shared(day.executions) },
  { id: "positions", header: "Positions", value: (day) => day.positions?.matched, kind: "number", width: 110, cell: (day) => shared(day.positions) },
  { id: "ours", header: "Our cash", value: (day) => day.cash?.ours, kind: "decimal", width: 130, cell: (day) => <Money value={day.cash?.ours} currency={day.cash?.currency} /> },
  { id: "theirs", header: "The broker's cash", value: (day) => day.cash?.theirs, kind: "decimal", width: 130, cell: (day) => <Money value={day.cash?.theirs} currency={day.cash?.currency} /> },
  { id: "breaks", header: "Breaks", value: (day) => day.breaks?.length ?? 0, kind: "number", width: 70 },
  { id: "made", header: "Made", value: (day) => day.made_at, kind: "time", width: 140, cell: (day) => <Time at={day.made_at} /> },
  { id: "reason", header: "Why not", value: (day) => day.reason, width: 220 },
];

export function Days() {
  const [open, setOpen] = useState<Day | null>(null);
  const query = useQuery({
    queryKey: ["days"],
    queryFn: async () => {
      const found = await readAll<Day>(async (cursor) => {
        const page = await expect(api.GET("/v1/reconciliations", { params: { query: { limit: 1000, cursor } } }));
        return page as { items: Day[]; next: string | null };
      }, 5_000);
      return found;
    },
    refetchInterval: 30_000,
  });
  return (
    <div className="panel fill">
      <DataTable
        name="reconciliation-days"
        label="Days compared with the brokers"
        rows={query.data?.items ?? []}
        columns={columns}
        rowId={(day) => `${day.account} ${day.day}`}
        sort="-day"
        loading={query.isLoading}
        error={query.error}
        retry={() => void query.refetch()}
        stale={query.isError}
        cut={query.data ? !query.data.whole : false}
        onOpen={setOpen}
        empty={{ title: "No day is over yet", hint: "At the end of each account's day its books are compared with the broker's." }}
      />
      <Drawer
        opened={open !== null}
        onClose={() => {
          setOpen(null);
        }}
        position="right"
        size="lg"
        title={<strong>{open ? `${open.account}, ${open.day}` : ""}</strong>}
      >
        {open ? <DayDetail day={open} /> : null}
      </Drawer>
    </div>
  );
}

function DayDetail(given: { day: Day }) {
  const { day } = given;
  const parts: [string, Tally | null | undefined][] = [
    ["Orders", day.orders],
    ["Executions", day.executions],
    ["Positions", day.positions],
  ];
  return (
    <Stack gap="sm">
      <div>
        From <Time at={day.starts_at} /> to <Time at={day.ends_at} />. {day.reason}
      </div>
      {day.cash?.not_compared ? <div>Cash was not compared: {day.cash.not_compared}</div> : null}
      {day.adopted?.length ? <div>Adopted: {day.adopted.join(", ")}</div> : null}
      {parts.map(([name, tally]) =>
        tally?.differences.length ? (
          <Panel key={name} title={`${name} that differ`} flush>
            <Table>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>What</Table.Th>
                  <Table.Th>Ours</Table.Th>
                  <Table.Th>The broker&apos;s</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {tally.differences.map((each) => (
                  <Table.Tr key={`${each.id} ${each.instrument}`}>
                    <Table.Td className="wrap">
                      {each.id} {each.instrument}
                    </Table.Td>
                    <Table.Td className="mono wrap">{each.ours}</Table.Td>
                    <Table.Td className="mono wrap">{each.theirs}</Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Panel>
        ) : (
          <div key={name}>
            {name}: {tally ? `${String(tally.matched)} alike, none differs` : "not compared"}
          </div>
        ),
      )}
    </Stack>
  );
}
