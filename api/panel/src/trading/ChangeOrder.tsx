/** The form that changes an open order: only what somebody typed, and only on the order that they saw. */
import { Alert, Button, Group, Stack, TextInput } from "@mantine/core";
import { useState } from "react";

import { api, expect } from "@/api/client";
import { ProblemError } from "@/api/problem";
import { ErrorNote } from "@/components/ErrorNote";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useAct } from "@/components/useAct";
import { Quantity } from "@/components/values";

import type { Order } from "./read";

const FIELDS = [
  ["quantity", "Quantity, filled part included"],
  ["limit_price", "Limit price"],
  ["stop_price", "Stop price"],
  ["trail_price", "Trails by"],
  ["trail_percent", "Trails by, percent"],
] as const;
/** What else may have happened to it while the form was open. */
const TOLD = [["filled_quantity", "Filled"], ["state", "State"]] as const;

export function ChangeOrder(given: { order: Order; onDone: () => void; onMoved: () => void }) {
  const { order } = given;
  // The order as it was when the form was opened, or last looked at: what is typed is meant against this.
  const [seen, setSeen] = useState(order);
  const [typed, setTyped] = useState<Record<string, string>>({});
  const { busy, error, run, forget } = useAct(`Changing order ${order.client_order_id}`);
  const shown = FIELDS.filter(([name]) => seen[name] !== null);
  const body: Record<string, string> = {};
  for (const [name] of shown) {
    const text = typed[name]?.trim();
    if (text !== undefined && text !== seen[name]) body[name] = text;
  }
  const moved = order.updated_at !== seen.updated_at;
  const changes = [...FIELDS, ...TOLD].filter(([name]) => order[name] !== seen[name]);
  const act = async () => {
    const path = { account: order.account, client_order_id: order.client_order_id };
    try {
      await expect(
        api.PATCH("/v1/orders/{account}/{client_order_id}", { params: { path }, body: { ...body, seen: seen.updated_at } }),
      );
    } catch (wrong) {
      if (wrong instanceof ProblemError && wrong.code === "order_moved") given.onMoved();
      throw wrong;
    }
  };
  return (
    <form
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!moved && Object.keys(body).length) void run(act, given.onDone);
      }}
    >
      <Stack gap="xs">
        <Group grow align="flex-start">
          {shown.map(([name, label]) => (
            <TextInput
              key={name}
              label={label}
              inputMode="decimal"
              disabled={busy}
              value={typed[name] ?? seen[name] ?? ""}
              error={errorAt(error, name)}
              onChange={(event) => {
                setTyped({ ...typed, [name]: event.currentTarget.value });
              }}
            />
          ))}
        </Group>
        {moved ? (
          <Alert color="yellow" variant="light" p="xs" role="alert" title="The order has changed since this form was opened">
            {changes.map(([name, label]) => (
              <div key={name}>
                {label}: <Said value={seen[name]} /> has become <Said value={order[name]} />
              </div>
            ))}
            {changes.length ? null : <div>Something is asked of the broker already: see what happened, below.</div>}
            <Button
              mt={6}
              variant="default"
              onClick={() => {
                setSeen(order);
                forget();
              }}
            >
              Go on from how it is now
            </Button>
          </Alert>
        ) : isAboutNone(error, shown.map(([name]) => name)) ? (
          <ErrorNote error={error} />
        ) : null}
        <Group justify="flex-end">
          <Button type="submit" loading={busy} disabled={moved || !Object.keys(body).length}>
            Ask the broker to change it
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** A quantity or a price, or a state's name. */
function Said({ value }: { value: string | null }) {
  return value !== null && /^[-\d]/.test(value) ? <Quantity value={value} /> : <span>{(value ?? "none").replaceAll("_", " ")}</span>;
}
