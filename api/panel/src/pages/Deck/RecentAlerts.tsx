import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "react-router";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Ago } from "@/components/values";
import { useChanges, useStale } from "@/stream/hooks";

/** The newest alerts that nobody has looked at. */
export function RecentAlerts(given: { className: string }) {
  const client = useQueryClient();
  const alerts = useQuery({
    queryKey: ["alerts", "recent"],
    queryFn: () => expect(api.GET("/v1/alerts", { params: { query: { open: true, limit: 8 } } })),
    refetchInterval: 30_000,
  });
  useChanges("alerts", () => {
    void client.invalidateQueries({ queryKey: ["alerts", "recent"] });
  });
  const isStale = useStale() || alerts.isError;
  const items = alerts.data?.items ?? [];
  return (
    <Panel title="Needs a look" className={given.className} actions={<Link to="/alerts">all alerts</Link>} stale={isStale}>
      {alerts.isError && !items.length ? <ErrorNote error={alerts.error} retry={() => void alerts.refetch()} /> : null}
      {alerts.isSuccess && !items.length ? <StateBadge state="ok" label="Nothing is waiting for you" /> : null}
      {/* Scrolled by the keyboard too. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <ul tabIndex={items.length ? 0 : -1} aria-label="Open alerts" style={{ listStyle: "none", margin: 0, padding: 0, maxHeight: 244, overflowY: "auto" }}>
        {items.map((each) => (
          <li key={each.id} style={{ padding: "3px 0", borderBottom: "1px solid var(--qd-line)" }}>
            <StateBadge state={each.severity} label={each.kind.replaceAll("_", " ")} />{" "}
            <span className="muted">
              {each.subject} · <Ago at={each.last_at} />
              {each.times > 1 ? `, ${String(each.times)} times` : ""}
            </span>
            <div className="ellipsis" title={each.text}>
              {each.text}
            </div>
          </li>
        ))}
      </ul>
    </Panel>
  );
}
