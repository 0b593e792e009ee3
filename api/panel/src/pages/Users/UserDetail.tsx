import { Button, Group, MultiSelect, Stack } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { useAct } from "@/components/useAct";
import { Ago, Time } from "@/components/values";
import { Keys } from "@/people/Keys";
import { SecretOnce } from "@/people/Secret";
import { Sessions } from "@/people/Sessions";
import { useMe } from "@/session/session";

import { Grants } from "./Grants";
import { ROLES, type User } from "./UserList";

/** What becomes possible with a role. */
const OPENS: Record<string, string> = {
  operator: "An operator may do everything, to everybody's accounts, algos and users.",
  trader: "A trader places, changes and takes back orders, flattens, runs algos, throws the kill switch and gives credentials: in their own accounts, and in those granted to them to trade.",
  quant: "A quant runs algos in their own accounts and in those granted to them to trade, manages feeds, and registers strategies: code that runs on your machines.",
};

export function UserDetail({ id }: { id: string }) {
  const query = useQuery({
    queryKey: ["user", id],
    queryFn: () => expect(api.GET("/v1/users/{id}", { params: { path: { id } } })),
    refetchInterval: 10_000,
  });
  const { data: user } = query;
  if (!user) {
    return (
      <Page title={id}>
        {query.isError ? <ErrorNote error={query.error} retry={() => void query.refetch()} /> : <span className="muted">Loading…</span>}
      </Page>
    );
  }
  return (
    <Page title={user.id} note={<StateBadge state={user.enabled ? "enabled" : "disabled"} />}>
      <div className="columns">
        <Roles key={user.generation} user={user} />
        <Access user={user} />
        <div className="span-12">
          <Grants user={user.id} roles={user.roles} />
        </div>
        <div className="span-12">
          <Sessions user={user.id} />
        </div>
        <div className="span-12">
          <Keys user={user.id} roles={user.roles} />
        </div>
      </div>
    </Page>
  );
}

function Roles({ user }: { user: User }) {
  const client = useQueryClient();
  const [roles, setRoles] = useState(user.roles);
  const [dialog, confirm] = useConfirm();
  const { busy, error, run } = useAct(`Change the roles of ${user.id}`);
  useEffect(() => {
    setRoles(user.roles);
  }, [user.roles]);
  const isSame = roles.length === user.roles.length && roles.every((each) => user.roles.includes(each));
  const added = roles.filter((each) => !user.roles.includes(each) && each in OPENS);
  // Out of the operator's role.
  const steps = user.roles.includes("operator") && !roles.includes("operator");
  const change = async () => {
    const path = { id: user.id };
    client.setQueryData(
      ["user", user.id],
      await expect(api.PATCH("/v1/users/{id}", { params: { path }, body: { roles, generation: user.generation } })),
    );
    await client.invalidateQueries({ queryKey: ["users"] });
    notifications.show({ title: "Roles changed", message: "It holds at once, for sessions and keys too." });
  };
  return (
    <Panel title="Roles" className="span-6">
      <Stack gap="sm">
        <MultiSelect size="xs" label="What this user may do" data={ROLES} value={roles} error={errorAt(error, "roles")} onChange={setRoles} />
        {isAboutNone(error, ["roles"]) ? <ErrorNote error={error} /> : null}
        <Group>
          <Button
            loading={busy}
            disabled={isSame || !roles.length}
            onClick={() => {
              if (!steps && !added.length) void run(change);
              else
                confirm({
                  title: `${user.id} ${steps ? "is no operator any more" : `becomes ${added.map((each) => (each === "operator" ? "an operator" : `a ${each}`)).join(" and ")}`}`,
                  verb: "Change roles",
                  danger: true,
                  children: (
                    <>
                      {added.map((each) => (
                        <p key={each}>{OPENS[each]}</p>
                      ))}
                      <p>It holds at once, for sessions and keys too.</p>
                    </>
                  ),
                  act: change,
                });
            }}
          >
            Change roles
          </Button>
        </Group>
        {dialog}
      </Stack>
    </Panel>
  );
}

function Access({ user }: { user: User }) {
  const client = useQueryClient();
  const me = useMe();
  const [dialog, confirm] = useConfirm();
  const [made, setMade] = useState<Shape<"ResetDone"> | null>(null);
  const path = { id: user.id };
  const isMe = me.user === user.id;
  const again = async () => {
    await client.invalidateQueries({ queryKey: ["user", user.id] });
    await client.invalidateQueries({ queryKey: ["users"] });
    await client.invalidateQueries({ queryKey: ["sessions"] });
  };
  return (
    <Panel title="Access" className="span-6">
      <Stack gap="sm">
        <dl style={{ margin: 0, display: "grid", gridTemplateColumns: "auto 1fr", gap: "3px 12px" }}>
          <dt className="muted">Authenticator</dt>
          <dd style={{ margin: 0 }}>
            <StateBadge state={user.totp ? "ok" : "warning"} label={user.totp ? "enrolled" : "none"} />
          </dd>
          <dt className="muted">Locked out</dt>
          <dd style={{ margin: 0 }}>{user.locked_until ? <>opens <Ago at={user.locked_until} ahead /></> : "no"}</dd>
          <dt className="muted">Added</dt>
          <dd style={{ margin: 0 }}>
            <Time at={user.created_at} />
          </dd>
        </dl>
        <Group gap="xs">
          <Button
            variant="default"
            disabled={isMe}
            onClick={() => {
              confirm({
                title: user.enabled ? `Shut ${user.id} out` : `Let ${user.id} in again`,
                verb: user.enabled ? "Shut out" : "Let in",
                danger: user.enabled,
                children: user.enabled
                  ? "Sessions and keys stop working at once. What its algos do is not touched: stop them by themselves."
                  : "Its password, its authenticator and its keys work again.",
                act: async () => {
                  const body = { enabled: !user.enabled, generation: user.generation };
                  await expect(api.PATCH("/v1/users/{id}", { params: { path }, body }));
                  await again();
                },
              });
            }}
          >
            {user.enabled ? "Shut out" : "Let in again"}
          </Button>
          {user.locked_until ? (
            <Button
              variant="default"
              onClick={() => {
                confirm({
                  title: `Unlock ${user.id}`,
                  verb: "Unlock",
                  children: "Sign-in can be tried again at once. Ask first whether it was they who failed.",
                  act: async () => {
                    await expect(api.POST("/v1/users/{id}/unlock", { params: { path } }));
                    await again();
                  },
                });
              }}
            >
              Unlock
            </Button>
          ) : null}
          <Button
            variant="default"
            onClick={() => {
              confirm({
                title: `Reset ${user.id}`,
                verb: "Reset",
                danger: true,
                typed: user.id,
                children:
                  "For who has lost password or phone: password, authenticator and all sessions are gone, and a one-time password is shown.",
                option: {
                  label: "Revoke the API keys too",
                  description: "Whoever had the account may have made some. Programs that use them are refused at once.",
                  checked: true,
                },
                act: async (_, revokes) => {
                  const body = { revoke_keys: revokes };
                  setMade(await expect(api.POST("/v1/users/{id}/reset", { params: { path }, body })));
                  await client.invalidateQueries({ queryKey: ["keys"] });
                  await again();
                },
              });
            }}
          >
            Reset password and authenticator
          </Button>
        </Group>
      </Stack>
      {dialog}
      <SecretOnce
        title="One-time password"
        secret={made?.one_time_password ?? null}
        note={`For the next sign-in of ${user.id}. Hand it over on a way that nobody else reads. ${made ? keysOf(made) : ""}`}
        onClose={() => { setMade(null); }}
      />
    </Panel>
  );
}

/** What became of the API keys. */
function keysOf({ keys_revoked: revoked, keys_left: left }: Shape<"ResetDone">): string {
  const keys = (count: number) => (count === 1 ? "1 API key" : `${String(count)} API keys`);
  if (left) return `${keys(left)} of theirs ${left === 1 ? "is" : "are"} still good: look at them below.`;
  return revoked ? `${keys(revoked)} ${revoked === 1 ? "was" : "were"} revoked.` : "There was no API key to revoke.";
}
