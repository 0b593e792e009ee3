/** A feed's instruments: state, age, rate, last prices; add and remove while watching. */
import { Button, Group } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { useNavigate } from "react-router";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentsInput } from "@/components/InstrumentInput";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { formatNumber } from "@/format/measure";
import { formatSpan } from "@/format/time";
import { useStale } from "@/stream/hooks";
import { useView, wholeList } from "@/stream/views";

import type { Feed } from "./feed";

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

export function Instruments(given: { feed: Feed; mayManage: boolean }) {
  const { feed } = given;
  const client = useQueryClient();
  const navigate = useNavigate();
  const [dialog, confirm] = useConfirm();
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [wanted, setWanted] = useState<string[]>([]);
  const query = useView({
    path: `feeds/${feed.id}/instruments`,
    queryKey: ["feed-instruments", feed.id],
    from: wholeList<Health>,
    read: () =>
      readAll((cursor) =>
        expect(api.GET("/v1/feeds/{id}/instruments", { params: { path: { id: feed.id }, query: { limit: 1000, cursor } } })),
      ),
  });
  const again = async () => {
    await client.invalidateQueries({ queryKey: ["feed", feed.id] });
    await client.invalidateQueries({ queryKey: ["feed-instruments", feed.id] });
  };
  const add = useMutation({
    mutationFn: () =>
      expect(api.POST("/v1/feeds/{id}/instruments", { params: { path: { id: feed.id } }, body: { instruments: wanted } })),
    onSuccess: () => {
      setWanted([]);
    },
    onSettled: again,
  });
  const rows = useMemo(() => query.data?.items ?? [], [query.data]);
  const isStale = useStale() || query.isError;
  return (
    <>
      {dialog}
      {given.mayManage ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            add.mutate();
          }}
        >
          <Group align="end" gap="xs" my="xs" wrap="nowrap">
            <div style={{ flex: 1, maxWidth: 520 }}>
              <InstrumentsInput
                label="Add instruments"
                provider={feed.provider}
                value={wanted}
                onChange={setWanted}
                error={errorAt(add.error, "instruments")}
              />
            </div>
            <Button type="submit" disabled={!wanted.length} loading={add.isPending}>
              Add
            </Button>
          </Group>
          {isAboutNone(add.error, ["instruments"]) ? <ErrorNote error={add.error} /> : null}
        </form>
      ) : null}
      <div className="panel fill">
        <DataTable
          name="feed-instruments"
          label={`Instruments of ${feed.id}`}
          rows={rows}
          columns={columns}
          rowId={(each) => each.id}
          sort="id"
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          stale={isStale}
          cut={query.data ? !query.data.whole : false}
          onOpen={(each) => {
            void navigate(`/chart/${encodeURIComponent(each.id)}`);
          }}
          {...(given.mayManage ? { selected: chosen, onSelect: setChosen } : {})}
          tools={
            chosen.size ? (
              <Button
                size="compact-xs"
                variant="default"
                c="var(--qd-bad)"
                onClick={() => {
                  const names = [...chosen];
                  const left = new Set(names);
                  confirm({
                    title: names.length === 1 ? "Remove an instrument" : `Remove ${String(names.length)} instruments`,
                    children: (
                      <span className="wrap">{names.join(", ")} leave the feed, unless another client wants them there.</span>
                    ),
                    verb: "Remove",
                    danger: true,
                    act: async () => {
                      try {
                        // What is gone is not asked for again where a later one fails.
                        for (const instrument of [...left]) {
                          await expect(
                            api.DELETE("/v1/feeds/{id}/instruments/{instrument}", { params: { path: { id: feed.id, instrument } } }),
                          );
                          left.delete(instrument);
                        }
                      } finally {
                        setChosen(new Set(left));
                        await again();
                      }
                    },
                  });
                }}
              >
                Remove {String(chosen.size)}
              </Button>
            ) : undefined
          }
          empty={{ title: "No instrument yet", hint: "Add some above." }}
        />
      </div>
    </>
  );
}
