/** Where an algo may run and how much it may take; and the dialog that changes this, and its labels. */
import { Button, Group, Modal, NumberInput, Select, SimpleGrid, Stack, Text, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { labelsText, readLabels } from "@/components/Labels";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useAct } from "@/components/useAct";
import type { Algo } from "@/trading/read";

import { APPLIED } from "./algos";

export type Placement = Shape<"PlacementShown">;

/** As the server has it for who says nothing. */
export const USUAL: Placement = {
  selector: "", packing: "spread", apart: "no", cpus: 0.05, memory_mb: 512, cpu_limit: 0.9, over_cpu: "nice",
};

const NAMES = Object.keys(USUAL) as (keyof Placement)[];
/** What the server may call a field: by itself, or as a part of the body. */
export const PLACEMENT_FIELDS = [...NAMES, ...NAMES.map((each) => `placement.${each}`)];

export function PlacementInputs(given: { value: Placement; onChange: (value: Placement) => void; error: unknown }) {
  const { value, error } = given;
  const set = (change: Partial<Placement>) => {
    given.onChange({ ...value, ...change });
  };
  const wrong = (name: keyof Placement) => errorAt(error, name) ?? errorAt(error, `placement.${name}`);
  return (
    <>
      <TextInput label="On machines with these labels" description="Such as region=eu, ssd, !spot, zone in (a, b); empty: any" autoComplete="off" maxLength={2_000} value={value.selector} error={wrong("selector")} onChange={(event) => { set({ selector: event.currentTarget.value }); }} />
      <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
        <Select label="Of several that fit" allowDeselect={false} data={[{ value: "spread", label: "the emptiest" }, { value: "pack", label: "the fullest that has room" }]} value={value.packing} error={wrong("packing")} onChange={(next) => { set({ packing: next === "pack" ? "pack" : "spread" }); }} />
        <Select label="Away from other algos of its account" allowDeselect={false} data={[{ value: "no", label: "no matter" }, { value: "prefer", label: "where possible" }, { value: "require", label: "always: it waits otherwise" }]} value={value.apart} error={wrong("apart")} onChange={(next) => { set({ apart: (next ?? "no") as Placement["apart"] }); }} />
        <NumberInput label="Needs, cores" min={0.01} max={256} step={0.05} value={value.cpus} error={wrong("cpus")} onChange={(next) => { set({ cpus: Number(next) }); }} />
        <NumberInput label="Needs, memory in MiB" description="It is ended where it takes more" min={64} max={1_048_576} step={64} allowDecimal={false} value={value.memory_mb} error={wrong("memory_mb")} onChange={(next) => { set({ memory_mb: Number(next) }); }} />
        <NumberInput label="At most, cores for long" min={0.01} max={256} step={0.1} value={value.cpu_limit} error={wrong("cpu_limit")} onChange={(next) => { set({ cpu_limit: Number(next) }); }} />
        <Select label="Where it takes more cores" allowDeselect={false} data={[{ value: "nice", label: "it gets what others leave" }, { value: "end", label: "it is ended" }]} value={value.over_cpu} error={wrong("over_cpu")} onChange={(next) => { set({ over_cpu: next === "end" ? "end" : "nice" }); }} />
      </SimpleGrid>
    </>
  );
}

export function isSamePlacement(a: Placement, b: Placement): boolean {
  return NAMES.every((name) => (name === "selector" ? a.selector.trim() === b.selector.trim() : a[name] === b[name]));
}

/** Changes labels and placement of an algo; sends only what was changed. */
export function EditPlacement(given: { algo: Algo; onClose: () => void }) {
  // As it was when the dialog was opened: what others change meanwhile must not be overwritten unseen.
  const [algo] = useState(given.algo);
  const client = useQueryClient();
  const [text, setText] = useState(labelsText(algo.labels));
  const [placement, setPlacement] = useState<Placement>(algo.placement);
  const { busy, error, run } = useAct(`Changing ${algo.id}`);
  const labels = readLabels(text);
  const relabels = labels !== null && labelsText(labels) !== labelsText(algo.labels);
  const moves = !isSamePlacement(placement, algo.placement);
  const restarts = moves && algo.want === "running" && algo.state !== "failed";
  const save = async () => {
    const changed = await expect(
      api.PATCH("/v1/algos/{id}", {
        params: { path: { id: algo.id } },
        body: {
          generation: algo.generation,
          ...(relabels ? { labels } : {}),
          ...(moves ? { placement: { ...placement, selector: placement.selector.trim() } } : {}),
        },
      }),
    );
    void client.invalidateQueries({ queryKey: ["algo", algo.id] });
    void client.invalidateQueries({ queryKey: ["algos"] });
    notifications.show({ title: `${algo.id} changed`, message: moves ? APPLIED[changed.applied ?? "unchanged"] : "The labels hold from now on." });
  };
  return (
    <Modal opened onClose={given.onClose} size="lg" title={<strong>Labels and placement of {algo.id}</strong>}>
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (labels && (relabels || moves)) void run(save, given.onClose);
        }}
      >
        <Stack gap="sm">
          <TextInput label="Labels" description="Such as desk=alpha, risk=low: commands to many algos choose by them. They hold at once" autoComplete="off" data-autofocus value={text} error={labels ? errorAt(error, "labels") : "Write key=value, key=value"} onChange={(event) => { setText(event.currentTarget.value); }} />
          <PlacementInputs value={placement} onChange={setPlacement} error={error} />
          <Text c="dimmed">
            {algo.node ? `It is pinned to ${algo.node}, which must fit what is asked here; Move pins it elsewhere or nowhere. ` : ""}
            Where no machine fits it waits, and its state says why.
          </Text>
          {restarts ? (
            <Text role="status">
              It runs: with another placement it stops in order at once, and goes on from its snapshot, on another machine if need be.
            </Text>
          ) : null}
          {isAboutNone(error, ["labels", ...PLACEMENT_FIELDS]) ? <ErrorNote error={error} /> : null}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={given.onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} disabled={!labels || !(relabels || moves)}>
              {restarts ? "Save and restart it" : "Save"}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
