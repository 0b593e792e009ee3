/**
 * Set one limit. It holds at once; a session that has less room than it uses may then only reduce. One that allows more
 * than what is in force when the button is pressed is confirmed first; nothing is set over what somebody has set since.
 */
import { Button, Group, Modal, Select, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import { type Confirmation, useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentInput } from "@/components/InstrumentInput";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useAct } from "@/components/useAct";
import { isDecimal } from "@/format/decimal";

import { type Asked, type Kind, NO_NUMBER, whatBecomesPossible } from "./raising";

export function LimitForm(given: {
  scope: string;
  instrument: string;
  kind?: string;
  value?: string;
  /** Of the level that it is opened from, in words; "" where it is not known. */
  money?: string;
  onClose: () => void;
}) {
  const client = useQueryClient();
  const isNew = given.kind === undefined;
  const [scope, setScope] = useState(given.scope);
  const [kind, setKind] = useState<string | null>(given.kind ?? null);
  const [instrument, setInstrument] = useState<string | null>(given.instrument || null);
  const [value, setValue] = useState(given.value ?? "");
  const kinds = useQuery({ queryKey: ["limit-kinds"], queryFn: () => expect(api.GET("/v1/risk/kinds")), staleTime: Infinity });
  const level = scope.split(":")[0] ?? "";
  const fits = (kinds.data ?? []).filter((each) => each.levels.includes(level) && each.kind !== "paused");
  const chosen = fits.find((each) => each.kind === kind);
  const [dialog, confirm] = useConfirm();
  const unit = chosen ? (chosen.unit === "money" && scope === given.scope ? given.money || chosen.unit : chosen.unit) : "";
  const put = async (asked: Asked, seen: string | null) => {
    try {
      await expect(api.PUT("/v1/risk/limits", { body: { ...asked, seen } }));
    } finally {
      void client.invalidateQueries({ queryKey: ["limit-tree"] });
    }
  };
  const { busy, error, run } = useAct(isNew ? "Setting a limit" : "Changing a limit");
  const isNumber = isDecimal(value);
  const set = async (kindOf: Kind & { instrument: string }) => {
    const asked = { scope: scope.trim(), kind: kind ?? "", instrument: kindOf.instrument === "no" ? "" : (instrument ?? ""), value: value.trim() };
    const held = await inForce(asked);
    const words = whatBecomesPossible(asked, kindOf, held, unit);
    if (words === null) {
      await put(asked, held);
      return null;
    }
    return {
      title: `Allow more: ${asked.kind.replaceAll("_", " ")} of ${asked.scope}`,
      verb: "Allow it",
      danger: true,
      children: words.map((each) => <p key={each}>{each}</p>),
      act: async () => {
        await put(asked, held);
        given.onClose();
      },
    };
  };
  const done = (question: Confirmation | null) => {
    if (question) confirm(question);
    else given.onClose();
  };
  return (
    <Modal opened onClose={given.onClose} title={<strong>{isNew ? "Set a limit" : "Change a limit"}</strong>}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          // Without what its kind means nobody can say whether it allows more.
          if (chosen && isNumber) void run(() => set(chosen), done);
        }}
      >
        <Stack gap="sm">
          <TextInput
            label="Level"
            description="cluster, user:<id>, account:<id> or algo:<id>"
            required
            readOnly={!isNew}
            value={scope}
            error={errorAt(error, "scope")}
            onChange={(event) => {
              setScope(event.currentTarget.value);
            }}
          />
          <Select
            label="Limit"
            required
            readOnly={!isNew}
            data={fits.map((each) => ({ value: each.kind, label: `${each.kind.replaceAll("_", " ")} (${each.unit})` }))}
            value={kind}
            onChange={setKind}
            description={chosen ? `Bounds ${chosen.bounds}` : undefined}
            error={errorAt(error, "kind")}
          />
          {chosen && chosen.instrument !== "no" ? (
            isNew ? (
              <InstrumentInput
                label={chosen.instrument === "must" ? "Instrument" : "Instrument (empty: each of them)"}
                value={instrument}
                onChange={setInstrument}
                error={errorAt(error, "instrument")}
              />
            ) : (
              <TextInput label="Instrument" readOnly value={instrument ?? "each of them"} />
            )
          ) : null}
          <TextInput
            label={chosen ? `Value (${unit})` : "Value"}
            required
            data-autofocus
            inputMode="decimal"
            autoComplete="off"
            value={value}
            error={value.trim() && !isNumber ? NO_NUMBER : errorAt(error, "value")}
            onChange={(event) => {
              setValue(event.currentTarget.value);
            }}
          />
          <ErrorNote error={kinds.error} retry={() => void kinds.refetch()} />
          {isAboutNone(error, ["scope", "kind", "instrument", "value"]) ? <ErrorNote error={error} /> : null}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={given.onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} disabled={!chosen || !isNumber}>
              {isNew ? "Set the limit" : "Change the limit"}
            </Button>
          </Group>
        </Stack>
      </form>
      {dialog}
    </Modal>
  );
}

/** The value in force now, whatever the page shows; null without one. */
async function inForce(asked: Asked): Promise<string | null> {
  const { items } = await readAll((cursor) => expect(api.GET("/v1/risk/limits", { params: { query: { limit: 1_000, cursor } } })));
  return items.find((each) => each.scope === asked.scope && each.kind === asked.kind && each.instrument === asked.instrument)?.value ?? null;
}
