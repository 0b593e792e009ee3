import { Button, Group, Select } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { useAct } from "@/components/useAct";
import { Time } from "@/components/values";
import { useAccounts } from "@/trading/read";

type Grant = Shape<"GrantShown">;

const NONE: Grant[] = [];

/** Accounts of others that a user may look at or trade. */
export function Grants({ user, roles }: { user: string; roles: string[] }) {
  const client = useQueryClient();
  const { accounts, error: unread, retry } = useAccounts();
  const [dialog, confirm] = useConfirm();
  const [account, setAccount] = useState<string | null>(null);
  const [level, setLevel] = useState<Grant["level"]>("view");
  const grants = useQuery({
    queryKey: ["grants", user],
    queryFn: () => expect(api.GET("/v1/grants", { params: { query: { user, limit: 1_000 } } })),
  });
  const columns = useMemo<Column<Grant>[]>(
    () => [
      { id: "account", header: "Account", value: (g) => g.account, width: 150 },
      { id: "level", header: "May", value: (g) => (g.level === "trade" ? "look and trade" : "look"), width: 120 },
      { id: "at", header: "Granted", kind: "time", value: (g) => g.granted_at, cell: (g) => <Time at={g.granted_at} />, width: 140 },
      { id: "by", header: "By", value: (g) => g.granted_by, width: 110 },
      {
        id: "act",
        header: "Act",
        value: () => null,
        width: 90,
        cell: (g) => (
          <Button
            size="compact-xs"
            variant="default"
            aria-label={`Take ${g.account} back`}
            onClick={() => {
              confirm({
                title: `Take ${g.account} back from ${user}`,
                verb: "Take back",
                danger: true,
                children: "It ends at once.",
                act: async () => {
                  const path = { account: g.account, user };
                  await expect(api.DELETE("/v1/grants/{account}/{user}", { params: { path } }));
                  await client.invalidateQueries({ queryKey: ["grants", user] });
                },
              });
            }}
          >
            Take back
          </Button>
        ),
      },
    ],
    [client, confirm, user],
  );
  const put = async (id: string) => {
    await expect(api.PUT("/v1/grants/{account}/{user}", { params: { path: { account: id, user } }, body: { level } }));
    setAccount(null);
    await client.invalidateQueries({ queryKey: ["grants", user] });
  };
  const lowering = useAct(`Changing a grant of ${user}`);
  const grant = (id: string) => {
    const owner = accounts.find((each) => each.id === id)?.user ?? "somebody else";
    if (level === "view" && grants.data?.items.some((each) => each.account === id && each.level === "trade")) {
      void lowering.run(() => put(id), () => undefined);
      return;
    }
    confirm({
      title: `Grant ${id} to ${user}`,
      verb: level === "trade" ? "Let them trade it" : "Let them look",
      danger: level === "trade",
      children:
        level === "trade"
          ? `${user} sees all that is in ${id} of ${owner}, and ${acts(roles)} The limits of ${id} hold as they do for ${owner}, whose money it is.`
          : `${user} sees all that is in ${id} of ${owner}.`,
      act: () => put(id),
    });
  };
  return (
    <Panel title="Accounts of others" flush>
      <ErrorNote error={unread} title="The accounts cannot be read" retry={retry} />
      <DataTable
        name="grants"
        label={`Grants of ${user}`}
        height={150}
        rows={grants.data?.items ?? NONE}
        columns={columns}
        rowId={(each) => each.account}
        loading={grants.isPending}
        error={grants.error}
        retry={() => void grants.refetch()}
        stale={grants.isError}
        empty={{ title: "None", hint: "Without a grant a user sees only their own accounts." }}
        tools={
          <Group gap={6}>
            <Select aria-label="Account to grant" placeholder="Account" searchable w={170} data={accounts.filter((each) => each.user !== user).map(({ id, user: owner }) => ({ value: id, label: `${id} (${owner})` }))} value={account} onChange={setAccount} />
            <Select aria-label="How far" w={130} data={[{ value: "view", label: "look" }, { value: "trade", label: "look and trade" }]} value={level} onChange={(value) => { setLevel(value === "trade" ? "trade" : "view"); }} />
            <Button disabled={!account} onClick={() => { if (account) grant(account); }}>
              Grant…
            </Button>
          </Group>
        }
      />
      <ErrorNote error={lowering.error} />
      {dialog}
    </Panel>
  );
}

/** What the roles of somebody make of a grant to trade, in words. */
function acts(roles: string[]): string {
  const all = roles.includes("operator");
  const may = [
    ...(all || roles.includes("trader") ? ["places, changes and takes back orders there, flattens it, throws the kill switch over it"] : []),
    ...(all || roles.includes("trader") || roles.includes("quant") ? ["makes, starts and stops algos that trade it"] : []),
  ];
  return may.length ? `${may.join(", and ")}.` : "trades it as soon as they have a role that trades: now they have none.";
}
