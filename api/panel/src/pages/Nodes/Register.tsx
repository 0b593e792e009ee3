/** A new machine: its name and labels, the command to paste there, and whether it has come. */
import { Alert, Button, Checkbox, Code, CopyButton, Group, Loader, Modal, NumberInput, Stack, Text, TextInput } from "@mantine/core";
import { IconCheck, IconCopy } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { readLabels } from "@/components/Labels";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { useLateFailure } from "@/components/useAct";

import type { Node } from "./node";

export function Register(given: { nodes: Node[]; onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [labels, setLabels] = useState("");
  const [withSecrets, setWithSecrets] = useState(false);
  const [minutes, setMinutes] = useState(60);
  const read = readLabels(labels);
  const made = useMutation({
    mutationFn: () =>
      expect(
        api.POST("/v1/nodes/tokens", {
          body: { node: name.trim(), labels: read ?? {}, with_secrets: withSecrets, pool: false, valid_s: minutes * 60 },
        }),
      ),
    onSuccess: () => client.invalidateQueries({ queryKey: ["join-tokens"] }),
    onError: useLateFailure("Register a machine"),
  });
  const joined = made.data ? given.nodes.find((node) => node.name === made.data.node) : undefined;
  return (
    <Modal opened onClose={given.onClose} title={<strong>Register a machine</strong>} size="lg">
      {made.data ? (
        <Stack gap="sm">
          <Text>
            Paste this on the new machine. The token in it works once, until it expires, and is not shown again.
          </Text>
          <Code block className="wrap" data-testid="join-command">
            {made.data.command}
          </Code>
          <Group>
            <CopyButton value={made.data.command}>
              {({ copied, copy }) => (
                <Button onClick={copy} leftSection={copied ? <IconCheck size={14} aria-hidden /> : <IconCopy size={14} aria-hidden />}>
                  {copied ? "Copied" : "Copy the command"}
                </Button>
              )}
            </CopyButton>
          </Group>
          <Alert color={joined ? "green" : "gray"} role="status" title={joined ? "The machine is here" : "Waiting for the machine"}>
            {joined ? (
              <Group gap="xs">
                <StateBadge state={joined.health} reason={joined.reasons.join("; ")} />
                <span>
                  {joined.name} has joined{joined.facts ? ` with ${String(joined.facts.cpus)} cores` : "; its facts are on their way"}.
                </span>
              </Group>
            ) : (
              <Group gap="xs">
                <Loader size={14} aria-hidden /> {made.data.node || "It"} has not joined yet. The command checks versions,
                clock and ports, and says what to do about each.
              </Group>
            )}
          </Alert>
          <Group justify="flex-end">
            <Button variant="default" onClick={given.onClose}>
              Close
            </Button>
          </Group>
        </Stack>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (read) made.mutate();
          }}
        >
          <Stack gap="sm">
            <TextInput
              label="Name"
              description="How the machine is called here; left out, it names itself"
              data-autofocus
              autoComplete="off"
              value={name}
              error={errorAt(made.error, "node")}
              onChange={(event) => {
                setName(event.currentTarget.value);
              }}
            />
            <TextInput
              label="Labels"
              description="Such as region=eu, owner=asha: algos choose machines by them"
              autoComplete="off"
              value={labels}
              error={read ? errorAt(made.error, "labels") : "Write key=value, key=value"}
              onChange={(event) => {
                setLabels(event.currentTarget.value);
              }}
            />
            <NumberInput
              label="The token is valid for (minutes)"
              min={1}
              max={10_080}
              value={minutes}
              onChange={(value) => {
                setMinutes(Number(value) || 60);
              }}
            />
            <Checkbox
              label="Broker connections may run there"
              description="The machine gets the key of stored credentials. Without it only algos and feeds without a log-in run there."
              checked={withSecrets}
              onChange={(event) => {
                setWithSecrets(event.currentTarget.checked);
              }}
            />
            {isAboutNone(made.error, ["node", "labels"]) ? <ErrorNote error={made.error} /> : null}
            <Group justify="flex-end" gap="xs">
              <Button variant="default" onClick={given.onClose}>
                Cancel
              </Button>
              <Button type="submit" loading={made.isPending} disabled={!read}>
                Make the command
              </Button>
            </Group>
          </Stack>
        </form>
      )}
    </Modal>
  );
}
