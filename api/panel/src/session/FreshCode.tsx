/** The dialog that asks for a code before a sensitive act, and waits with the act meanwhile. */
import { Button, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useState } from "react";

import { api, expect } from "@/api/client";
import { store, useStore } from "@/format/store";
import { ErrorNote } from "@/components/ErrorNote";

const waiting = store<((given: boolean) => void)[]>([]);

/** Ask for a code; true once the server has taken one. Several acts at once share one dialog. */
export function askFreshCode(): Promise<boolean> {
  return new Promise((done) => {
    waiting.set([...waiting.get(), done]);
  });
}

function settle(given: boolean): void {
  const all = waiting.get();
  waiting.set([]);
  for (const each of all) each(given);
}

export function FreshCodeDialog() {
  const asked = useStore(waiting).length > 0;
  return (
    <Modal
      opened={asked}
      onClose={() => {
        settle(false);
      }}
      title={<strong>Confirm that it is you</strong>}
      size="xs"
      zIndex={400}
    >
      {asked ? <Ask /> : null}
    </Modal>
  );
}

function Ask() {
  const [code, setCode] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const give = async () => {
    setBusy(true);
    setError(null);
    try {
      await expect(api.POST("/v1/auth/fresh", { body: { code: code.trim() } }));
      settle(true);
    } catch (found) {
      setError(found);
      setCode("");
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (code.trim()) void give();
      }}
    >
      <Stack gap="sm">
        <Text size="md">This act asks for a fresh code from your authenticator. It then holds for five minutes.</Text>
        <CodeInput value={code} onChange={setCode} />
        <ErrorNote error={error} />
        <Group justify="flex-end">
          <Button
            variant="default"
            onClick={() => {
              settle(false);
            }}
          >
            Cancel
          </Button>
          <Button type="submit" loading={busy} disabled={!code.trim()}>
            Confirm
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** The field for a code of six digits. */
export function CodeInput(given: { value: string; onChange: (value: string) => void; label?: string; error?: string | undefined; autoFocus?: boolean }) {
  return (
    <TextInput
      label={given.label ?? "Code from your authenticator"}
      value={given.value}
      error={given.error}
      onChange={(event) => {
        given.onChange(event.currentTarget.value.replace(/\D/g, "").slice(0, 6));
      }}
      inputMode="numeric"
      autoComplete="one-time-code"
      placeholder="000000"
      required
      data-autofocus
      autoFocus={given.autoFocus ?? false}
      styles={{ input: { letterSpacing: "0.3em", fontVariantNumeric: "tabular-nums", fontSize: "1.1rem", height: 38 } }}
    />
  );
}
