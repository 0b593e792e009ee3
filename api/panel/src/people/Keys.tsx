/** API keys: for programs, limited in time, in rights and in accounts. */
import { Button, Checkbox, Group, Modal, MultiSelect, Select, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { useAct } from "@/components/useAct";
import { Ago, Time, useNow } from "@/components/values";
import { instant } from "@/format/time";
import { useMe } from "@/session/session";
import { useAccounts } from "@/trading/read";

import { SecretOnce } from "./Secret";

type Key = Shape<"KeyShown">;
type NewKey = Shape<"NewKey">;

const NONE: Key[] = [];
const DAY = 86_400_000;

function stateOf(key: Key, now: number): string {
  if (key.revoked_at) return "revoked";
  return key.expires_at && instant(key.expires_at) <= now ? "expired" : "active";
}

export function Keys(given: { user: string; roles: string[]; height?: number }) {
  const client = useQueryClient();
  const now = useNow();
  const minute = Math.floor(now / 60_000) * 60_000;
  const [dialog, confirm] = useConfirm();
  const [makes, setMakes] = useState(false);
  const [key, setKey] = useState<string | null>(null);
  const keys = useQuery({
    queryKey: ["keys"],
    // All of them: a key that is not shown cannot be revoked.
    queryFn: () =>
      readAll((cursor) => expect(api.GET("/v1/keys", { params: { query: { limit: 1_000, cursor } } }))),
  });
  const mine = useMemo(() => (keys.data?.items ?? NONE).filter((each) => each.user === given.user), [keys.data, given.user]);
  const columns = useMemo<Column<Key>[]>(
    () => [
      { id: "label", header: "Label", value: (k) => k.label, width: 140 },
      { id: "state", header: "State", value: (k) => stateOf(k, minute), cell: (k) => <StateBadge state={stateOf(k, minute)} />, width: 90 },
      { id: "roles", header: "Roles", value: (k) => k.roles.join(", "), width: 120 },
      { id: "rights", header: "Only", value: (k) => k.rights?.join(", ") ?? "all that its roles allow", width: 160 },
      { id: "accounts", header: "Accounts", value: (k) => k.accounts?.join(", ") ?? "all", width: 110 },
      { id: "created", header: "Made", kind: "time", value: (k) => k.created_at, cell: (k) => <Time at={k.created_at} />, width: 130 },
      { id: "expires", header: "Expires", kind: "time", value: (k) => k.expires_at, cell: (k) => <Ago at={k.expires_at} ahead />, width: 90 },
      { id: "id", header: "Id", value: (k) => k.id, width: 110, hidden: true },
      {
        id: "act",
        header: "Act",
        value: () => null,
        width: 76,
        cell: (k) =>
          k.revoked_at ? null : (
            <Button
              size="compact-xs"
              variant="default"
              aria-label={`Revoke key ${k.label || k.id}`}
              onClick={() => {
                confirm({
                  title: `Revoke ${k.label || k.id}`,
                  verb: "Revoke it",
                  danger: true,
                  children: "Whatever uses it is refused from now on. It cannot be brought back.",
                  act: async () => {
                    await expect(api.DELETE("/v1/keys/{id}", { params: { path: { id: k.id } } }));
                    await client.invalidateQueries({ queryKey: ["keys"] });
                  },
                });
              }}
            >
              Revoke
            </Button>
          ),
      },
    ],
    [client, confirm, minute],
  );
  return (
    <Panel
      title="API keys"
      flush
      actions={
        <Button size="compact-xs" onClick={() => { setMakes(true); }}>
          Make a key
        </Button>
      }
    >
      <DataTable
        name="keys"
        label="API keys"
        height={given.height ?? 190}
        rows={mine}
        columns={columns}
        rowId={(each) => each.id}
        sort="-created"
        loading={keys.isPending}
        error={keys.error}
        retry={() => void keys.refetch()}
        stale={keys.isError}
        cut={keys.data ? !keys.data.whole : false}
        empty={{ title: "No key yet", hint: "Programs sign in with keys; people with a password." }}
      />
      <Modal opened={makes} onClose={() => { setMakes(false); }} title={<strong>Make a key for {given.user}</strong>}>
        {makes ? (
          <MakeKey
            user={given.user}
            roles={given.roles}
            onMade={(made) => {
              setMakes(false);
              setKey(made);
              void client.invalidateQueries({ queryKey: ["keys"] });
            }}
          />
        ) : null}
      </Modal>
      <SecretOnce title="Your new key" secret={key} note="Give it to the program as “Authorization: Bearer …”." onClose={() => { setKey(null); }} />
      {dialog}
    </Panel>
  );
}

function MakeKey(given: { user: string; roles: string[]; onMade: (key: string) => void }) {
  const me = useMe();
  const { accounts, error: unread, retry } = useAccounts();
  const [label, setLabel] = useState("");
  const [roles, setRoles] = useState(given.roles);
  const [limits, setLimits] = useState(false);
  const [rights, setRights] = useState<string[]>([]);
  const [only, setOnly] = useState<string[]>([]);
  const [days, setDays] = useState("90");
  const { busy, error, run } = useAct(`Make a key for ${given.user}`);
  const make = async () => {
    const made = await expect(
      api.POST("/v1/keys", {
        body: {
          user: given.user,
          roles,
          label: label.trim(),
          rights: limits && rights.length ? (rights as NonNullable<NewKey["rights"]>) : null,
          accounts: limits && only.length ? only : null,
          expires_at: new Date(Date.now() + Number(days) * DAY).toISOString(),
        },
      }),
    );
    // Though the dialog may be closed by now: this is the one time that the key is shown.
    given.onMade(made.key);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (roles.length) void run(make);
      }}
    >
      <Stack gap="sm">
        <TextInput label="Label" description="What it is for" maxLength={200} data-autofocus value={label} error={errorAt(error, "label")} onChange={(event) => { setLabel(event.currentTarget.value); }} />
        <MultiSelect size="xs" label="Roles" required data={given.roles} value={roles} error={errorAt(error, "roles")} onChange={setRoles} />
        <Select
          label="Good for"
          required
          data={[
            { value: "1", label: "a day" },
            { value: "7", label: "a week" },
            { value: "30", label: "30 days" },
            { value: "90", label: "90 days" },
            { value: "365", label: "a year" },
          ]}
          value={days}
          error={errorAt(error, "expires_at")}
          onChange={(value) => { setDays(value ?? "90"); }}
        />
        <Checkbox label="Limit it further" checked={limits} onChange={(event) => { setLimits(event.currentTarget.checked); }} />
        {limits ? (
          <>
            <MultiSelect size="xs" label="It may only" placeholder={rights.length ? "" : "all that its roles allow"} data={me.rights} value={rights} error={errorAt(error, "rights")} onChange={setRights} />
            <ErrorNote error={unread} title="The accounts cannot be read" retry={retry} />
            <MultiSelect size="xs" label="It reaches only" placeholder={only.length ? "" : "all accounts of its user"} searchable data={accounts.map(({ id }) => id)} value={only} error={errorAt(error, "accounts")} onChange={setOnly} />
          </>
        ) : null}
        {isAboutNone(error, ["label", "roles", "rights", "accounts", "expires_at"]) ? <ErrorNote error={error} /> : null}
        <Group justify="flex-end">
          <Button type="submit" loading={busy} disabled={!roles.length}>
            Make it
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
