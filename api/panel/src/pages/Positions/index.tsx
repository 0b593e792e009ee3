import { Button } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { useNavigate } from "react-router";

import { type Column, DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { type InCurrencies, Summed } from "@/components/Summed";
import { Money, Price, Quantity } from "@/components/values";
import { addDecimals, signOf } from "@/format/decimal";
import { FlattenAccount } from "@/pages/Deck/acts";
import { useMay } from "@/session/rights";
import { LastPrice } from "@/trading/LastPrice";
import { OrderTicket, type TicketStart } from "@/trading/OrderTicket";
import { type HeldAccount, type Position, toldColumn, useHoldings } from "@/trading/positions";
import { useFeedOf } from "@/trading/read";

const total = (row: Position) => addDecimals(row.realised, row.unrealised, row.fees.startsWith("-") ? row.fees.slice(1) : `-${row.fees}`);

/** Its cash has a currency of its own; the sums are in those of what was held, if anything was. */
const sumsOf = (account: HeldAccount): InCurrencies => {
  const currencies = account.currencies?.length ? account.currencies : [account.currency];
  return { currencies, currency: currencies.length === 1 ? (currencies[0] ?? "") : "" };
};

const ACCOUNTS: Column<HeldAccount>[] = [
  { id: "account", header: "Account", value: (a) => a.account, width: 90 },
  { id: "user", header: "User", value: (a) => a.user, width: 70 },
  { id: "state", header: "Broker", value: (a) => (a.connected ? "connected" : "lost"), cell: (a) => <StateBadge state={a.connected ? "connected" : "lost"} />, width: 100 },
  { id: "agreed", header: "Books", value: (a) => (a.reconciled ? "agree" : "not compared"), cell: (a) => <StateBadge state={a.open_breaks ? "warning" : a.reconciled ? "ok" : "waiting"} label={a.open_breaks ? `${String(a.open_breaks)} breaks` : a.reconciled ? "agree" : "not compared"} />, width: 92 },
  { id: "cash", header: "Cash", kind: "decimal", value: (a) => a.cash, cell: (a) => <Money value={a.cash} currency={a.currency} />, width: 148 },
  { id: "profit", header: "Profit", kind: "decimal", value: (a) => a.profit, cell: (a) => <Summed value={a.profit} of={sumsOf(a)} signed />, width: 130, title: "Realised and unrealised, less fees, since the account began" },
  { id: "unrealised", header: "Unrealised", kind: "decimal", value: (a) => a.unrealised, cell: (a) => <Summed value={a.unrealised} of={sumsOf(a)} signed />, width: 118 },
  { id: "fees", header: "Fees", kind: "decimal", value: (a) => a.fees, cell: (a) => <Summed value={a.fees} of={sumsOf(a)} />, width: 92 },
  { id: "gross", header: "Gross", kind: "decimal", value: (a) => a.gross_exposure, cell: (a) => <Summed value={a.gross_exposure} of={sumsOf(a)} />, width: 130 },
  { id: "orders", header: "Open", title: "Open orders", kind: "number", value: (a) => a.open_orders, width: 60 },
  toldColumn,
];
const isOld = (row: { isOld: boolean }) => row.isOld;

/** The order that would close a position. */
function closing(row: Position): TicketStart {
  const short = signOf(row.quantity) < 0;
  return {
    account: row.account,
    instrument: row.instrument,
    side: short ? "buy" : "sell",
    type: "market",
    quantity: row.quantity.replace(/^-/, ""),
    reduceOnly: true,
  };
}

export default function Positions() {
  const held = useHoldings();
  const feedOf = useFeedOf();
  const may = useMay("trade");
  const navigate = useNavigate();
  const [ticket, setTicket] = useState<TicketStart | null>(null);
  const [flattens, setFlattens] = useState(false);
  const columns = useMemo<Column<Position>[]>(
    () => [
      { id: "instrument", header: "Instrument", value: (p) => p.instrument, width: 162 },
      { id: "account", header: "Account", value: (p) => p.account, width: 104 },
      { id: "quantity", header: "Quantity", kind: "decimal", value: (p) => p.quantity, cell: (p) => <span className={signOf(p.quantity) < 0 ? "down" : "up"}><Quantity value={p.quantity} signed /></span>, width: 84 },
      { id: "cost", header: "Average cost", kind: "decimal", value: (p) => p.average_cost, cell: (p) => <Price value={p.average_cost} />, width: 104 },
      { id: "mark", header: "Mark", kind: "decimal", value: (p) => p.mark, cell: (p) => <Price value={p.mark} />, width: 82, title: "The price that it is valued at" },
      { id: "last", header: "Last", kind: "number", value: () => null, cell: (p) => <LastPrice feed={feedOf(p.instrument)} instrument={p.instrument} />, width: 82 },
      { id: "unrealised", header: "Unrealised", kind: "decimal", value: (p) => p.unrealised, cell: (p) => <Money value={p.unrealised} currency={p.currency} signed />, width: 104 },
      { id: "realised", header: "Realised", kind: "decimal", value: (p) => p.realised, cell: (p) => <Money value={p.realised} currency={p.currency} signed />, width: 104, hidden: true },
      { id: "fees", header: "Fees", kind: "decimal", value: (p) => p.fees, cell: (p) => <Money value={p.fees} currency={p.currency} />, width: 105, hidden: true },
      { id: "total", header: "Profit", kind: "decimal", value: total, cell: (p) => <Money value={total(p)} currency={p.currency} signed />, width: 104, title: "Realised and unrealised, less fees" },
      { id: "exposure", header: "Exposure", kind: "decimal", value: (p) => p.exposure, cell: (p) => <Money value={p.exposure} currency={p.currency} />, width: 128 },
      toldColumn,
      ...(may
        ? [
            {
              id: "act",
              header: "Act",
              value: () => null,
              width: 74,
              cell: (p: Position) => (
                <Button
                  size="compact-xs"
                  variant="default"
                  aria-label={`Close ${p.instrument} in ${p.account}`}
                  onClick={(event) => {
                    event.stopPropagation();
                    setTicket(closing(p));
                  }}
                >
                  Close…
                </Button>
              ),
            },
          ]
        : []),
    ],
    [feedOf, may],
  );
  const shared = { loading: held.isLoading, error: held.error, retry: held.refetch, stale: held.isStale };
  return (
    <Page
      title="Positions"
      actions={
        may ? (
          <>
            <Button variant="default" onClick={() => { setFlattens(true); }}>
              Flatten an account
            </Button>
            <Button leftSection={<IconPlus size={14} aria-hidden />} onClick={() => { setTicket({}); }}>
              Place an order
            </Button>
          </>
        ) : undefined
      }
    >
      <Panel title="Accounts" flush>
        <DataTable {...shared} height={Math.min(220, 62 + 27 * Math.max(2, held.accounts.length))} name="position-accounts" label="Accounts" rows={held.accounts} columns={ACCOUNTS} rowId={(a) => a.account} isOld={isOld} onOpen={(a) => void navigate(`/accounts/${encodeURIComponent(a.account)}`)} empty={{ title: "No account has told its portfolio yet" }} />
      </Panel>
      <Panel title="Positions" flush fill>
        <DataTable {...shared} name="positions" label="Positions" rows={held.positions} columns={columns} rowId={(p) => `${p.account} ${p.instrument}`} isOld={isOld} sort="instrument" onOpen={(p) => void navigate(`/chart/${encodeURIComponent(p.instrument)}`)} empty={{ title: "Flat", hint: "Nothing is held in any account that you see." }} />
      </Panel>
      <OrderTicket opened={ticket !== null} start={ticket ?? {}} onClose={() => { setTicket(null); }} />
      <FlattenAccount opened={flattens} onClose={() => { setFlattens(false); }} />
    </Page>
  );
}
