import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Time } from "@/components/values";
import { newestOf, useView } from "@/stream/views";

type Event = Shape<"AlgoEventShown">;

const NONE: Event[] = [];
const fromPushed = newestOf<Event>((event) => event.number);
const COLUMNS: Column<Event>[] = [
  { id: "at", header: "When", kind: "time", value: (e) => e.at, cell: (e) => <Time at={e.at} />, width: 130 },
  { id: "text", header: "What happened", value: (e) => e.text, width: 420 },
  { id: "state", header: "State then", value: (e) => e.state, cell: (e) => <StateBadge state={e.state} reason={e.reason} />, width: 110 },
  { id: "want", header: "Wanted", value: (e) => e.want, width: 80 },
  { id: "node", header: "Machine", value: (e) => e.node, width: 100 },
  { id: "by", header: "By", value: (e) => e.by, width: 100 },
  { id: "epoch", header: "Incarnation", kind: "number", value: (e) => e.epoch, width: 90 },
];

/** What happened to an algo, newest first: why it runs, or does not, always has an answer here. */
export function AlgoEvents({ id }: { id: string }) {
  const events = useView({
    path: `algos/${id}/events`,
    queryKey: ["algo", id, "events"],
    from: fromPushed,
    read: () =>
      readAll(
        (cursor) =>
          expect(api.GET("/v1/algos/{id}/events", { params: { path: { id }, query: { limit: 500, cursor } } })),
        2_000,
      ),
  });
  return (
    <Panel title="What happened to it" flush fill>
      <DataTable
        name="algo-events"
        label={`History of ${id}`}
        rows={events.data?.items ?? NONE}
        columns={COLUMNS}
        rowId={(event) => String(event.number)}
        loading={events.isPending}
        error={events.error}
        retry={() => void events.refetch()}
        stale={events.isError}
        cut={events.data ? !events.data.whole : false}
      />
    </Panel>
  );
}
