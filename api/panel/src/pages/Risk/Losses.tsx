/** The day's losses and drawdowns against their limits, and when the day begins. */
import { Button, Group } from "@mantine/core";
import { useMemo, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Money } from "@/components/values";
import { signOf } from "@/format/decimal";
import { useIsOperator } from "@/session/session";
import { useStale } from "@/stream/hooks";
import { useView } from "@/stream/views";

import { LimitForm } from "./LimitForm";

type Level = Shape<"LevelShown">;

const minus = (text: string) => (text.startsWith("-") ? text.slice(1) : `-${text}`);

const columns: Column<Level>[] = [
  { id: "scope", header: "Level", value: (level) => level.scope, width: 170 },
  {
    id: "state", header: "State", value: (level) => (level.blocked.length ? "reached" : "ok"), width: 110,
    cell: (level) =>
      level.blocked.length ? (
        <StateBadge state="breached" label="reached" reason={level.blocked.map((each) => `${each.kind}: ${each.value ?? "?"} of ${each.limit ?? "?"}`).join("; ")} />
      ) : (
        <StateBadge state="ok" />
      ),
  },
  { id: "profit", header: "Profit today", value: (level) => level.profit, kind: "decimal", width: 120, cell: (level) => <Money value={level.profit} signed /> },
  {
    id: "loss", header: "Loss limit", value: (level) => level.limits.daily_loss, kind: "decimal", width: 120,
    cell: (level) => (level.limits.daily_loss === undefined ? <span className="muted">none</span> : <Money value={level.limits.daily_loss} />),
  },
  { id: "drawdown", header: "Drawdown", value: (level) => level.drawdown, kind: "decimal", width: 120,
    cell: (level) => <Money value={signOf(level.drawdown) > 0 ? minus(level.drawdown) : level.drawdown} signed /> },
  {
    id: "drawdown_limit", header: "Drawdown limit", value: (level) => level.limits.drawdown, kind: "decimal", width: 120,
    cell: (level) => (level.limits.drawdown === undefined ? <span className="muted">none</span> : <Money value={level.limits.drawdown} />),
  },
  { id: "risk", header: "Money at risk", value: (level) => level.money_at_risk, kind: "decimal", width: 120, cell: (level) => <Money value={level.money_at_risk} /> },
  { id: "gross", header: "Gross", value: (level) => level.gross, kind: "decimal", width: 120, cell: (level) => <Money value={level.gross} /> },
  { id: "open", header: "Open orders", value: (level) => level.open_orders, kind: "number", width: 90 },
];

export function Losses() {
  const isOperator = useIsOperator();
  const [open, setOpen] = useState<Level | null>(null);
  const [editing, setEditing] = useState<{ scope: string; kind: string; value: string } | null>(null);
  const query = useView({
    path: "risk/exposure",
    queryKey: ["exposure"],
    read: () => expect(api.GET("/v1/risk/exposure", { params: { query: {} } })),
  });
  const rows = useMemo(() => (query.data?.levels ?? []).filter((level) => !level.instrument), [query.data]);
  const isStale = useStale() || query.isError;
  const shown = open ? (rows.find((level) => level.scope === open.scope) ?? open) : null;
  const edit = (scope: string, kind: string, value = "") => {
    setEditing({ scope, kind, value });
  };
  return (
    <>
      <Panel
        title="Losses of the day"
        flush
        actions={
          isOperator ? (
            <Group gap={4}>
              {shown ? (
                <>
                  <Button size="compact-sm" variant="default" onClick={() => { edit(shown.scope, "daily_loss", shown.limits.daily_loss); }}>
                    Daily loss of {shown.scope}
                  </Button>
                  <Button size="compact-sm" variant="default" onClick={() => { edit(shown.scope, "drawdown", shown.limits.drawdown); }}>
                    Drawdown of {shown.scope}
                  </Button>
                </>
              ) : (
                <span className="muted">Choose a level to set its losses</span>
              )}
              <Button size="compact-sm" variant="default" onClick={() => { edit("cluster", "day_start"); }}>
                When the day begins
              </Button>
            </Group>
          ) : undefined
        }
      >
        <DataTable
          name="losses"
          label="Losses of the day by level"
          rows={rows}
          columns={columns}
          rowId={(level) => level.scope}
          sort="profit"
          height={360}
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          stale={isStale}
          openId={open?.scope ?? null}
          onOpen={setOpen}
          empty={{ title: "Nothing is traded yet" }}
        />
      </Panel>
      <p className="muted">
        A loss that reaches its limit refuses entries until the next day, or until the limit is set again. Exits always pass.
      </p>
      {editing ? (
        <LimitForm
          scope={editing.scope}
          kind={editing.kind}
          instrument=""
          value={editing.value}
          onClose={() => {
            setEditing(null);
          }}
        />
      ) : null}
    </>
  );
}
