/** A new feed: provider, its settings, instruments, workers. */
import { Button, Group, Modal, MultiSelect, NumberInput, Select, Stack, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentsInput } from "@/components/InstrumentInput";
import type { Schema } from "@/components/schema";
import { errorAt, SchemaForm } from "@/components/SchemaForm";
import { useLateFailure } from "@/components/useAct";
import { settingsOf, useConnectors } from "@/trading/connectors";

const CHANNELS = ["trade", "quote", "depth", "bar"];

export function NewFeed(given: { onClose: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const connectors = useConnectors();
  const [id, setId] = useState("");
  const [provider, setProvider] = useState<string | null>(null);
  const [instruments, setInstruments] = useState<string[]>([]);
  const [workers, setWorkers] = useState(1);
  const [channels, setChannels] = useState(["trade", "quote"]);
  const [wrong, setWrong] = useState<unknown>(null);
  const [imported, setImported] = useState<string | null>(null);
  const chosen = connectors.data?.find((each) => each.name === provider);
  const listing = useMutation({
    mutationFn: (settings: Record<string, unknown>) =>
      expect(api.POST("/v1/instruments/import", { body: { provider: provider ?? "", settings } })),
    onSuccess: async (told) => {
      setImported(`${String(told.imported)} instruments are listed now.`);
      await client.invalidateQueries({ queryKey: ["instruments"] });
    },
    onError: useLateFailure(`List the instruments of ${provider ?? ""}`),
  });
  const create = async (settings: Record<string, unknown>) => {
    setWrong(null);
    try {
      const made = await expect(
        api.POST("/v1/feeds", {
          body: { id: id.trim(), provider: provider ?? "", settings: settingsOf(settings), instruments, workers, channels, nodes: [], seconds: {} },
        }),
      );
      await client.invalidateQueries({ queryKey: ["feeds"] });
      return made;
    } catch (error) {
      setWrong(error);
      throw error;
    }
  };
  return (
    <Modal opened onClose={given.onClose} title={<strong>Add a feed</strong>} size="lg">
      <Stack gap="sm">
        <ErrorNote error={connectors.error} retry={() => void connectors.refetch()} />
        <Select
          label="Provider"
          required
          data={(connectors.data ?? []).filter((each) => each.market_data).map((each) => each.name)}
          value={provider}
          onChange={setProvider}
          error={errorAt(wrong, "provider")}
        />
        {chosen ? (
          <SchemaForm
            key={chosen.name}
            schema={(chosen.feed_settings ?? {}) as Schema}
            prefix="settings"
            verb="Add the feed"
            onSubmit={create}
            onDone={(made) => {
              given.onClose();
              void navigate(`/feeds/${encodeURIComponent(made.id)}`);
            }}
            onCancel={given.onClose}
            disabled={!id.trim()}
          >
            <TextInput
              label="Name"
              required
              autoComplete="off"
              value={id}
              error={errorAt(wrong, "id")}
              onChange={(event) => {
                setId(event.currentTarget.value);
              }}
            />
            <Group align="end" gap="xs" wrap="nowrap">
              <div style={{ flex: 1 }}>
                <InstrumentsInput
                  label="Instruments"
                  description="More can be added while it runs"
                  provider={chosen.name}
                  value={instruments}
                  onChange={setInstruments}
                  error={errorAt(wrong, "instruments")}
                />
              </div>
              <Button
                variant="default"
                loading={listing.isPending}
                title="Read the provider's list of instruments, with its usual settings"
                onClick={() => {
                  listing.mutate({});
                }}
              >
                Import the list
              </Button>
            </Group>
            {imported ? <span role="status">{imported}</span> : null}
            <ErrorNote error={listing.error} />
            <Group grow>
              <NumberInput
                label="Workers"
                min={1}
                max={1000}
                value={workers}
                error={errorAt(wrong, "workers")}
                onChange={(value) => {
                  setWorkers(Number(value) || 1);
                }}
              />
              <MultiSelect
                size="xs"
                label="Channels"
                data={CHANNELS}
                value={channels}
                onChange={setChannels}
                error={errorAt(wrong, "channels")}
              />
            </Group>
          </SchemaForm>
        ) : null}
      </Stack>
    </Modal>
  );
}
