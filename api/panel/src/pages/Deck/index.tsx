import { Alert, Button } from "@mantine/core";
import { IconPlayerPause, IconPlayerPlay, IconSquareX } from "@tabler/icons-react";
import { useState } from "react";
import { Link, useNavigate } from "react-router";

import type { Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { Stat, UseBar } from "@/components/Stat";
import { StateBadge } from "@/components/StateBadge";
import { inWords, Summed } from "@/components/Summed";
import { Ago, Money, Time } from "@/components/values";
import { useMay } from "@/session/rights";
import { useStale } from "@/stream/hooks";

import { FlattenAccount, PauseEntries, StartAll } from "./acts";
import { RecentAlerts } from "./RecentAlerts";
import { useDeck } from "./useDeck";

type DeckShown = Shape<"DeckShown">;
type DeckAccount = DeckShown["accounts"][number];
type DeckFeed = DeckShown["feeds"][number];
type Node = DeckShown["nodes"][number];

const NO_ACCOUNTS: DeckAccount[] = [];
const NO_FEEDS: DeckFeed[] = [];
const NO_NODES: Node[] = [];
const percent = (value: number | null) => (value === null ? null : Math.round(value));

const ACCOUNTS: Column<DeckAccount>[] = [
  { id: "account", header: "Account", value: (row) => row.account, width: 120 },
  { id: "state", header: "State", value: (row) => row.state, cell: (row) => <StateBadge state={row.enabled ? row.state : "disabled"} reason={row.detail} />, width: 120 },
  { id: "pnl", header: "P&L today", kind: "decimal", value: (row) => row.pnl_today, cell: (row) => <Summed value={row.pnl_today} of={row} signed />, width: 125 },
  { id: "equity", header: "Equity", kind: "decimal", value: (row) => row.equity, cell: (row) => <Summed value={row.equity} of={row} />, width: 155 },
  { id: "gross", header: "Gross", kind: "decimal", value: (row) => row.gross, cell: (row) => <Summed value={row.gross} of={row} />, width: 120 },
  { id: "use", header: "Of limit", kind: "number", value: (row) => row.gross_use, cell: (row) => (row.gross === null ? <span className="muted">not known</span> : <UseBar use={row.gross_use} used={row.gross} limit={row.gross_limit} label={`Gross exposure of ${row.account}`} />), width: 120 },
  { id: "prices", header: "Old prices", kind: "number", value: (row) => row.old_marks, cell: (row) => (row.old_marks ? <span className="state" data-tone="warn">{row.old_marks} old</span> : <span className="muted">none</span>), width: 80, title: "Of how many instruments that it holds the market has told no price for a minute" },
  { id: "user", header: "User", value: (row) => row.user, width: 90 },
  { id: "connector", header: "Broker", value: (row) => row.connector, width: 80, hidden: true },
];
const hasOldMarks = (row: DeckAccount) => row.old_marks > 0;
const FEEDS: Column<DeckFeed>[] = [
  { id: "feed", header: "Feed", value: (row) => row.feed, width: 100 },
  { id: "state", header: "State", value: (row) => row.state, cell: (row) => <StateBadge state={row.enabled ? row.state : "disabled"} />, width: 95 },
  { id: "live", header: "Live", kind: "number", value: (row) => row.live, cell: (row) => `${String(row.live)} / ${String(row.instruments)}`, width: 75 },
  { id: "stale", header: "Stale", kind: "number", value: (row) => row.stale, cell: (row) => (row.stale ? <span className="state" data-tone="warn">{row.stale} stale</span> : "0"), width: 70 },
  { id: "workers", header: "Workers", kind: "number", value: (row) => row.workers, cell: (row) => `${String(row.workers)} / ${String(row.workers_wanted)}`, width: 70 },
];
const NODES: Column<Node>[] = [
  { id: "node", header: "Node", value: (row) => row.node, width: 110 },
  { id: "state", header: "State", value: (row) => row.state, cell: (row) => <StateBadge state={row.state} />, width: 95 },
  { id: "cpu", header: "CPU %", kind: "number", value: (row) => percent(row.cpu), width: 65 },
  { id: "memory", header: "Memory %", kind: "number", value: (row) => percent(row.memory), width: 80 },
  { id: "algos", header: "Algos", kind: "number", value: (row) => row.algos, width: 60 },
];

/** How many accounts the sums are of. */
function accountsIn(data: DeckShown): string {
  const all = data.accounts.length;
  const known = all - data.not_known.length;
  return known === all ? `${String(all)} accounts` : `${String(known)} of ${String(all)} accounts`;
}

/** Home: how the day goes, what needs a person, and the acts of every day. */
export default function Deck() {
  const deck = useDeck();
  const mayRun = useMay("algos");
  const mayTrade = useMay("trade");
  const navigate = useNavigate();
  const [dialog, setDialog] = useState<"start" | "pause" | "flatten" | null>(null);
  const isStale = useStale() || deck.isError;
  const close = () => {
    setDialog(null);
  };
  const { data } = deck;
  const currency = data?.currency ? `, ${data.currency}` : "";
  const mixed = data && data.currencies.length > 1 ? `${inWords(data.currencies)} are not added up` : "";
  const loading = deck.isPending;
  const stat = { loading: loading || !data, stale: isStale };
  const oldMarks = (data?.accounts ?? NO_ACCOUNTS).reduce((sum, each) => sum + each.old_marks, 0);
  const valued = { ...stat, stale: isStale || oldMarks > 0 };
  const old = oldMarks ? `${String(oldMarks)} prices over a minute old` : "";
  const table = { loading, error: deck.error, retry: () => void deck.refetch(), stale: isStale };
  return (
    <Page
      title="Deck"
      note={data ? <>as of <Time at={data.at} /></> : undefined}
      actions={
        <>
          {mayRun ? (
            <>
              <Button leftSection={<IconPlayerPlay size={14} aria-hidden />} onClick={() => { setDialog("start"); }}>
                Start all for the day
              </Button>
              <Button variant="default" leftSection={<IconPlayerPause size={14} aria-hidden />} onClick={() => { setDialog("pause"); }}>
                Pause entries
              </Button>
            </>
          ) : null}
          {mayTrade ? (
            <Button variant="default" leftSection={<IconSquareX size={14} aria-hidden />} onClick={() => { setDialog("flatten"); }}>
              Flatten an account
            </Button>
          ) : null}
        </>
      }
    >
      {deck.isError && !data ? <ErrorNote error={deck.error} retry={() => void deck.refetch()} /> : null}
      {(data?.kills ?? []).map((kill) => (
        <Alert key={kill.id} color="red" variant="light" p="xs" title={`Halted by the kill switch: ${kill.scope}`}>
          {kill.reason} · <Ago at={kill.at} /> · <Link to={`/kill/${kill.id}`}>proof, and how to lift it</Link>
        </Alert>
      ))}
      {data?.trouble ? (
        <Alert color="yellow" variant="light" p="xs" title="The deck needs a look" role="status">
          {data.trouble}
        </Alert>
      ) : null}
      {data?.not_known.length ? (
        <Alert color="yellow" variant="light" p="xs" title="The sums are not whole" role="status">
          Nothing new is known of {data.not_known.join(", ")}: profit and exposure are shown without {data.not_known.length === 1 ? "it" : "them"}.
        </Alert>
      ) : null}
      <div className="stats">
        <Stat {...valued} label={`P&L today${currency}`} value={<Figure value={data?.pnl_today} signed />} hint={data ? mixed || old || accountsIn(data) : ""} to="/positions" />
        <Stat {...valued} label={`Gross exposure${currency}`} value={<Figure value={data?.gross} places={0} />} hint={data ? mixed ? mixed : data.not_known.length ? accountsIn(data) : <UseBar use={data.gross_use} used={data.gross_used} limit={data.gross_limit} label="Gross exposure" /> : ""} to="/risk" />
        <Stat {...valued} label={`Net exposure${currency}`} value={<Figure value={data?.net} places={0} signed />} hint={mixed || "longs less shorts"} to="/risk" />
        <Stat {...stat} label="Algos running" value={data ? `${String(data.algos.running)} / ${String(data.algos.wanted)}` : ""} hint={data ? states(data.algos) : ""} to="/algos" />
        <Stat {...stat} label="Open orders" value={data?.open_orders} hint="at brokers now" to="/orders" />
        <Stat {...stat} label="Breaks" value={data ? <Count count={data.breaks} /> : ""} hint="books against brokers" to="/reconciliation" />
        <Stat {...stat} label="Alerts" value={data ? <Count count={data.alerts} /> : ""} hint="not acknowledged" to="/alerts" />
      </div>
      <div className="columns">
        <Panel title="Accounts" flush className="span-8">
          <DataTable {...table} height={236} name="deck-accounts" label="Accounts" rows={data?.accounts ?? NO_ACCOUNTS} columns={ACCOUNTS} rowId={(row) => row.account} isOld={hasOldMarks} onOpen={(row) => void navigate(`/accounts/${encodeURIComponent(row.account)}`)} empty={{ title: "No account yet", hint: <Link to="/accounts">Add one</Link> }} />
        </Panel>
        <RecentAlerts className="span-4" />
        <Panel title="Feeds" flush className="span-6">
          <DataTable {...table} height={180} name="deck-feeds" label="Feeds" rows={data?.feeds ?? NO_FEEDS} columns={FEEDS} rowId={(row) => row.feed} onOpen={(row) => void navigate(`/feeds/${encodeURIComponent(row.feed)}`)} empty={{ title: "No feed yet", hint: <Link to="/feeds">Add one</Link> }} />
        </Panel>
        <Panel title="Nodes" flush className="span-6">
          <DataTable {...table} height={180} name="deck-nodes" label="Nodes" rows={data?.nodes ?? NO_NODES} columns={NODES} rowId={(row) => row.node} onOpen={(row) => void navigate(`/nodes/${encodeURIComponent(row.node)}`)} empty={{ title: "No machine yet", hint: <Link to="/nodes">Register one</Link> }} />
        </Panel>
      </div>
      <StartAll opened={dialog === "start"} onClose={close} />
      <PauseEntries opened={dialog === "pause"} onClose={close} />
      <FlattenAccount opened={dialog === "flatten"} onClose={close} />
    </Page>
  );
}

function Count({ count }: { count: number }) {
  return count ? <StateBadge state="warning" label={String(count)} /> : <StateBadge state="ok" label="none" />;
}

function states(algos: DeckShown["algos"]): string {
  const odd = Object.entries(algos.by_state).filter(([state, count]) => count && state !== "running");
  return odd.map(([state, count]) => `${String(count)} ${state}`).join(", ") || "as wanted";
}

/** A sum over accounts; null: some of them have told nothing of late, or are in other currencies, so there is none. */
function Figure(given: { value: string | null | undefined; signed?: boolean; places?: number }) {
  if (given.value == null) return <span className="muted stale">not known</span>;
  return <Money {...given} />;
}
