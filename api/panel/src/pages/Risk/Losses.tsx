/** The day's losses and drawdowns against their limits, and when the day begins. */
import { Button, Group } from "@mantine/core";
import { useMemo, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Summed } from "@/components/Summed";
import { signOf } from "@/format/decimal";
import { useIsOperator } from "@/session/session";
import { useStale } from "@/stream/hooks";
import { useView } from "@/stream/views";

import { LimitForm } from "./LimitForm";
import { useTree } from "./Limits";

type TreeNode = Shape<"TreeNode">;
/** With the accounts of which nothing was told lately: its figures are not of now. */
type Level = Shape<"LevelShown"> & { old: string[] };

const minus = (text: string) => (text.startsWith("-") ? text.slice(1) : `-${text}`);

const columns: Column<Level>[] = [
  { id: "scope", header: "Level", value: (level) => level.scope, width: 170 },
  {
    id: "state", header: "State", value: (level) => (level.blocked.length ? "reached" : level.old.length ? "old" : "ok"), width: 110,
    cell: (level) =>
      level.blocked.length ? (
        <StateBadge state="breached" label="reached" reason={level.blocked.map((each) => `${each.kind}: ${each.value ?? "?"} of ${each.limit ?? "?"}`).join("; ")} />
      ) : level.old.length ? (
        <StateBadge state="warning" label="old" reason={`nothing new is known of ${level.old.join(", ")}`} />
      ) : (
        <StateBadge state="ok" />
      ),
  },
  { id: "profit", header: "Profit today", value: (level) => level.profit, kind: "decimal", width: 130, cell: (level) => <Summed value={level.profit} of={level} signed /> },
  {
    id: "loss", header: "Loss limit", value: (level) => level.limits.daily_loss, kind: "decimal", width: 130,
    cell: (level) => (level.limits.daily_loss === undefined ? <span className="muted">none</span> : <Summed value={level.limits.daily_loss} of={level} />),
  },
  { id: "drawdown", header: "Drawdown", value: (level) => level.drawdown, kind: "decimal", width: 130,
    cell: (level) => <Summed value={level.drawdown !== null && signOf(level.drawdown) > 0 ? minus(level.drawdown) : level.drawdown} of={level} signed /> },
  {
    id: "drawdown_limit", header: "Drawdown limit", value: (level) => level.limits.drawdown, kind: "decimal", width: 130,
    cell: (level) => (level.limits.drawdown === undefined ? <span className="muted">none</span> : <Summed value={level.limits.drawdown} of={level} />),
  },
  { id: "risk", header: "Money at risk", value: (level) => level.money_at_risk, kind: "decimal", width: 130, cell: (level) => <Summed value={level.money_at_risk} of={level} /> },
  { id: "gross", header: "Gross", value: (level) => level.gross, kind: "decimal", width: 130, cell: (level) => <Summed value={level.gross} of={level} /> },
  { id: "open", header: "Open orders", value: (level) => level.open_orders, kind: "number", width: 90 },
];

const isOld = (level: Level) => level.old.length > 0;

/** Of each level, the accounts of which nothing was told lately. */
function oldIn(node: TreeNode | undefined, found = new Map<string, string[]>()): Map<string, string[]> {
  if (!node) return found;
  if (!node.instrument) found.set(node.scope, (node.old ?? []).map((each) => each.account ?? "others"));
  for (const each of node.children) oldIn(each, found);
  return found;
}

export function Losses() {
  const isOperator = useIsOperator();
  const [open, setOpen] = useState<Level | null>(null);
  const [editing, setEditing] = useState<{ scope: string; kind: string; value: string; money: string } | null>(null);
  const query = useView({
    path: "risk/exposure",
    queryKey: ["exposure"],
    read: () => expect(api.GET("/v1/risk/exposure", { params: { query: {} } })),
  });
  const tree = useTree().data;
  const rows = useMemo(() => {
    const old = oldIn(tree);
    return (query.data?.levels ?? []).filter((level) => !level.instrument).map((level) => ({ ...level, old: old.get(level.scope) ?? [] }));
  }, [query.data, tree]);
  const isStale = useStale() || query.isError;
  const shown = open ? (rows.find((level) => level.scope === open.scope) ?? open) : null;
  const edit = (scope: string, kind: string, value = "", money = "") => {
    setEditing({ scope, kind, value, money });
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
                  <Button size="compact-sm" variant="default" onClick={() => { edit(shown.scope, "daily_loss", shown.limits.daily_loss, shown.currency); }}>
                    Daily loss of {shown.scope}
                  </Button>
                  <Button size="compact-sm" variant="default" onClick={() => { edit(shown.scope, "drawdown", shown.limits.drawdown, shown.currency); }}>
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
          isOld={isOld}
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
          money={editing.money}
          onClose={() => {
            setEditing(null);
          }}
        />
      ) : null}
    </>
  );
}
