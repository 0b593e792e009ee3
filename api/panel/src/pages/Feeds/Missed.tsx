/** What did not pass: ticks in quarantine, and gaps with what became of them. */
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { StateBadge } from "@/components/StateBadge";
import { Time } from "@/components/values";

type Bad = Shape<"QuarantinedTick"> & { instrument: string };
type Gap = Shape<"Gap">;

const badColumns: Column<Bad>[] = [
  { id: "at", header: "Received", value: (tick) => tick.received_at, kind: "time", width: 130, cell: (tick) => <Time at={tick.received_at} /> },
  { id: "instrument", header: "Instrument", value: (tick) => tick.instrument, width: 170 },
  { id: "reason", header: "Reason", value: (tick) => tick.reason, width: 150 },
  { id: "price", header: "Price", value: (tick) => tick.price, kind: "number", width: 110 },
  { id: "size", header: "Size", value: (tick) => tick.size, kind: "number", width: 90 },
  { id: "bid", header: "Bid", value: (tick) => tick.bid, kind: "number", width: 110 },
  { id: "ask", header: "Ask", value: (tick) => tick.ask, kind: "number", width: 110 },
  { id: "reference", header: "Compared with", value: (tick) => tick.reference, kind: "number", width: 110 },
  { id: "width", header: "Band", value: (tick) => tick.width, kind: "number", width: 100 },
];

export function Quarantine(given: { id: string }) {
  const query = useQuery({
    queryKey: ["quarantine", given.id],
    queryFn: () =>
      readAll((cursor) =>
        expect(api.GET("/v1/feeds/{id}/quarantine", { params: { path: { id: given.id }, query: { limit: 1000, cursor } } })),
      ),
    refetchInterval: 5_000,
  });
  const rows = useMemo(
    () => (query.data?.items ?? []).flatMap((each) => each.last.map((tick) => ({ ...tick, instrument: each.instrument }))),
    [query.data],
  );
  return (
    <div className="panel fill">
      <DataTable
        name="quarantine"
        label={`Ticks of ${given.id} in quarantine`}
        rows={rows}
        columns={badColumns}
        rowId={(tick) => `${tick.instrument} ${tick.received_at} ${String(tick.sequence)}`}
        sort="-at"
        loading={query.isLoading}
        error={query.error}
        retry={() => void query.refetch()}
        empty={{ title: "No tick was kept out", hint: "Bad ticks (zero, crossed, beyond the band, backwards in time) are shown here and used nowhere." }}
      />
    </div>
  );
}

const gapColumns: Column<Gap>[] = [
  { id: "since", header: "From", value: (gap) => gap.since, kind: "time", width: 150, cell: (gap) => <Time at={gap.since} /> },
  { id: "until", header: "To", value: (gap) => gap.until, kind: "time", width: 150, cell: (gap) => <Time at={gap.until} /> },
  { id: "instrument", header: "Instrument", value: (gap) => gap.instrument, width: 170 },
  { id: "worker", header: "Worker", value: (gap) => gap.shard, kind: "number", width: 70 },
  { id: "state", header: "State", value: (gap) => gap.state, width: 110, cell: (gap) => <StateBadge state={gap.state} reason={gap.detail} /> },
  { id: "trades", header: "Trades filled in", value: (gap) => gap.trades, kind: "number", width: 110 },
  { id: "bars", header: "Bars filled in", value: (gap) => gap.bars, kind: "number", width: 100 },
  { id: "reason", header: "Why", value: (gap) => gap.reason, width: 180 },
  { id: "detail", header: "Detail", value: (gap) => gap.detail, width: 240 },
];

export function Gaps(given: { id: string }) {
  const query = useQuery({
    queryKey: ["gaps", given.id],
    queryFn: () =>
      readAll(
        (cursor) => expect(api.GET("/v1/feeds/{id}/gaps", { params: { path: { id: given.id }, query: { limit: 1000, cursor } } })),
        5_000,
      ),
    refetchInterval: 10_000,
  });
  return (
    <div className="panel fill">
      <DataTable
        name="gaps"
        label={`Gaps of ${given.id}`}
        rows={query.data?.items ?? []}
        columns={gapColumns}
        rowId={(gap) => `${gap.instrument} ${gap.since} ${String(gap.shard)}`}
        sort="-since"
        loading={query.isLoading}
        error={query.error}
        retry={() => void query.refetch()}
        cut={query.data ? !query.data.whole : false}
        empty={{ title: "No gap", hint: "Nothing was missed between the ticks." }}
      />
    </div>
  );
}
