/** One account: how it stands, its curve, its credentials, and what may be done with it. */
import { Button, Code, Drawer, Group, Skeleton, Stack, Table, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useState } from "react";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { Summed } from "@/components/Summed";
import { useLateFailure } from "@/components/useAct";
import { Time } from "@/components/values";
import { useMay } from "@/session/rights";
import { useIsOperator } from "@/session/session";
import { Flattened } from "@/trading/Flattened";

import type { Account, Glance } from "./account";
import { Credentials } from "./NewAccount";

const EquityPanel = lazy(() => import("@/charts/EquityPanel"));

export function AccountDetail(given: { account: Account; now: Glance | undefined; onClose: () => void }) {
  const { account, now } = given;
  const mayTrade = useMay("trade");
  const isOperator = useIsOperator();
  return (
    <Drawer
      opened
      onClose={given.onClose}
      position="right"
      size="xl"
      title={
        <Group gap="sm">
          <strong>{account.id}</strong>
          <StateBadge state={now?.state ?? (account.enabled ? "unknown" : "disabled")} />
        </Group>
      }
    >
      <Stack gap="sm">
        {now?.detail ? <div className="wrap">{now.detail}</div> : null}
        <Group gap="lg">
          <span>
            Equity <Summed value={now?.equity} of={now} />
          </span>
          <span>
            Today <Summed value={now?.pnl_today} of={now} signed />
          </span>
          <span>
            Gross <Summed value={now?.gross} of={now} />
          </span>
        </Group>
        {mayTrade ? <Acts account={account} /> : null}
        <Suspense fallback={<Skeleton height={260} />}>
          <EquityPanel what="account" id={account.id} />
        </Suspense>
        <Panel title="Settings" flush>
          <Table>
            <Table.Tbody>
              {[
                ["Broker", account.connector],
                ["User", account.user],
                ["Connects from", account.selector || "the head"],
                ...Object.entries(account.settings).map(([name, value]): [string, string] => [
                  name,
                  typeof value === "string" ? value : JSON.stringify(value),
                ]),
              ].map(([name, text]) => (
                <Table.Tr key={name}>
                  <Table.Th w={190}>{name}</Table.Th>
                  <Table.Td className="wrap">{text}</Table.Td>
                </Table.Tr>
              ))}
              <Table.Tr>
                <Table.Th>Since</Table.Th>
                <Table.Td>
                  <Time at={account.created_at} />
                </Table.Td>
              </Table.Tr>
            </Table.Tbody>
          </Table>
        </Panel>
        <LogIn account={account} mayGive={mayTrade} />
        {isOperator ? <Steer account={account} onDeleted={given.onClose} /> : null}
      </Stack>
    </Drawer>
  );
}

function Acts(given: { account: Account }) {
  const { account } = given;
  const client = useQueryClient();
  const [dialog, confirm] = useConfirm();
  const [told, setTold] = useState<ReactNode>("");
  const params = { path: { id: account.id } };
  return (
    <Group gap="xs">
      {dialog}
      <Button
        variant="default"
        onClick={() => {
          confirm({
            title: `Cancel all orders of ${account.id}`,
            children: "The broker is asked to cancel every open order of the account. Positions stay.",
            verb: "Cancel all",
            act: async () => {
              const done = await expect(api.POST("/v1/accounts/{id}/cancel-all", { params }));
              setTold(
                `${String(done.cancelled)} cancels are on their way, ${String(done.refused.length)} were refused` +
                  (done.refused.length ? `: ${done.refused.map((each) => each.detail).join("; ")}` : "."),
              );
            },
          });
        }}
      >
        Cancel all orders
      </Button>
      <Button
        variant="default"
        c="var(--qd-bad)"
        onClick={() => {
          confirm({
            title: `Flatten ${account.id}`,
            children: "Every open order is cancelled, then every position is closed at the market. Running algos may enter again: pause them first.",
            verb: `Flatten ${account.id}`,
            danger: true,
            reason: true,
            act: async (reason) => {
              const done = await expect(api.POST("/v1/accounts/{id}/flatten", { params, body: { reason } }));
              setTold(<Flattened account={account.id} done={done} />);
              await client.invalidateQueries({ queryKey: ["deck"] });
            },
          });
        }}
      >
        Flatten
      </Button>
      <div role="status" className="wrap">
        {told}
      </div>
    </Group>
  );
}

/** Which credentials the account has, never their values; new ones. */
function LogIn(given: { account: Account; mayGive: boolean }) {
  const { account } = given;
  const client = useQueryClient();
  const params = { path: { id: account.id } };
  const [values, setValues] = useState<Record<string, string>>({});
  const query = useQuery({
    queryKey: ["credentials", account.id],
    queryFn: () => expect(api.GET("/v1/accounts/{id}/credentials", { params })),
  });
  const give = useMutation({
    mutationFn: () => expect(api.PUT("/v1/accounts/{id}/credentials", { params, body: { credentials: values } })),
    onSuccess: () => {
      setValues({});
    },
    onError: useLateFailure(`The log-in of ${account.id}`),
    onSettled: () => client.invalidateQueries({ queryKey: ["credentials", account.id] }),
  });
  const needed = query.data?.needed ?? [];
  // Kite's token of a day comes of a request token, which the log-in page gives.
  const names = needed.includes("access_token") ? [...needed, "request_token"] : needed;
  return (
    <Panel title="Log-in">
      <ErrorNote error={query.error} />
      {query.data && !needed.length ? <p className="muted">{account.connector} has no log-in.</p> : null}
      {needed.length ? (
        <Stack gap="sm">
          <div>
            {needed.map((name) => (
              <span key={name} style={{ marginInlineEnd: 12 }}>
                <StateBadge
                  state={query.data?.given.includes(name) ? "ready" : "needs_login"}
                  label={`${name.replaceAll("_", " ")}: ${query.data?.given.includes(name) ? "stored, encrypted" : "missing"}`}
                />
              </span>
            ))}
          </div>
          {given.mayGive ? (
            <form
              onSubmit={(event) => {
                event.preventDefault();
                give.mutate();
              }}
            >
              <Stack gap="sm">
                <Credentials names={names} values={values} onChange={setValues} wrong={give.error} />
                {isAboutNone(give.error, names.map((name) => `credentials.${name}`)) ? <ErrorNote error={give.error} /> : null}
                <Group>
                  <Button type="submit" loading={give.isPending} disabled={!Object.values(values).some(Boolean)}>
                    Store and log in
                  </Button>
                  <span className="muted">All of them are replaced. They are never shown again.</span>
                </Group>
              </Stack>
            </form>
          ) : null}
        </Stack>
      ) : null}
    </Panel>
  );
}

function Steer(given: { account: Account; onDeleted: () => void }) {
  const { account } = given;
  const client = useQueryClient();
  const [dialog, confirm] = useConfirm();
  const [selector, setSelector] = useState(account.selector);
  const params = { path: { id: account.id } };
  const again = () => client.invalidateQueries({ queryKey: ["accounts"] });
  const change = useMutation({
    mutationFn: (body: { enabled?: boolean; selector?: string }) => expect(api.PATCH("/v1/accounts/{id}", { params, body })),
    onError: useLateFailure(`Change ${account.id}`),
    onSettled: again,
  });
  return (
    <Panel title="Of the operator">
      {dialog}
      <Stack gap="sm">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            change.mutate({ selector: selector.trim() });
          }}
        >
          <Group align="end" gap="xs">
            <TextInput
              label="Connects from machines with these labels"
              style={{ flex: 1 }}
              value={selector}
              error={errorAt(change.error, "selector")}
              onChange={(event) => {
                setSelector(event.currentTarget.value);
              }}
            />
            <Button type="submit" variant="default" disabled={selector.trim() === account.selector} loading={change.isPending}>
              Move its connection
            </Button>
          </Group>
        </form>
        {isAboutNone(change.error, ["selector"]) ? <ErrorNote error={change.error} /> : null}
        <Group gap="xs">
          <Button
            variant="default"
            onClick={() => {
              if (!account.enabled)
                confirm({
                  title: `Connect ${account.id}`,
                  children: `It logs in at ${account.connector}, and from then on orders for it are sent there.`,
                  verb: `Connect ${account.id} and trade`,
                  act: () => change.mutateAsync({ enabled: true }),
                });
              else
                confirm({
                  title: `Disconnect ${account.id}`,
                  children: "Its connection ends; nothing of it is traded or reconciled. Open orders stay at the broker.",
                  verb: `Disconnect ${account.id}`,
                  danger: true,
                  act: () => change.mutateAsync({ enabled: false }),
                });
            }}
          >
            {account.enabled ? "Disconnect" : "Connect and trade"}
          </Button>
          <Button
            variant="default"
            c="var(--qd-bad)"
            onClick={() => {
              confirm({
                title: `Delete ${account.id}`,
                children: (
                  <>
                    The account <Code>{account.id}</Code> and its credentials are forgotten; its history stays. One with open
                    orders, or that an algo uses, cannot be deleted.
                  </>
                ),
                verb: `Delete ${account.id}`,
                danger: true,
                typed: account.id,
                act: async () => {
                  await expect(api.DELETE("/v1/accounts/{id}", { params }));
                  await again();
                  given.onDeleted();
                },
              });
            }}
          >
            Delete
          </Button>
        </Group>
      </Stack>
    </Panel>
  );
}
