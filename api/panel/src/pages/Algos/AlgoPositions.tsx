import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Panel } from "@/components/Page";
import { Money, Price, Quantity, Time } from "@/components/values";
import { useView, wholeList } from "@/stream/views";

type Held = Shape<"PositionShown">;

const NONE: Held[] = [];
const COLUMNS: Column<Held>[] = [
  { id: "instrument", header: "Instrument", value: (p) => p.instrument, width: 190 },
  { id: "account", header: "Account", value: (p) => p.account, width: 110 },
  { id: "quantity", header: "Quantity", kind: "decimal", value: (p) => p.quantity, cell: (p) => <Quantity value={p.quantity} signed />, width: 110 },
  { id: "cost", header: "Average cost", kind: "decimal", value: (p) => p.average_cost, cell: (p) => <Price value={p.average_cost} />, width: 120 },
  { id: "realised", header: "Realised", kind: "decimal", value: (p) => p.realised, cell: (p) => <Money value={p.realised} currency={p.currency} signed />, width: 130, title: "Profit taken, before fees" },
  { id: "fees", header: "Fees", kind: "decimal", value: (p) => p.fees, cell: (p) => <Money value={p.fees} currency={p.currency} />, width: 120 },
  { id: "traded", header: "Traded", kind: "decimal", value: (p) => p.traded, cell: (p) => <Quantity value={p.traded} />, width: 110, title: "Sum of what was bought and sold" },
  { id: "updated", header: "Changed", kind: "time", value: (p) => p.updated_at, cell: (p) => <Time at={p.updated_at} />, width: 130 },
];

/** What the algo's own trades have led to, over all its incarnations. */
export function AlgoPositions(given: { id: string; className: string }) {
  const { id } = given;
  const held = useView({
    path: `positions?algo=${id}&flat=true`,
    queryKey: ["positions", "algo", id],
    from: wholeList<Held>,
    read: () =>
      readAll((cursor) =>
        expect(api.GET("/v1/positions", { params: { query: { algo: id, flat: true, limit: 1_000, cursor } } })),
      ),
  });
  return (
    <Panel title="Positions and profit of its own trades" flush className={given.className}>
      <DataTable
        name="algo-positions"
        label={`Positions of ${id}`}
        height={160}
        rows={held.data?.items ?? NONE}
        columns={COLUMNS}
        rowId={(each) => `${each.account} ${each.instrument}`}
        loading={held.isPending}
        error={held.error}
        retry={() => void held.refetch()}
        stale={held.isError}
        empty={{ title: "It has traded nothing yet" }}
      />
    </Panel>
  );
}
