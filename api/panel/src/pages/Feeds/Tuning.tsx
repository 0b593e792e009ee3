/** What a feed takes for a bad tick, when it calls an instrument stale, and which feed stands by for it. */
import { Alert, Button, Code, Group, Select, Stack, Table } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { ProblemError } from "@/api/problem";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { SchemaForm } from "@/components/SchemaForm";
import { useLateFailure } from "@/components/useAct";

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
          <TuningForm
            feed={feed.id}
            tuned={whole}
            onClose={() => {
              setEditing(false);
              void client.invalidateQueries({ queryKey: ["tuning", feed.id] });
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

/** Changes what was seen when it was opened, and nothing else: where somebody was faster, that is shown first. */
function TuningForm(given: { feed: string; tuned: Tuned; onClose: () => void }) {
  const [seen, setSeen] = useState(given.tuned);
  const [start, setStart] = useState(seen.in_force as Values);
  const [typed, setTyped] = useState<Values>({});
  const [newer, setNewer] = useState<Tuned | null>(null);
  const moved = newer ? changes(newer.in_force as Values, seen.in_force as Values) : {};
  return (
    <SchemaForm
      // What is typed is laid over what is newer.
      key={JSON.stringify(start)}
      schema={schemaOf(seen)}
      values={start}
      verb="Save the tuning"
      disabled={newer !== null}
      onCancel={given.onClose}
      onSubmit={async (values) => {
        const changed = changes(values as Values, seen.in_force as Values);
        setTyped(changed);
        try {
          await expect(
            api.PUT("/v1/feeds/{id}/tuning", {
              params: { path: { id: given.feed } },
              body: {
                filter: { ...seen.filter, ...changed.filter },
                freshness: { ...seen.freshness, ...changed.freshness },
                seen: { filter: seen.filter, freshness: seen.freshness },
              },
            }),
          );
        } catch (wrong) {
          if (wrong instanceof ProblemError && wrong.code === "tuning_moved") setNewer(wrong.body.present as Tuned);
          throw wrong;
        }
        given.onClose();
      }}
    >
      {newer ? (
        <Alert color="yellow" variant="light" p="xs" role="alert" title="The tuning has changed since this form was opened">
          {Object.entries(moved).flatMap(([part, values]) =>
            Object.entries(values).map(([name, value]) => (
              <div key={`${part} ${name}`}>
                {part}, {name.replaceAll("_", " ")}: {said((seen.in_force as Values)[part]?.[name])} has become {said(value)}
                {typed[part] && name in typed[part] ? `; you typed ${said(typed[part][name])}` : ""}
              </div>
            )),
          )}
          <Button
            mt={6}
            variant="default"
            onClick={() => {
              const held = newer.in_force as Values;
              setStart(Object.fromEntries(Object.entries(held).map(([part, values]) => [part, { ...values, ...typed[part] }])));
              setSeen(newer);
              setNewer(null);
            }}
          >
            Go on from how it is now
          </Button>
        </Alert>
      ) : null}
    </SchemaForm>
  );
}

const said = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));

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
              <Table.Td className="number">{said(value)}</Table.Td>
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
    mutationFn: async (second: string) => {
      // The page has only counted them.
      const { instruments } = await expect(api.GET("/v1/feeds/{id}", { params }));
      return expect(
        api.PUT("/v1/feeds/{id}/seconds", {
          params,
          body: { seconds: Object.fromEntries(instruments.map((each) => [each, { feed: second }])) },
        }),
      );
    },
    onError: useLateFailure(`The standby of ${feed.id}`),
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
              disabled={!chosen || !feed.instrument_count}
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
