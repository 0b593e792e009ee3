/** The highest use of each day, as a chart and as figures. */
import { Group, NumberInput, Select } from "@mantine/core";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { lazy, Suspense, useMemo, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { Summed } from "@/components/Summed";
import { roughly } from "@/format/decimal";

const TimeChart = lazy(() => import("@/charts/TimeChart"));

type Point = Shape<"SeriesPoint">;
type Measure = Point["kind"];

const MEASURES: { value: Measure; label: string }[] = [
  { value: "gross", label: "Gross exposure" },
  { value: "money_at_risk", label: "Money at risk" },
  { value: "loss", label: "Loss" },
  { value: "drawdown", label: "Drawdown" },
  { value: "open_orders", label: "Open orders" },
];

const columns: Column<Point>[] = [
  { id: "day", header: "Day", value: (point) => point.day.slice(0, 10), width: 110 },
  { id: "scope", header: "Level", value: (point) => point.scope, width: 180 },
  { id: "value", header: "Highest", value: (point) => point.value, kind: "decimal", width: 140, cell: (point) => <Summed value={point.value} of={point} /> },
];

export function Maxima() {
  const [kind, setKind] = useState<Measure>("gross");
  const [scope, setScope] = useState("cluster");
  const [days, setDays] = useState(30);
  const query = useQuery({
    queryKey: ["maxima", kind, days],
    queryFn: () => expect(api.GET("/v1/risk/maxima/series", { params: { query: { kind, days } } })),
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });
  const scopes = useMemo(() => [...new Set(["cluster", ...(query.data?.items ?? []).map((point) => point.scope)])], [query.data]);
  const rows = useMemo(() => (query.data?.items ?? []).filter((point) => point.scope === scope), [query.data, scope]);
  const lines = useMemo(
    () => [{ title: kind, points: rows.filter((point) => point.value !== null).map((point) => ({ at: point.day, value: roughly(point.value) })) }],
    [kind, rows],
  );
  return (
    <Panel title="The highest of each day">
      <Group align="end" gap="xs" mb="xs">
        <Select
          label="Measure"
          data={MEASURES}
          value={kind}
          onChange={(value) => {
            setKind((value ?? "gross") as Measure);
          }}
        />
        <Select
          label="Level"
          data={scopes}
          value={scope}
          searchable
          onChange={(value) => {
            setScope(value ?? "cluster");
          }}
        />
        <NumberInput
          label="Days"
          min={1}
          max={3700}
          w={90}
          value={days}
          onChange={(value) => {
            setDays(Math.max(1, Number(value) || 30));
          }}
        />
      </Group>
      <ErrorNote error={query.error} retry={() => void query.refetch()} />
      {rows.length ? (
        <>
          <Suspense fallback={<div style={{ height: 200 }} />}>
            <TimeChart label={`The highest ${kind.replaceAll("_", " ")} of ${scope} by day; the table below has the figures`} lines={lines} days height={200} />
          </Suspense>
          <DataTable name="maxima" label="The highest of each day" rows={rows} columns={columns} rowId={(point) => `${point.day} ${point.scope}`} sort="-day" height={220} />
        </>
      ) : (
        <p className="muted">{query.isLoading ? "Reading…" : "Nothing was in use on these days."}</p>
      )}
    </Panel>
  );
}
