/** Join tokens that may still be used, and those that were. */
import { Button } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { type Column, DataTable } from "@/components/DataTable";
import { labelsText } from "@/components/Labels";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Ago, Time, useNow } from "@/components/values";
import { instant } from "@/format/time";

type Token = Shape<"JoinTokenShown">;

function stateOf(token: Token, now: number): string {
  if (token.revoked_at) return "revoked";
  if (token.used_at) return "used";
  return instant(token.expires_at) <= now ? "expired" : "open";
}

export function Tokens() {
  const client = useQueryClient();
  const [dialog, confirm] = useConfirm();
  const now = useNow();
  const query = useQuery({
    queryKey: ["join-tokens"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/nodes/tokens", { params: { query: { limit: 1000, cursor } } }))),
    refetchInterval: 15_000,
  });
  const columns = useMemo<Column<Token>[]>(
    () => [
      { id: "node", header: "For", value: (token) => token.node || "any machine", width: 130 },
      { id: "state", header: "State", value: (token) => stateOf(token, Date.now()), width: 90,
        cell: (token) => <StateBadge state={stateOf(token, Date.now())} /> },
      { id: "labels", header: "Labels", value: (token) => labelsText(token.labels), width: 180 },
      { id: "secrets", header: "With secrets", value: (token) => token.with_secrets, kind: "flag", width: 90,
        cell: (token) => (token.with_secrets ? "yes" : "no") },
      { id: "by", header: "Made by", value: (token) => token.created_by, width: 100 },
      { id: "expires", header: "Expires", value: (token) => token.expires_at, kind: "time", width: 120,
        cell: (token) => <Ago at={token.expires_at} ahead /> },
      { id: "used", header: "Used", value: (token) => token.used_at, kind: "time", width: 130, cell: (token) => <Time at={token.used_at} /> },
      {
        id: "act", header: "Action", value: () => null, width: 96,
        cell: (token) =>
          stateOf(token, Date.now()) === "open" ? (
            <Button
              size="compact-xs"
              variant="default"
              onClick={(event) => {
                event.stopPropagation();
                confirm({
                  title: `Revoke the join token for ${token.node || "any machine"}`,
                  children: `Made by ${token.created_by}. No machine can join with it any more, and machines that have joined with it leave the cluster.`,
                  verb: "Revoke",
                  danger: true,
                  act: async () => {
                    await expect(api.DELETE("/v1/nodes/tokens/{id}", { params: { path: { id: token.id } } }));
                    await client.invalidateQueries({ queryKey: ["join-tokens"] });
                  },
                });
              }}
            >
              Revoke
            </Button>
          ) : null,
      },
    ],
    [client, confirm],
  );
  const open = (query.data?.items ?? []).filter((token) => stateOf(token, now) === "open");
  if (!query.data?.items.length && !query.error) return null;
  return (
    <Panel title={`Join tokens (${String(open.length)} open)`} flush>
      {dialog}
      <DataTable
        name="join-tokens"
        label="Join tokens"
        rows={query.data?.items ?? []}
        columns={columns}
        rowId={(token) => token.id}
        sort="-expires"
        height={150}
        error={query.error}
        stale={query.isError}
        retry={() => void query.refetch()}
      />
    </Panel>
  );
}
