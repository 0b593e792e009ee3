/** A new account: whose, at which broker, its settings, what it logs in with. */
import { Checkbox, Group, Modal, PasswordInput, Select, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import type { Schema } from "@/components/schema";
import { errorAt, SchemaForm } from "@/components/SchemaForm";
import { settingsOf, useConnectors } from "@/trading/connectors";

export function NewAccount(given: { onClose: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const connectors = useConnectors();
  const users = useQuery({
    queryKey: ["users"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/users", { params: { query: { limit: 1000, cursor } } }))),
  });
  const [id, setId] = useState("");
  const [user, setUser] = useState<string | null>(null);
  const [connector, setConnector] = useState<string | null>("paper");
  const [selector, setSelector] = useState("");
  const [enabled, setEnabled] = useState(true);
  const [secrets, setSecrets] = useState<Record<string, string>>({});
  const [wrong, setWrong] = useState<unknown>(null);
  const chosen = connectors.data?.find((each) => each.name === connector);
  const create = async (values: Record<string, unknown>) => {
    setWrong(null);
    try {
      const made = await expect(
        api.POST("/v1/accounts", {
          body: {
            id: id.trim(),
            user: user ?? "",
            connector: connector ?? "",
            settings: settingsOf(values),
            credentials: Object.fromEntries(Object.entries(secrets).filter(([, value]) => value)),
            enabled: chosen?.trades === false ? false : enabled,
            selector: selector.trim(),
          },
        }),
      );
      await client.invalidateQueries({ queryKey: ["accounts"] });
      return made;
    } catch (error) {
      setWrong(error);
      throw error;
    }
  };
  return (
    <Modal opened onClose={given.onClose} title={<strong>Add an account</strong>} size="lg">
      <Stack gap="sm">
        <ErrorNote error={connectors.error ?? users.error} />
        <Group grow align="start">
          <Select
            label="Broker"
            required
            data={(connectors.data ?? []).filter((each) => each.account_settings !== null).map((each) => each.name)}
            value={connector}
            onChange={setConnector}
            error={errorAt(wrong, "connector")}
          />
          <Select
            label="User"
            required
            searchable
            data={(users.data?.items ?? []).map((each) => each.id)}
            value={user}
            onChange={setUser}
            error={errorAt(wrong, "user")}
          />
        </Group>
        {chosen ? (
          <SchemaForm
            key={chosen.name}
            schema={(chosen.account_settings ?? {}) as Schema}
            prefix="settings"
            verb="Add the account"
            onSubmit={create}
            onDone={(made) => {
              given.onClose();
              void navigate(`/accounts/${encodeURIComponent(made.id)}`);
            }}
            onCancel={given.onClose}
            disabled={!id.trim() || !user}
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
            <Credentials names={chosen.credentials} values={secrets} onChange={setSecrets} wrong={wrong} />
            <TextInput
              label="Connects from machines with these labels"
              description="Such as egress=203.0.113.7; empty: the head"
              value={selector}
              error={errorAt(wrong, "selector")}
              onChange={(event) => {
                setSelector(event.currentTarget.value);
              }}
            />
            {chosen.trades ? (
              <Checkbox
                size="xs"
                label="Connect and trade at once"
                checked={enabled}
                onChange={(event) => {
                  setEnabled(event.currentTarget.checked);
                }}
              />
            ) : (
              <span className="muted">{chosen.name} gives market data only here: the account lends feeds its log-in.</span>
            )}
          </SchemaForm>
        ) : null}
      </Stack>
    </Modal>
  );
}

/** Inputs for what an account logs in with. What is typed goes to the server only, and comes back from nowhere. */
export function Credentials(given: {
  names: string[];
  values: Record<string, string>;
  onChange: (values: Record<string, string>) => void;
  wrong: unknown;
}) {
  return given.names.map((name) => (
    <PasswordInput
      key={name}
      label={name.replaceAll("_", " ")}
      autoComplete="off"
      value={given.values[name] ?? ""}
      error={errorAt(given.wrong, `credentials.${name}`)}
      aria-invalid={errorAt(given.wrong, `credentials.${name}`) !== undefined}
      onChange={(event) => {
        given.onChange({ ...given.values, [name]: event.currentTarget.value });
      }}
    />
  ));
}
