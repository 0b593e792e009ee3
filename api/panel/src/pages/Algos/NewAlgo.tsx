import { Checkbox, Drawer, Group, MultiSelect, Select, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { api, expect } from "@/api/client";
import type { Schema } from "@/components/schema";
import { ErrorNote } from "@/components/ErrorNote";
import { readLabels } from "@/components/Labels";
import { SchemaForm } from "@/components/SchemaForm";
import { ProblemError } from "@/api/problem";
import { useAccounts, useFeeds } from "@/trading/read";

import { NodeSelect } from "./commands";
import { isSamePlacement, type Placement, PlacementInputs, USUAL } from "./Placement";

const NO_PARAMETERS: Schema = { type: "object", properties: {} };

/** Adds an algo: a form of ours, and below it the form of the strategy's parameters. */
export function NewAlgo(given: { opened: boolean; onClose: () => void }) {
  return (
    <Drawer opened={given.opened} onClose={given.onClose} position="right" size="lg" title={<strong>Add an algo</strong>}>
      {given.opened ? <Form onClose={given.onClose} /> : null}
    </Drawer>
  );
}

function Form(given: { onClose: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const accounts = useAccounts();
  const feeds = useFeeds();
  const strategies = useQuery({
    queryKey: ["strategies", "all"],
    queryFn: () => expect(api.GET("/v1/strategies", { params: { query: { limit: 1_000 } } })),
    staleTime: 30_000,
  });
  const [id, setId] = useState("");
  const [strategy, setStrategy] = useState<string | null>(null);
  const [account, setAccount] = useState<string | null>(null);
  const [feed, setFeed] = useState<string | null>(null);
  const [instruments, setInstruments] = useState<string[]>([]);
  const [node, setNode] = useState("");
  const [text, setText] = useState("");
  const [placement, setPlacement] = useState<Placement>(USUAL);
  const [start, setStart] = useState(true);
  const [wrong, setWrong] = useState<Record<string, string>>({});
  const [error, setError] = useState<unknown>(null);
  const labels = readLabels(text);
  const chosen = strategies.data?.items.find((each) => each.name === strategy);
  const carried = feeds.data?.items.find((each) => each.id === feed)?.instruments ?? [];

  const create = async (parameters: Record<string, unknown>) => {
    setWrong({});
    setError(null);
    try {
      await expect(
        api.POST("/v1/algos", {
          body: {
            id: id.trim(),
            strategy: strategy ?? "",
            strategy_version: "",
            account: account ?? "",
            feed: feed ?? "",
            instruments,
            parameters,
            node,
            // What nobody changed is left to the server.
            ...(isSamePlacement(placement, USUAL) ? {} : { placement: { ...placement, selector: placement.selector.trim() } }),
            labels: labels ?? {},
            start,
          },
        }),
      );
    } catch (found) {
      setError(found);
      if (found instanceof ProblemError) {
        setWrong(Object.fromEntries(found.fields.map((each) => [each.field.split(".")[0] ?? "", each.detail])));
      }
      throw found;
    }
    await client.invalidateQueries({ queryKey: ["algos"] });
    return id.trim();
  };
  return (
    <>
      <ErrorNote error={strategies.error ?? feeds.error} />
      <SchemaForm
        // Another strategy is another form.
        key={strategy ?? ""}
        schema={(chosen?.parameters as Schema | undefined) ?? NO_PARAMETERS}
        prefix="parameters"
        verb={start ? "Add and start" : "Add"}
        onSubmit={create}
        onDone={(made) => void navigate(`/algos/${encodeURIComponent(made)}`)}
        onCancel={given.onClose}
        disabled={!id.trim() || !strategy || !account || !feed || !instruments.length || !labels}
      >
        <Stack gap="sm">
          <Group grow align="flex-start">
            <TextInput label="Name" description="Lower case, digits and -" required data-autofocus value={id} error={wrong.id} onChange={(event) => { setId(event.currentTarget.value); }} />
            <Select label="Strategy" description={chosen ? (chosen.builtin ? "built in" : `version ${chosen.version.slice(0, 8)}`) : "its newest version"} required searchable data={(strategies.data?.items ?? []).map((each) => each.name)} value={strategy} error={wrong.strategy ?? wrong.strategy_version} onChange={setStrategy} />
          </Group>
          <Group grow align="flex-start">
            <Select label="Account" required searchable data={accounts.map(({ id: value, user }) => ({ value, label: `${value} (${user})` }))} value={account} error={wrong.account} onChange={setAccount} />
            <Select label="Feed" required data={(feeds.data?.items ?? []).map((each) => each.id)} value={feed} error={wrong.feed} onChange={(value) => { setFeed(value); setInstruments([]); }} />
          </Group>
          <MultiSelect size="xs" label="Instruments" description={feed ? "those that the feed carries" : "choose the feed first"} required searchable limit={100} data={carried} value={instruments} error={wrong.instruments} onChange={setInstruments} hidePickedOptions />
          <Group grow align="flex-start">
            <NodeSelect value={node} onChange={setNode} error={wrong.node} />
            <TextInput label="Labels" placeholder="desk=alpha, risk=low" value={text} error={labels ? wrong.labels : "Write key=value, key=value"} onChange={(event) => { setText(event.currentTarget.value); }} />
          </Group>
          <details>
            <summary>Which machines will do, and how much it may take</summary>
            <Stack gap="sm" mt="xs">
              <PlacementInputs value={placement} onChange={setPlacement} error={error} />
            </Stack>
          </details>
          <Checkbox label="Start it at once" checked={start} onChange={(event) => { setStart(event.currentTarget.checked); }} />
        </Stack>
      </SchemaForm>
    </>
  );
}
