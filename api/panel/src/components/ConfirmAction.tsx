import { Button, Checkbox, Group, Modal, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useCallback, useState } from "react";

import { ErrorNote } from "./ErrorNote";
import { useAct } from "./useAct";

export interface Confirmation {
  title: string;
  /** What will happen, in words. */
  children: ReactNode;
  /** What the button says, such as "Stop momo-1". */
  verb: string;
  danger?: boolean;
  /** Ask why; the action gets it. */
  reason?: boolean;
  /** This must be typed first. */
  typed?: string;
  /** A box to tick that goes with it, and how it stands at first; the action gets how it was left. */
  option?: { label: string; description?: string; checked: boolean };
  /** Does it; the dialog stays open, with the error, when it fails. */
  act: (reason: string, option: boolean) => Promise<unknown>;
}

/** The dialog before an act that matters. */
export function ConfirmAction(given: Confirmation & { opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={given.opened} onClose={given.onClose} title={<strong>{given.title}</strong>}>
      {given.opened ? <Inside {...given} /> : null}
    </Modal>
  );
}

function Inside(given: Confirmation & { onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [typed, setTyped] = useState("");
  const [option, setOption] = useState(given.option?.checked ?? false);
  const { busy, error, run } = useAct(given.title);
  const ready = (!given.reason || reason.trim() !== "") && (given.typed === undefined || typed.trim() === given.typed);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (ready) void run(() => given.act(reason.trim(), option), given.onClose);
      }}
    >
      <Stack gap="sm">
        <Text size="md" component="div">
          {given.children}
        </Text>
        {given.reason ? (
          <Textarea
            label="Reason"
            description="Kept in the audit for others to read"
            required
            data-autofocus
            maxLength={500}
            value={reason}
            onChange={(event) => {
              setReason(event.currentTarget.value);
            }}
          />
        ) : null}
        {given.option ? (
          <Checkbox
            size="xs"
            label={given.option.label}
            description={given.option.description}
            checked={option}
            onChange={(event) => {
              setOption(event.currentTarget.checked);
            }}
          />
        ) : null}
        {given.typed === undefined ? null : (
          <TextInput
            label={`Type ${given.typed} to confirm`}
            required
            autoComplete="off"
            value={typed}
            onChange={(event) => {
              setTyped(event.currentTarget.value);
            }}
          />
        )}
        <ErrorNote error={error} />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={given.onClose}>
            Cancel
          </Button>
          <Button type="submit" color={given.danger ? "red.9" : undefined} disabled={!ready} loading={busy}>
            {given.verb}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** A dialog that a page opens by giving it what to confirm: `const [dialog, confirm] = useConfirm()`. */
export function useConfirm(): [ReactNode, (what: Confirmation) => void] {
  const [what, setWhat] = useState<Confirmation | null>(null);
  const [opened, setOpened] = useState(false);
  const dialog = what ? (
    <ConfirmAction
      {...what}
      opened={opened}
      onClose={() => {
        setOpened(false);
      }}
    />
  ) : null;
  const confirm = useCallback((next: Confirmation) => {
    setWhat(next);
    setOpened(true);
  }, []);
  return [dialog, confirm];
}
