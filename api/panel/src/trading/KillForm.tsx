/** Throwing the kill switch: what, whether to close positions, why. */
import { Autocomplete, Button, Checkbox, Group, Select, Stack, Text } from "@mantine/core";
import { IconShieldHalf } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { useIsOperator, useMe } from "@/session/session";

import { readAlgos, useAccounts } from "./read";

export type Kill = Shape<"KillShown">;

const REASONS = ["Prices look wrong", "An algo runs away", "The broker misbehaves", "Losses too large", "Drill"];

export function KillForm(given: { scope?: string; onThrown: (kill: Kill) => void }) {
  const me = useMe();
  const operator = useIsOperator();
  const accounts = useAccounts();
  const algos = useQuery({ queryKey: ["algos", "names"], queryFn: readAlgos, staleTime: 30_000 });
  const usual = given.scope ?? (operator ? "cluster" : `user:${me.user}`);
  const [scope, setScope] = useState(usual);
  const [flatten, setFlatten] = useState(false);
  const [reason, setReason] = useState("");
  const [dialog, confirm] = useConfirm();

  const scopes = useMemo(() => {
    const users = [...new Set([me.user, ...accounts.map((each) => each.user)])].sort();
    return [
      ...(operator ? [{ group: "Everything", items: [{ value: "cluster", label: "The whole cluster" }] }] : []),
      { group: "Users", items: users.map((each) => ({ value: `user:${each}`, label: `User ${each}` })) },
      { group: "Accounts", items: accounts.map(({ id }) => ({ value: `account:${id}`, label: `Account ${id}` })) },
      { group: "Algos", items: (algos.data?.items ?? []).map(({ id }) => ({ value: `algo:${id}`, label: `Algo ${id}` })) },
    ];
  }, [accounts, algos.data, me.user, operator]);
  const words = scope === "cluster" ? "the whole cluster" : scope.replace(":", " ");
  const act = async () => {
    const kill = await expect(
      api.POST("/v1/risk/kill", { params: { query: { wait_s: 2 } }, body: { scope, flatten, reason: reason.trim() } }),
    );
    setScope(usual);
    setFlatten(false);
    setReason("");
    given.onThrown(kill);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        confirm({
          title: `Stop ${words}`,
          verb: flatten ? "Stop and close positions" : "Stop trading",
          danger: true,
          act,
          children: (
            <>
              <Text>
                Trading of <strong>{words}</strong> is halted at once, every open order is taken back and its algos are
                stopped. {flatten ? "All its positions are closed at the market." : "Positions stay as they are."}
              </Text>
              <Text mt="xs">It stays halted until somebody lifts it.</Text>
            </>
          ),
        });
      }}
    >
      <Stack gap="sm" maw={560}>
        <Select
          label="What to stop"
          searchable
          data={scopes}
          value={scope}
          onChange={(value) => {
            if (value) setScope(value);
          }}
        />
        <Autocomplete
          size="xs"
          label="Reason"
          required
          maxLength={500}
          data={REASONS}
          value={reason}
          onChange={setReason}
          // Never over the button.
          comboboxProps={{ position: "top" }}
        />
        <Checkbox
          label="Close positions at the market too"
          checked={flatten}
          onChange={(event) => {
            setFlatten(event.currentTarget.checked);
          }}
        />
        <Group>
          <Button
            type="submit"
            size="md"
            color="red.9"
            disabled={!reason.trim()}
            leftSection={<IconShieldHalf size={18} aria-hidden />}
          >
            Stop {words}
          </Button>
        </Group>
      </Stack>
      {dialog}
    </form>
  );
}
