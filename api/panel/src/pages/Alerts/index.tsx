import { Button, SegmentedControl } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Time } from "@/components/values";
import { useIsOperator, useMe } from "@/session/session";
import { useLiveRows } from "@/stream/hooks";

type AlertShown = Shape<"AlertShown">;

const NO_ALERTS: AlertShown[] = [];

export default function Alerts() {
  const client = useQueryClient();
  const me = useMe();
  const operator = useIsOperator();
  const [which, setWhich] = useState<"open" | "all">("open");
  const [busy, setBusy] = useState<string | null>(null);
  const [error, setError] = useState<unknown>(null);
  const alerts = useLiveRows<AlertShown, AlertShown | null>({
    queryKey: ["alerts", "list"],
    read: () =>
      readAll((cursor) => expect(api.GET("/v1/alerts", { params: { query: { limit: 1_000, cursor } } })), 3_000),
    keyOf: (alert) => alert.id,
    topic: "alerts",
    apply: (rows, { key, body }) => {
      if (body === null) rows.remove(key);
      else rows.put(body);
    },
  });
  const shown = useMemo(
    () => (which === "all" ? alerts.rows : alerts.rows.filter((each) => each.acknowledged_at === null)),
    [alerts.rows, which],
  );
  const columns = useMemo<Column<AlertShown>[]>(
    () => [
      { id: "severity", header: "Severity", value: (a) => a.severity, cell: (a) => <StateBadge state={a.severity} />, width: 92 },
      { id: "kind", header: "Kind", value: (a) => a.kind.replaceAll("_", " "), width: 120 },
      { id: "text", header: "What", value: (a) => a.text, width: 380 },
      { id: "subject", header: "About", value: (a) => a.subject, width: 150 },
      { id: "user", header: "User", value: (a) => a.user, width: 80 },
      { id: "account", header: "Account", value: (a) => a.account, width: 90 },
      { id: "algo", header: "Algo", value: (a) => a.algo, width: 90, hidden: true },
      { id: "times", header: "Times", kind: "number", value: (a) => a.times, width: 60 },
      { id: "at", header: "First", kind: "time", value: (a) => a.at, cell: (a) => <Time at={a.at} />, width: 128 },
      { id: "last", header: "Last", kind: "time", value: (a) => a.last_at, cell: (a) => <Time at={a.last_at} />, width: 128 },
      {
        id: "seen",
        header: "Acknowledged",
        value: (a) => a.acknowledged_by,
        width: 130,
        cell: (a) =>
          a.acknowledged_at !== null ? (
            <span title={a.acknowledged_at}>by {a.acknowledged_by}</span>
          ) : operator || a.user === me.user ? (
            <Button
              size="compact-xs"
              variant="default"
              loading={busy === a.id}
              aria-label={`Acknowledge: ${a.text}`}
              onClick={(event) => {
                event.stopPropagation();
                setBusy(a.id);
                setError(null);
                expect(api.POST("/v1/alerts/{id}/acknowledge", { params: { path: { id: a.id } } }))
                  .then(() => client.invalidateQueries({ queryKey: ["alerts"] }))
                  .catch(setError)
                  .finally(() => {
                    setBusy(null);
                  });
              }}
            >
              Acknowledge
            </Button>
          ) : (
            <span className="muted">no</span>
          ),
      },
    ],
    [busy, client, me.user, operator],
  );
  return (
    <Page title="Alerts" note="What somebody should look at">
      <ErrorNote error={error} />
      <Panel title={which === "open" ? "Not acknowledged" : "All alerts"} flush fill>
        <DataTable
          name="alerts"
          label="Alerts"
          rows={alerts.isLoading ? NO_ALERTS : shown}
          columns={columns}
          rowId={(alert) => alert.id}
          sort="-last"
          loading={alerts.isLoading}
          error={alerts.error}
          retry={alerts.refetch}
          stale={alerts.isStale}
          cut={alerts.isCut}
          empty={{ title: which === "open" ? "Nothing is waiting for you" : "No alert so far" }}
          tools={
            <SegmentedControl
              size="xs"
              aria-label="Which alerts"
              value={which}
              onChange={(value) => {
                setWhich(value === "all" ? "all" : "open");
              }}
              data={[
                { value: "open", label: "Open" },
                { value: "all", label: "All" },
              ]}
            />
          }
        />
      </Panel>
    </Page>
  );
}
