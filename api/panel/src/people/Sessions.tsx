/** Who is signed in where, and an end to it. */
import { Button } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { type Column, DataTable } from "@/components/DataTable";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Ago, Time } from "@/components/values";

type SessionLine = Shape<"SessionShown">;

const NONE: SessionLine[] = [];

/** Sessions of one user, or of everybody. */
export function Sessions(given: { user?: string; own?: boolean; height?: number }) {
  const client = useQueryClient();
  const [dialog, confirm] = useConfirm();
  const { user } = given;
  const sessions = useQuery({
    queryKey: ["sessions", user ?? ""],
    queryFn: () =>
      expect(api.GET("/v1/sessions", { params: { query: { limit: 1_000, ...(user === undefined ? {} : { user }) } } })),
    refetchInterval: 15_000,
  });
  const columns = useMemo<Column<SessionLine>[]>(
    () => [
      ...(user === undefined ? [{ id: "user", header: "User", value: (s: SessionLine) => s.user, width: 90 }] : []),
      { id: "address", header: "Address", value: (s) => s.address, width: 130 },
      { id: "agent", header: "Browser", value: (s) => s.agent, width: 260 },
      { id: "created", header: "Signed in", kind: "time", value: (s) => s.created_at, cell: (s) => <Time at={s.created_at} />, width: 130 },
      { id: "seen", header: "Last active", kind: "time", value: (s) => s.last_seen_at, cell: (s) => <Ago at={s.last_seen_at} />, width: 110 },
      {
        id: "act",
        header: "Act",
        value: () => null,
        width: 100,
        cell: (s) =>
          s.current ? (
            <StateBadge state="ok" label="this one" />
          ) : (
            <Button
              size="compact-xs"
              variant="default"
              aria-label={`End the session of ${s.user} from ${s.address}`}
              onClick={() => {
                confirm({
                  title: "End this session",
                  verb: "End it",
                  danger: true,
                  children: `${s.user} is signed out at ${s.address} at once.`,
                  act: async () => {
                    await expect(api.DELETE("/v1/sessions/{id}", { params: { path: { id: s.id } } }));
                    await client.invalidateQueries({ queryKey: ["sessions"] });
                  },
                });
              }}
            >
              End
            </Button>
          ),
      },
    ],
    [client, confirm, user],
  );
  return (
    <Panel
      title="Sessions"
      flush
      actions={
        given.own ? (
          <Button
            size="compact-xs"
            variant="default"
            onClick={() => {
              confirm({
                title: "End all other sessions",
                verb: "End them",
                danger: true,
                children: "You stay signed in here and nowhere else.",
                act: async () => {
                  await expect(api.DELETE("/v1/sessions"));
                  await client.invalidateQueries({ queryKey: ["sessions"] });
                },
              });
            }}
          >
            End all others
          </Button>
        ) : undefined
      }
    >
      <DataTable
        name="sessions"
        label="Sessions"
        height={given.height ?? 190}
        rows={sessions.data?.items ?? NONE}
        columns={columns}
        rowId={(session) => session.id}
        sort="-seen"
        loading={sessions.isPending}
        error={sessions.error}
        retry={() => void sessions.refetch()}
        stale={sessions.isError}
        empty={{ title: "Nobody is signed in" }}
      />
      {dialog}
    </Panel>
  );
}
