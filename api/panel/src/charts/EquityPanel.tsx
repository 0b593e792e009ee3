import { SegmentedControl } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { inWords } from "@/components/Summed";
import { Money } from "@/components/values";
import { roughly } from "@/format/decimal";
import { instant } from "@/format/time";

import { LineChart } from "./LineChart";

const SPANS = { "1 h": 3_600_000, "1 d": 86_400_000, "1 w": 7 * 86_400_000, "30 d": 30 * 86_400_000 } as const;
type SpanName = keyof typeof SPANS;

/** The profit of an algo or an account over time. */
export default function EquityPanel(given: { what: "algo" | "account"; id: string; className?: string }) {
  const { what, id } = given;
  const [span, setSpan] = useState<SpanName>("1 d");
  const equity = useQuery({
    queryKey: ["equity", what, id, span],
    queryFn: () => {
      const params = { path: { id }, query: { since: new Date(Date.now() - SPANS[span]).toISOString(), points: 600 } };
      return what === "algo"
        ? expect(api.GET("/v1/algos/{id}/equity", { params }))
        : expect(api.GET("/v1/accounts/{id}/equity", { params }));
    },
    refetchInterval: 10_000,
  });
  const items = equity.data?.items;
  const mixed = equity.data?.currencies ?? [];
  const points = useMemo(
    // Where a point stands is rough; what is written below is exact.
    () => (items ?? []).map((each) => ({ at: instant(each.at), value: roughly(each.pnl) })),
    [items],
  );
  const last: { pnl: string; equity?: string | null } | undefined = items?.at(-1);
  return (
    <Panel
      title="Equity curve"
      {...(given.className === undefined ? {} : { className: given.className })}
      stale={equity.isError}
      actions={
        <SegmentedControl
          size="xs"
          aria-label="Span"
          value={span}
          data={Object.keys(SPANS)}
          onChange={(value) => {
            setSpan(value as SpanName);
          }}
        />
      }
    >
      {equity.isError && !equity.data ? <ErrorNote error={equity.error} retry={() => void equity.refetch()} /> : null}
      {points.length > 1 ? (
        <LineChart points={points} height={what === "algo" ? 380 : 250} label={`Profit of ${id} over ${span}`} />
      ) : (
        <div className="grid-note" style={{ minHeight: 230 }}>
          <strong>{equity.isPending ? "Loading…" : "No curve yet"}</strong>
          {equity.isPending ? null : mixed.length > 1 ? `Its amounts are in ${inWords(mixed)}, which are not added up.` : "It is drawn from its fills and the prices since; there are too few of them in this span."}
        </div>
      )}
      {last ? (
        <div className="muted" style={{ marginTop: 6 }}>
          Profit <Money value={last.pnl} currency={equity.data?.currency} signed />
          {last.equity ? (
            <>
              {" "}
              · equity <Money value={last.equity} currency={equity.data?.currency} />
            </>
          ) : null}
        </div>
      ) : null}
    </Panel>
  );
}
