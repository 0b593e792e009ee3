/** When trading counts as unusual: the deck's terms, those of accounts on top of them, and who changed them. */
import { Alert, Button, Group, Select, Skeleton } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { ProblemError } from "@/api/problem";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { SchemaForm } from "@/components/SchemaForm";
import type { Schema } from "@/components/schema";
import { Time } from "@/components/values";

type Terms = Shape<"TermsShown">;
type Entry = Shape<"AuditShown">;
type Values = Record<string, number>;

const QUERY = ["surveillance-terms"];
const NONE: Entry[] = [];
const DECK = "the deck";

/** What each of the server's terms means; one that is new there is shown by its name. */
const MEANING: Record<string, string> = {
  enough_orders: "Orders that make a habit: before, sizes are not judged",
  memory: "After twice so many orders the old ones count half",
  spreads: "An order is large from so many spreads above the usual size",
  times: "… and from so many times the usual size",
  share: "Any order is large from this part of the account's equity on",
  critical_share: "… and critical from this part on",
  enough_days: "Days somebody must have been seen before an hour is unusual",
  memory_days: "Days after which the old ones count half",
  flips: "Turns from long to short, or back, within the time below",
  flips_s: "That time, in seconds",
  cancels: "Orders taken back within the time below",
  cancels_s: "That time, in seconds",
  above_usual: "… and so many times the usual number of either",
};

const HISTORY: Column<Entry>[] = [
  { id: "at", header: "At", value: (entry) => entry.at, kind: "time", width: 150, cell: (entry) => <Time at={entry.at} /> },
  { id: "actor", header: "Who", value: (entry) => entry.actor, width: 110 },
  { id: "subject", header: "Of", value: (entry) => (entry.subject === "deck" ? DECK : entry.subject), width: 120 },
  { id: "change", header: "What", value: (entry) => inWords(entry), width: 520 },
];

export function Surveillance() {
  const query = useQuery({
    queryKey: QUERY,
    queryFn: () => expect(api.GET("/v1/surveillance/terms")),
    refetchInterval: 15_000,
  });
  const accounts = useQuery({
    queryKey: ["accounts", "names"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/accounts", { params: { query: { limit: 1_000, cursor } } }))),
  });
  const [editing, setEditing] = useState<Terms | null>(null);
  const { data } = query;
  const deck = data?.find((each) => each.account === null);
  if (!data || !deck) return query.error ? <ErrorNote error={query.error} retry={() => void query.refetch()} /> : <Skeleton height={220} />;
  const own = data.filter((each) => each.account !== null);
  const others = (accounts.data?.items ?? []).map((each) => each.id).filter((id) => own.every((each) => each.account !== id));
  const edit = (terms: Terms) => () => {
    setEditing(terms);
  };
  return (
    <>
      <Panel
        title="When trading counts as unusual"
        flush
        stale={query.isError}
        actions={
          <Select
            aria-label="Give an account terms of its own"
            placeholder="Give an account its own…"
            searchable
            data={others}
            value={null}
            onChange={(account) => {
              if (account) setEditing({ account, set: {}, in_force: deck.in_force, changed_at: null, changed_by: "" });
            }}
          />
        }
      >
        <ErrorNote error={query.error} />
        <div style={{ overflowX: "auto" }}>
          <table className="limits" aria-label="Terms of surveillance">
            <thead>
              <tr>
                <th scope="col">Term</th>
                {data.map((each) => (
                  <th key={each.account ?? ""} scope="col">
                    <Group gap={6} wrap="nowrap">
                      {each.account ?? "The deck"}
                      <Button size="compact-xs" variant="default" aria-label={`Change the terms of ${each.account ?? DECK}`} onClick={edit(each)}>
                        Change
                      </Button>
                    </Group>
                    <span className="muted">
                      {each.changed_at ? <>by {each.changed_by}, <Time at={each.changed_at} /></> : "as they come"}
                    </span>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {Object.keys(deck.in_force).map((name) => (
                <tr key={name}>
                  <th scope="row">
                    {name.replaceAll("_", " ")} <span className="muted">{MEANING[name]}</span>
                  </th>
                  {data.map((each) => (
                    <td key={each.account ?? ""} className="number">
                      {String(each.in_force[name])} {name in each.set ? null : <span className="muted">{each.account ? "as the deck" : "default"}</span>}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Panel>
      {editing ? (
        <TermsForm
          key={editing.account ?? ""}
          terms={editing}
          onClose={() => {
            setEditing(null);
          }}
        />
      ) : null}
      <History />
    </>
  );
}

/** Changes what was set when it was opened; where somebody was faster, that is shown first. */
function TermsForm(given: { terms: Terms; onClose: () => void }) {
  const client = useQueryClient();
  const [seen, setSeen] = useState(given.terms);
  const [start, setStart] = useState<Record<string, unknown>>(seen.set);
  const [typed, setTyped] = useState<Values>({});
  const [newer, setNewer] = useState<Terms | null>(null);
  const { account } = seen;
  const of = account ?? DECK;
  return (
    <Panel title={`Terms of ${of}`}>
      <SchemaForm
        key={JSON.stringify(start)}
        schema={schemaOf(seen)}
        values={start}
        prefix="terms"
        verb={`Set the terms of ${of}`}
        disabled={newer !== null}
        onCancel={given.onClose}
        onSubmit={async (values) => {
          const terms = Object.fromEntries(Object.entries(values).filter(([, value]) => value != null)) as Values;
          setTyped(terms);
          const body = { terms, seen: seen.set };
          try {
            await expect(
              account === null
                ? api.PUT("/v1/surveillance/terms", { body })
                : api.PUT("/v1/surveillance/terms/{account}", { params: { path: { account } }, body }),
            );
          } catch (wrong) {
            if (wrong instanceof ProblemError && wrong.code === "terms_moved") setNewer(wrong.body.present as Terms);
            throw wrong;
          } finally {
            void client.invalidateQueries({ queryKey: QUERY });
          }
          given.onClose();
        }}
      >
        {newer ? (
          <Alert color="yellow" variant="light" p="xs" role="alert" title={`${newer.changed_by || "Somebody"} has changed the terms since`}>
            {differences(seen.set, newer.set).map((each) => (
              <div key={each}>{each}</div>
            ))}
            <Button
              mt={6}
              variant="default"
              onClick={() => {
                setStart(laidOver(newer.set, seen.set, typed));
                setSeen(newer);
                setNewer(null);
              }}
            >
              Go on from how they are now
            </Button>
          </Alert>
        ) : (
          <span className="muted">An empty field is {account === null ? "the default" : "as the deck has it"}. They hold within seconds, for what comes then.</span>
        )}
      </SchemaForm>
    </Panel>
  );
}

function History() {
  const query = useQuery({
    queryKey: [...QUERY, "history"],
    queryFn: () =>
      readAll((cursor) => expect(api.GET("/v1/audit", { params: { query: { action: "set_surveillance_terms", limit: 500, cursor } } })), 1_000),
  });
  const rows = useMemo(() => query.data?.items ?? NONE, [query.data]);
  return (
    <Panel title="Who changed them" flush>
      <DataTable
        name="surveillance-history" label="Changes of surveillance's terms" height={200} rows={rows} columns={HISTORY}
        rowId={(entry) => String(entry.number)} sort="-at" loading={query.isLoading} error={query.error}
        retry={() => void query.refetch()} cut={query.data ? !query.data.whole : false} empty={{ title: "Nobody has changed them" }}
      />
    </Panel>
  );
}

/** Every term may be left empty; the hint says what is in force without it. */
function schemaOf(terms: Terms): Schema {
  return {
    type: "object",
    properties: Object.fromEntries(
      Object.entries(terms.in_force).map(([name, value]) => [
        name,
        {
          type: ["number", "null"],
          title: name.replaceAll("_", " "),
          description: [MEANING[name], `in force: ${String(value)}`].filter(Boolean).join(" · "),
        },
      ]),
    ),
  };
}

/** What was typed, where it differs from what was seen, over what is newer. */
export function laidOver(newer: Values, seen: Values, typed: Values): Values {
  const found = { ...newer };
  for (const name of new Set([...Object.keys(seen), ...Object.keys(typed)])) {
    if (seen[name] === typed[name]) continue;
    if (typed[name] === undefined) Reflect.deleteProperty(found, name);
    else found[name] = typed[name];
  }
  return found;
}

/** In words, what is other in `after`. */
export function differences(before: Values, after: Values): string[] {
  const said = (value: number | undefined) => (value === undefined ? "not set" : String(value));
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((name) => before[name] !== after[name])
    .map((name) => `${name.replaceAll("_", " ")}: ${said(before[name])} → ${said(after[name])}`);
}

const inWords = (entry: Entry): string =>
  differences((entry.before ?? {}) as Values, (entry.after ?? {}) as Values).join(", ") || "nothing";
