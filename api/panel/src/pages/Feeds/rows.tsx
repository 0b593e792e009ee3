/** The rows of a feed's instruments: all of a short list, or the part of a long one that is looked at. */
import { Select } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useCallback, useMemo, useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import type { operations } from "@/api/schema";
import { type Column, DataTable, type DataTableProps } from "@/components/DataTable";
import type { Asked, Remote } from "@/components/remote";
import { StateBadge } from "@/components/StateBadge";
import { formatNumber } from "@/format/measure";
import { formatSpan } from "@/format/time";
import { useStale } from "@/stream/hooks";
import { useView, wholeList } from "@/stream/views";

type Health = Shape<"InstrumentHealth">;

const price = (value: number | null | undefined) => <span className="number">{value == null ? "–" : String(value)}</span>;

const columns: Column<Health>[] = [
  { id: "id", header: "Instrument", value: (each) => each.id, width: 170 },
  { id: "state", header: "State", value: (each) => each.state, width: 100, cell: (each) => <StateBadge state={each.state} reason={each.reason} /> },
  { id: "worker", header: "Worker", value: (each) => each.shard, kind: "number", width: 70 },
  {
    id: "age", header: "Age", value: (each) => each.age_s, kind: "number", width: 80, title: "Since its last tick",
    cell: (each) => (each.age_s == null ? "–" : each.age_s < 10 ? `${each.age_s.toFixed(1)} s` : formatSpan(each.age_s * 1000)),
  },
  { id: "rate", header: "Ticks/s", value: (each) => each.rate, kind: "number", width: 80, cell: (each) => formatNumber(each.rate, 1) },
  { id: "last", header: "Last", value: (each) => each.last?.price, kind: "number", width: 110, cell: (each) => price(each.last?.price) },
  { id: "bid", header: "Bid", value: (each) => each.last?.bid, kind: "number", width: 110, cell: (each) => price(each.last?.bid) },
  { id: "ask", header: "Ask", value: (each) => each.last?.ask, kind: "number", width: 110, cell: (each) => price(each.last?.ask) },
  { id: "ticks", header: "Ticks", value: (each) => each.ticks, kind: "number", width: 100, cell: (each) => formatNumber(each.ticks) },
  { id: "quarantined", header: "Quarantined", value: (each) => each.quarantined, kind: "number", width: 90 },
  { id: "gaps", header: "Gaps", value: (each) => each.gaps, kind: "number", width: 64 },
  {
    id: "patience", header: "Stale after", value: (each) => each.patience_s, kind: "number", width: 90, hidden: true,
    cell: (each) => (each.patience_s == null ? "–" : formatSpan(each.patience_s * 1000)),
  },
  { id: "skew", header: "Skew", value: (each) => each.skew_ms, kind: "number", width: 80, hidden: true },
  {
    id: "second", header: "Standby", value: (each) => each.second?.feed, width: 110, hidden: true,
    cell: (each) => (each.second ? `${each.second.feed}${each.second.in_use ? " (in use)" : ""}` : "none"),
  },
  { id: "reason", header: "Why", value: (each) => each.reason, width: 220 },
];

/** Of longer lists only what is looked at is pushed: all of it would be a megabyte a second. */
export const MOST_PUSHED = 1_000;
/** Windows begin and end at multiples of so many rows, so that a little scrolling asks for nothing new. */
const STEP = 25;
/** So long somebody must rest at a place before it is asked for. */
const REST_MS = 150;

interface Given extends Pick<DataTableProps<Health>, "onOpen" | "selected" | "onSelect" | "tools"> {
  feed: string;
}

const NONE: Health[] = [];
const shared = (feed: string) => ({
  name: "feed-instruments",
  label: `Instruments of ${feed}`,
  columns,
  rowId: (each: Health) => each.id,
  sort: "id",
  empty: { title: "No instrument yet", hint: "Add some above." },
});

export function AllRows({ feed, ...given }: Given) {
  const query = useView({
    path: `feeds/${feed}/instruments`,
    queryKey: ["feed-instruments", feed],
    from: wholeList<Health>,
    read: () =>
      readAll((cursor) =>
        expect(api.GET("/v1/feeds/{id}/instruments", { params: { path: { id: feed }, query: { limit: 1_000, cursor } } })),
      ),
  });
  const isStale = useStale() || query.isError;
  return (
    <DataTable
      {...shared(feed)}
      {...given}
      rows={query.data?.items ?? NONE}
      loading={query.isLoading}
      error={query.error}
      retry={() => void query.refetch()}
      stale={isStale}
      cut={query.data ? !query.data.whole : false}
    />
  );
}

type Query = Required<NonNullable<operations["instruments_window_v1_feeds__id__instruments_window_get"]["parameters"]["query"]>>;

/** The table's columns, where the server calls them otherwise. */
const FIELDS: Record<string, string> = { worker: "shard", age: "age_s", patience: "patience_s", skew: "skew_ms", second: "standby" };

const fieldOf = (column: string): string => FIELDS[column] ?? column;

const sortOf = (sort: string): string => (sort.startsWith("-") ? `-${fieldOf(sort.slice(1))}` : fieldOf(sort || "id"));

/** A query as it is written in a topic: a list is its name again and again. */
const written = (query: Query): string =>
  new URLSearchParams(
    Object.entries(query).flatMap(([name, value]) => (Array.isArray(value) ? value.map((each) => [name, each]) : [[name, String(value)]])),
  ).toString();

const readWindow = (feed: string, query: Query) =>
  expect(api.GET("/v1/feeds/{id}/instruments/window", { params: { path: { id: feed }, query } }));

/** The server sorts and filters; what is looked at is pushed, and nothing else. */
export function WindowOfRows({ feed, tools, ...given }: Given) {
  const [asked, setAsked] = useState<Asked>({ text: "", sort: "id", filters: [] });
  const [state, setState] = useState<Query["state"]>("");
  const [window, setWindow] = useState({ offset: 0, limit: 2 * STEP });
  const [{ text, filters }] = useDebouncedValue(asked, 250);
  const [place] = useDebouncedValue(window, REST_MS);
  const wanted = useMemo<Query>(
    () => ({
      search: text.trim().slice(0, 100),
      state,
      where: filters.map((each) => `${fieldOf(each.id)}:${each.wanted.trim().slice(0, 100)}`),
      sort: sortOf(asked.sort),
      ...place,
    }),
    [text, state, filters, asked.sort, place],
  );
  const query = useView({
    path: `feeds/${feed}/instruments/window?${written(wanted)}`,
    queryKey: ["feed-instruments", feed, "window", wanted],
    keep: true,
    read: () => readWindow(feed, wanted),
  });
  const onWindow = useCallback((first: number, last: number) => {
    const offset = Math.floor(first / STEP) * STEP;
    const limit = Math.min(1_000, Math.ceil((last + 1) / STEP) * STEP - offset);
    setWindow((held) => (held.offset === offset && held.limit === limit ? held : { offset, limit }));
  }, []);
  const all = useCallback(async () => {
    const found: Health[] = [];
    for (let offset = 0; ; offset += 1_000) {
      const { items, total } = await readWindow(feed, { ...wanted, offset, limit: 1_000 });
      found.push(...items);
      if (!items.length || offset + items.length >= total) return found;
    }
  }, [feed, wanted]);
  const { data } = query;
  const remote: Remote<Health> = { total: data?.total ?? 0, offset: data?.offset ?? 0, onAsk: setAsked, onWindow, all };
  const isStale = useStale() || query.isError;
  return (
    <DataTable
      {...shared(feed)}
      {...given}
      rows={data?.items ?? NONE}
      remote={remote}
      loading={query.isLoading}
      error={query.error}
      retry={() => void query.refetch()}
      stale={isStale}
      tools={
        <>
          <Select
            size="xs"
            aria-label="Only in state"
            w={150}
            data={["", "pending", "live", "stale", "failed"].map((each) => ({
              value: each,
              label: `${each || "all states"} (${String(each ? (data?.states[each] ?? 0) : sum(data?.states))})`,
            }))}
            value={state}
            onChange={(value) => {
              setState((value ?? "") as Query["state"]);
            }}
          />
          {tools}
        </>
      }
    />
  );
}

const sum = (states: Record<string, number> | undefined): number => Object.values(states ?? {}).reduce((all, each) => all + each, 0);
