/** Accounts at brokers: settings, log-in state, credentials; new ones in. */
import { Button } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { UseBar } from "@/components/Stat";
import { StateBadge } from "@/components/StateBadge";
import { Summed } from "@/components/Summed";
import { useDeck } from "@/pages/Deck/useDeck";
import { useIsOperator } from "@/session/session";
import { useStale } from "@/stream/hooks";

import type { Account, Glance } from "./account";
import { AccountDetail } from "./AccountDetail";
import { NewAccount } from "./NewAccount";

interface Row {
  account: Account;
  now: Glance | undefined;
}

const columns: Column<Row>[] = [
  { id: "id", header: "Account", value: ({ account }) => account.id, width: 150 },
  { id: "user", header: "User", value: ({ account }) => account.user, width: 100 },
  { id: "connector", header: "Broker", value: ({ account }) => account.connector, width: 100 },
  {
    id: "state", header: "Log-in", value: ({ account, now }) => now?.state ?? (account.enabled ? "unknown" : "disabled"), width: 130,
    cell: ({ account, now }) => <StateBadge state={now?.state ?? (account.enabled ? "unknown" : "disabled")} reason={now?.detail} />,
  },
  { id: "equity", header: "Equity", value: ({ now }) => now?.equity, kind: "decimal", width: 130, cell: ({ now }) => <Summed value={now?.equity} of={now} /> },
  { id: "pnl", header: "P&L today", value: ({ now }) => now?.pnl_today, kind: "decimal", width: 130, cell: ({ now }) => <Summed value={now?.pnl_today} of={now} signed /> },
  { id: "gross", header: "Gross", value: ({ now }) => now?.gross, kind: "decimal", width: 130, cell: ({ now }) => <Summed value={now?.gross} of={now} /> },
  {
    id: "use", header: "Of its limit", value: ({ now }) => now?.gross_use, kind: "number", width: 130,
    cell: ({ account, now }) =>
      now === undefined || now.gross === null ? <span className="muted">not known</span> : <UseBar use={now.gross_use} used={now.gross} limit={now.gross_limit} label={`Gross exposure of ${account.id}`} />,
  },
  { id: "selector", header: "Connects from", value: ({ account }) => account.selector || "the head", width: 130, hidden: true },
  { id: "detail", header: "Why", value: ({ now }) => now?.detail, width: 240 },
];

export default function Accounts() {
  const isOperator = useIsOperator();
  const { id = null } = useParams();
  const navigate = useNavigate();
  const [adding, setAdding] = useState(false);
  const accounts = useQuery({
    queryKey: ["accounts"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/accounts", { params: { query: { limit: 1000, cursor } } }))),
  });
  const deck = useDeck();
  const rows = useMemo<Row[]>(() => {
    const now = new Map((deck.data?.accounts ?? []).map((each) => [each.account, each]));
    return (accounts.data?.items ?? []).map((account) => ({ account, now: now.get(account.id) }));
  }, [accounts.data, deck.data]);
  const open = rows.find(({ account }) => account.id === id);
  return (
    <Page
      title="Accounts & brokers"
      actions={
        isOperator ? (
          <Button
            leftSection={<IconPlus size={14} aria-hidden />}
            onClick={() => {
              setAdding(true);
            }}
          >
            Add an account
          </Button>
        ) : undefined
      }
    >
      <Panel title="Accounts" flush fill>
        <DataTable
          name="accounts"
          label="Accounts"
          rows={rows}
          columns={columns}
          rowId={({ account }) => account.id}
          sort="id"
          loading={accounts.isLoading}
          error={accounts.error ?? deck.error}
          retry={() => {
            void accounts.refetch();
            void deck.refetch();
          }}
          stale={useStale() || deck.isError}
          openId={id}
          onOpen={({ account }) => {
            void navigate(`/accounts/${encodeURIComponent(account.id)}`);
          }}
          empty={{ title: "No account yet", hint: isOperator ? "Add one: a paper account needs nothing but a name." : "An operator adds accounts and grants." }}
        />
      </Panel>
      {open ? (
        <AccountDetail
          key={open.account.id}
          account={open.account}
          now={open.now}
          onClose={() => {
            void navigate("/accounts");
          }}
        />
      ) : null}
      {adding ? (
        <NewAccount
          onClose={() => {
            setAdding(false);
          }}
        />
      ) : null}
    </Page>
  );
}
