import { Button, Group, Modal, MultiSelect, Stack, TextInput } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { useAct } from "@/components/useAct";
import { Ago, Time } from "@/components/values";
import { SecretOnce } from "@/people/Secret";
import { Sessions } from "@/people/Sessions";

export type User = Shape<"UserShown">;

export const ROLES = [
  { value: "operator", label: "operator: everything, to everybody's things" },
  { value: "quant", label: "quant: algos, strategies, feeds" },
  { value: "trader", label: "trader: algos, orders" },
  { value: "viewer", label: "viewer: looks" },
];

const NONE: User[] = [];
const COLUMNS: Column<User>[] = [
  { id: "id", header: "User", value: (u) => u.id, width: 130 },
  { id: "state", header: "State", value: (u) => (u.enabled ? "enabled" : "disabled"), cell: (u) => <StateBadge state={u.enabled ? "enabled" : "disabled"} />, width: 100 },
  { id: "roles", header: "Roles", value: (u) => u.roles.join(", "), width: 200 },
  { id: "totp", header: "Authenticator", value: (u) => (u.totp ? "enrolled" : "none"), cell: (u) => <StateBadge state={u.totp ? "ok" : "warning"} label={u.totp ? "enrolled" : "none"} />, width: 110 },
  { id: "locked", header: "Locked out", kind: "time", value: (u) => u.locked_until, cell: (u) => (u.locked_until ? <span className="state" data-tone="bad">opens <Ago at={u.locked_until} ahead /></span> : <span className="muted">no</span>), width: 120 },
  { id: "created", header: "Added", kind: "time", value: (u) => u.created_at, cell: (u) => <Time at={u.created_at} />, width: 140 },
];

export function UserList() {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [adds, setAdds] = useState(false);
  const [made, setMade] = useState<{ user: string; password: string } | null>(null);
  const users = useQuery({
    queryKey: ["users"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/users", { params: { query: { limit: 1_000, cursor } } }))),
    refetchInterval: 15_000,
  });
  return (
    <Page
      title="Users"
      actions={
        <Button leftSection={<IconPlus size={14} aria-hidden />} onClick={() => { setAdds(true); }}>
          Add a user
        </Button>
      }
    >
      <Panel title="Users" flush fill>
        <DataTable
          name="users"
          label="Users"
          rows={users.data?.items ?? NONE}
          columns={COLUMNS}
          rowId={(user) => user.id}
          sort="id"
          loading={users.isPending}
          error={users.error}
          retry={() => void users.refetch()}
          stale={users.isError}
          onOpen={(user) => void navigate(`/users/${encodeURIComponent(user.id)}`)}
        />
      </Panel>
      <Sessions height={200} />
      <Modal opened={adds} onClose={() => { setAdds(false); }} title={<strong>Add a user</strong>}>
        {adds ? (
          <AddUser
            onMade={(user, password) => {
              setAdds(false);
              if (password !== null) setMade({ user, password });
              void client.invalidateQueries({ queryKey: ["users"] });
            }}
          />
        ) : null}
      </Modal>
      <SecretOnce
        title="One-time password"
        secret={made?.password ?? null}
        note={`For the first sign-in of ${made?.user ?? ""}, who then chooses a password. Hand it over on a way that nobody else reads.`}
        onClose={() => { setMade(null); }}
      />
    </Page>
  );
}

function AddUser(given: { onMade: (user: string, password: string | null) => void }) {
  const [id, setId] = useState("");
  const [roles, setRoles] = useState<string[]>(["viewer"]);
  const { busy, error, run } = useAct("Adding a user");
  const add = async () => {
    const made = await expect(api.POST("/v1/users", { body: { id: id.trim(), roles } }));
    // The password is shown also where the form was closed: it is shown once.
    given.onMade(made.id, made.one_time_password);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (id.trim() && roles.length) void run(add);
      }}
    >
      <Stack gap="sm">
        <TextInput label="Name" description="Lower case, digits and -" required data-autofocus autoComplete="off" value={id} error={errorAt(error, "id")} onChange={(event) => { setId(event.currentTarget.value); }} />
        <MultiSelect size="xs" label="Roles" required data={ROLES} value={roles} error={errorAt(error, "roles")} onChange={setRoles} />
        {isAboutNone(error, ["id", "roles"]) ? <ErrorNote error={error} /> : null}
        <Group justify="flex-end">
          <Button type="submit" loading={busy} disabled={!id.trim() || !roles.length}>
            Add
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
