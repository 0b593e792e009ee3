import { Button } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useState } from "react";
import { useNavigate, useSearchParams } from "react-router";

import { type Column, DataTable } from "@/components/DataTable";
import { labelsText } from "@/components/Labels";
import { Page, Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Money, Time } from "@/components/values";
import { useMay } from "@/session/rights";
import type { Algo } from "@/trading/read";

import { stateOf, useAlgos, wordsFor } from "./algos";
import { Commands } from "./commands";
import { NewAlgo } from "./NewAlgo";

const COLUMNS: Column<Algo>[] = [
  { id: "id", header: "Algo", value: (a) => a.id, width: 116 },
  { id: "state", header: "State", value: stateOf, cell: (a) => <StateBadge state={stateOf(a)} reason={wordsFor(a)} />, width: 100 },
  { id: "why", header: "In words", value: wordsFor, width: 190 },
  { id: "want", header: "Wanted", value: (a) => a.want, width: 68 },
  { id: "strategy", header: "Strategy", value: (a) => a.strategy, width: 95 },
  { id: "version", header: "Version", value: (a) => a.strategy_version.slice(0, 8) || "built in", width: 80, hidden: true },
  { id: "account", header: "Account", value: (a) => a.account, width: 84 },
  { id: "user", header: "User", value: (a) => a.user, width: 80, hidden: true },
  { id: "instruments", header: "Instruments", value: (a) => a.instruments.join(" "), width: 150 },
  { id: "feed", header: "Feed", value: (a) => a.feed, width: 80, hidden: true },
  { id: "labels", header: "Labels", value: (a) => labelsText(a.labels), width: 120, hidden: true },
  { id: "node", header: "Runs on", value: (a) => a.live?.node ?? a.placed, width: 78 },
  { id: "profit", header: "Realised", kind: "decimal", value: (a) => a.live?.realised, cell: (a) => <Money value={a.live?.realised} currency={a.live?.currency} signed />, width: 110, title: "Profit taken less fees, of this incarnation" },
  { id: "orders", header: "Open", kind: "number", value: (a) => a.live?.open_orders, width: 50, title: "Open orders" },
  { id: "fills", header: "Fills", kind: "number", value: (a) => a.live?.fills, width: 50 },
  { id: "denied", header: "Denied", kind: "number", value: (a) => a.live?.denied, width: 64, hidden: true },
  { id: "tick", header: "Tick age s", kind: "number", value: (a) => a.live?.tick_age_s?.toFixed(1), width: 72 },
  { id: "latency", header: "p99 ms", kind: "number", value: (a) => a.live?.tick_to_strategy_ms.p99?.toFixed(1), width: 66, title: "From the tick's arrival to the strategy, 99 of 100", hidden: true },
  { id: "cpu", header: "CPU", kind: "number", value: (a) => (a.live?.cpu_share == null ? null : a.live.cpu_share.toFixed(2)), width: 58, title: "Cores that it takes", hidden: true },
  { id: "updated", header: "Changed", kind: "time", value: (a) => a.updated_at, cell: (a) => <Time at={a.updated_at} />, width: 120, hidden: true },
];

export function AlgoList() {
  const algos = useAlgos();
  const may = useMay("algos");
  const navigate = useNavigate();
  const [search, setSearch] = useSearchParams();
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const ids = algos.rows.filter((each) => selected.has(each.id)).map((each) => each.id);
  return (
    <Page
      title="Algos"
      actions={
        may ? (
          <>
            {ids.length ? <span className="muted">{ids.length} chosen</span> : null}
            <Commands ids={ids} />
            <Button
              variant="light"
              leftSection={<IconPlus size={14} aria-hidden />}
              onClick={() => {
                setSearch({ new: "1" });
              }}
            >
              Add an algo
            </Button>
          </>
        ) : undefined
      }
    >
      <Panel title="Algos" flush fill>
        <DataTable
          name="algos"
          label="Algos"
          rows={algos.rows}
          columns={COLUMNS}
          rowId={(algo) => algo.id}
          sort="id"
          loading={algos.isLoading}
          error={algos.error}
          retry={algos.refetch}
          stale={algos.isStale}
          empty={{ title: "No algo yet", hint: "An algo is one running instance of a strategy, for an account." }}
          onOpen={(algo) => void navigate(`/algos/${encodeURIComponent(algo.id)}`)}
          {...(may ? { selected, onSelect: setSelected } : {})}
        />
      </Panel>
      <NewAlgo
        opened={may && search.has("new")}
        onClose={() => {
          setSearch({}, { replace: true });
        }}
      />
    </Page>
  );
}
