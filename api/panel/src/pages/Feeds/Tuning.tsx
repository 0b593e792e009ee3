/** What a feed takes for a bad tick, when it calls an instrument stale, and which feed stands by for it. */
import { Button, Code, Group, Select, Stack, Table } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { SchemaForm } from "@/components/SchemaForm";

import type { Feed } from "./feed";

type Tuned = Shape<"TuningShown">;

export function Tuning(given: { feed: Feed; mayManage: boolean }) {
  const { feed } = given;
  const client = useQueryClient();
  const query = useQuery({
    queryKey: ["tuning", feed.id],
    queryFn: () => expect(api.GET("/v1/feeds/{id}/tuning", { params: { path: { id: feed.id } } })),
  });
  const [editing, setEditing] = useState(false);
  const whole = query.data?.find((each) => each.instrument === null);
  const single = (query.data ?? []).filter((each) => each.instrument !== null);
  return (
    <div className="columns" style={{ paddingTop: 8 }}>
      <Panel
        title="Tuning"
        className="span-7"
        actions={
          given.mayManage ? (
            <Button
              variant="default"
              size="compact-xs"
              onClick={() => {
                setEditing(!editing);
              }}
            >
              {editing ? "Close" : "Change"}
            </Button>
          ) : undefined
        }
      >
        <ErrorNote error={query.error} retry={() => void query.refetch()} />
        {whole && !editing ? <InForce tuned={whole} /> : null}
        {whole && editing ? (
          <SchemaForm
            schema={schemaOf(whole)}
            values={whole.in_force}
            verb="Save the tuning"
            onCancel={() => {
              setEditing(false);
            }}
            onSubmit={async (values) => {
              const changed = changes(values as Values, whole.in_force as Values);
              await expect(
                api.PUT("/v1/feeds/{id}/tuning", {
                  params: { path: { id: feed.id } },
                  body: { filter: { ...whole.filter, ...changed.filter }, freshness: { ...whole.freshness, ...changed.freshness } },
                }),
              );
              setEditing(false);
              await client.invalidateQueries({ queryKey: ["tuning", feed.id] });
            }}
          />
        ) : null}
        {single.length ? (
          <>
            <h3>Instruments with a tuning of their own</h3>
            {single.map((each) => (
              <div key={each.instrument}>
                <Code>{each.instrument}</Code> <span className="mono wrap">{JSON.stringify({ ...each.filter, ...each.freshness })}</span>
              </div>
            ))}
          </>
        ) : null}
      </Panel>
      <Standby feed={feed} mayManage={given.mayManage} />
    </div>
  );
}

type Values = Record<string, Record<string, unknown>>;

/** What differs from what holds now, so that a default that changes later still counts. */
export function changes(given: Values, held: Values): Values {
  const found: Values = {};
  for (const [part, values] of Object.entries(given)) {
    found[part] = Object.fromEntries(
      Object.entries(values).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(held[part]?.[name])),
    );
  }
  return found;
}

/** The form's fields are what holds now, by its types. */
function schemaOf(tuned: Tuned) {
  const part = (values: Record<string, unknown>) => ({
    type: "object",
    properties: Object.fromEntries(
      Object.entries(values).map(([name, value]) => [
        name,
        {
          title: name.replaceAll("_", " "),
          ...(Array.isArray(value)
            ? { type: "array", items: { type: "string" } }
            : { type: typeof value === "number" ? "number" : typeof value === "boolean" ? "boolean" : "string" }),
        },
      ]),
    ),
  });
  return {
    type: "object",
    properties: Object.fromEntries(Object.entries(tuned.in_force).map(([name, values]) => [name, { title: name, ...part(values) }])),
  };
}

function InForce(given: { tuned: Tuned }) {
  return (
    <Table>
      <Table.Tbody>
        {Object.entries(given.tuned.in_force).flatMap(([part, values]) =>
          Object.entries(values).map(([name, value]) => (
            <Table.Tr key={`${part} ${name}`}>
              <Table.Td className="muted">{part}</Table.Td>
              <Table.Td>{name.replaceAll("_", " ")}</Table.Td>
              <Table.Td className="number">{typeof value === "string" ? value : JSON.stringify(value)}</Table.Td>
            </Table.Tr>
          )),
        )}
      </Table.Tbody>
    </Table>
  );
}

function Standby(given: { feed: Feed; mayManage: boolean }) {
  const { feed } = given;
  const client = useQueryClient();
  const feeds = useQuery({
    queryKey: ["feeds", "names"],
    queryFn: () => expect(api.GET("/v1/feeds", { params: { query: { limit: 1000 } } })),
  });
  const [chosen, setChosen] = useState<string | null>(null);
  const [dialog, confirm] = useConfirm();
  const params = { path: { id: feed.id } };
  const again = () => client.invalidateQueries({ queryKey: ["feed", feed.id] });
  const set = useMutation({
    mutationFn: (second: string) =>
      expect(
        api.PUT("/v1/feeds/{id}/seconds", {
          params,
          body: { seconds: Object.fromEntries(feed.instruments.map((each) => [each, { feed: second }])) },
        }),
      ),
    onSettled: again,
  });
  const clear = useMutation({ mutationFn: () => expect(api.DELETE("/v1/feeds/{id}/seconds", { params })), onSettled: again });
  const seconds = Object.entries(feed.seconds);
  const others = (feeds.data?.items ?? []).map((each) => each.id).filter((each) => each !== feed.id);
  return (
    <Panel title="Standby feed" className="span-5">
      <Stack gap="sm">
        <span className="muted">
          Where an instrument falls silent here, the standby&apos;s ticks are taken until it is back.
        </span>
        {seconds.length ? (
          <ul style={{ margin: 0, paddingInlineStart: 18, maxHeight: 220, overflow: "auto" }}>
            {seconds.map(([instrument, second]) => (
              <li key={instrument}>
                {instrument}: {second.feed}
                {second.instrument === instrument ? "" : ` as ${second.instrument}`}
              </li>
            ))}
          </ul>
        ) : (
          <span>None stands by.</span>
        )}
        {given.mayManage ? (
          <Group align="end" gap="xs">
            <Select label="Feed that stands by for all instruments" data={others} value={chosen} onChange={setChosen} />
            <Button
              disabled={!chosen || !feed.instruments.length}
              loading={set.isPending}
              onClick={() => {
                if (chosen) set.mutate(chosen);
              }}
            >
              Set
            </Button>
            <Button
              variant="default"
              disabled={!seconds.length}
              loading={clear.isPending}
              onClick={() => {
                confirm({
                  title: `Take the standby of ${feed.id} away`,
                  verb: "Take it away",
                  danger: true,
                  children: "Where an instrument falls silent here, its algos get no prices until it is back.",
                  act: () => clear.mutateAsync(),
                });
              }}
            >
              None…
            </Button>
          </Group>
        ) : null}
        <ErrorNote error={set.error} />
        {dialog}
      </Stack>
    </Panel>
  );
}
