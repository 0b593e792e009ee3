/** The proof of a kill: what was taken back, what is left, until nothing is. */
import { Button, Group, List, Stack, Table, Text } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Stat } from "@/components/Stat";
import { StateBadge } from "@/components/StateBadge";
import { Quantity, Time } from "@/components/values";
import { useMay } from "@/session/rights";
import { useIsOperator, useMe } from "@/session/session";

import type { Kill } from "./KillForm";

export function KillProof(given: { id: string; first?: Kill | undefined }) {
  const client = useQueryClient();
  const me = useMe();
  const operator = useIsOperator();
  const trades = useMay("trade");
  const [dialog, confirm] = useConfirm();
  const { data: kill, error, isError, refetch } = useQuery({
    queryKey: ["kill", given.id],
    queryFn: () => expect(api.GET("/v1/risk/kills/{id}", { params: { path: { id: given.id } } })),
    ...(given.first ? { initialData: given.first } : {}),
    refetchInterval: (query) => (query.state.data?.done || query.state.data?.lifted_at ? 10_000 : 700),
  });
  if (!kill) return <ErrorNote error={error} retry={() => void refetch()} />;
  const left = kill.accounts.reduce((sum, each) => sum + each.open_orders, 0);
  const ms = (value: number | null) => (value === null ? "–" : `${value.toFixed(0)} ms`);
  return (
    <Stack gap="sm" className={isError ? "stale" : ""}>
      <Group justify="space-between">
        <Group gap="sm">
          <StateBadge
            state={kill.lifted_at ? "removed" : kill.done ? "ok" : "working"}
            label={kill.lifted_at ? "Lifted" : kill.done ? "Done: nothing is open any more" : "Under way"}
          />
          <span>
            <strong>{kill.scope}</strong>, by {kill.by} at <Time at={kill.at} />: {kill.reason}
          </span>
        </Group>
        {/* Others' kills are for operators to lift. */}
        {trades && (operator || kill.by === me.user) && !kill.lifted_at ? (
          <Button
            variant="default"
            onClick={() => {
              confirm({
                title: `Lift the kill of ${kill.scope}`,
                verb: "Lift it",
                children: "Orders pass again. Its algos stay stopped until somebody starts them.",
                act: async () => {
                  await expect(api.POST("/v1/risk/kills/{id}/lift", { params: { path: { id: kill.id } } }));
                  await client.invalidateQueries();
                },
              });
            }}
          >
            Lift
          </Button>
        ) : null}
      </Group>
      <div className="stats" aria-live="polite">
        <Stat label="Orders taken back" value={kill.cancelled} />
        <Stat label="Still open" value={left} hint={left === 0 ? "none" : "being taken back"} />
        <Stat label="Last cancel asked for after" value={ms(kill.cancels_asked_ms)} />
        <Stat label="All ended after" value={ms(kill.took_ms)} hint={kill.flatten ? positionsOf(kill) : ""} />
      </div>
      {kill.waiting.length ? (
        <div>
          <Text fw={600}>Waiting for</Text>
          <List size="sm">
            {kill.waiting.map((each) => (
              <List.Item key={each}>{each}</List.Item>
            ))}
          </List>
        </div>
      ) : null}
      {kill.silent.length ? (
        <Text c="var(--qd-warn)">
          Sessions that have not answered yet: {kill.silent.join(", ")}. They act as soon as they are back.
        </Text>
      ) : null}
      {kill.accounts.map((account) => (
        <div key={account.account}>
          <Text fw={600}>
            {account.account}: {account.open_orders} open
            {Object.entries(account.positions).map(([instrument, quantity]) => (
              <span key={instrument} className="muted">
                {" "}
                · holds <Quantity value={quantity} signed /> {instrument}
              </span>
            ))}
          </Text>
          {account.cancelled.length + account.closing.length ? (
            <Table.ScrollContainer minWidth={560} mah={260}>
              <Table aria-label={`Orders of the kill in ${account.account}`}>
                <Table.Thead>
                  <Table.Tr>
                    {["Order", "Instrument", "What", "State", "Asked", "Ended"].map((each) => (
                      <Table.Th key={each}>{each}</Table.Th>
                    ))}
                  </Table.Tr>
                </Table.Thead>
                <Table.Tbody>
                  {[
                    ...account.cancelled.map((order) => ({ order, what: "taken back" })),
                    ...account.closing.map((order) => ({ order, what: "closes" })),
                  ].map(({ order, what }) => (
                    <Table.Tr key={`${what} ${order.client_order_id}`}>
                      <Table.Td className="mono">{order.client_order_id}</Table.Td>
                      <Table.Td>{order.instrument}</Table.Td>
                      <Table.Td>{what}</Table.Td>
                      <Table.Td>
                        <StateBadge state={order.state} reason={order.reason} />
                      </Table.Td>
                      <Table.Td>
                        <Time at={order.asked_at} />
                      </Table.Td>
                      <Table.Td>
                        <Time at={order.ended_at} />
                      </Table.Td>
                    </Table.Tr>
                  ))}
                </Table.Tbody>
              </Table>
            </Table.ScrollContainer>
          ) : null}
        </div>
      ))}
      {kill.algos.length ? (
        <Group gap="md">
          {kill.algos.map((each) => (
            <span key={each.id}>
              {each.id} <StateBadge state={each.state} reason={each.reason} />
            </span>
          ))}
        </Group>
      ) : null}
      {dialog}
    </Stack>
  );
}

const positionsOf = (kill: Kill): string =>
  kill.done ? "positions closed too" : kill.lifted_at ? "lifted before all was closed" : "positions are being closed too";
