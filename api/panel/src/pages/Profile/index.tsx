import { Alert, Button, Group, Modal, PasswordInput, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { useAct } from "@/components/useAct";
import { Ago, Time } from "@/components/values";
import { Keys } from "@/people/Keys";
import { Sessions } from "@/people/Sessions";
import { Enrolment, RecoveryCodes } from "@/session/Enrolment";
import { SESSION_KEY, useMe } from "@/session/session";

export default function Profile() {
  const me = useMe();
  return (
    <Page title="Profile" note={`${me.user} · ${me.roles.join(", ")}`}>
      <div className="columns">
        <Password />
        <SecondFactor />
        <div className="span-12">
          <Sessions user={me.user} own />
        </div>
        <div className="span-12">
          <Keys user={me.user} roles={me.roles} />
        </div>
      </div>
    </Page>
  );
}

function Password() {
  const client = useQueryClient();
  const [current, setCurrent] = useState("");
  const [chosen, setChosen] = useState("");
  const [again, setAgain] = useState("");
  const { busy, error, run } = useAct("Change your password");
  const change = async () => {
    await expect(api.POST("/v1/auth/password", { body: { current, new: chosen } }));
    setCurrent("");
    setChosen("");
    setAgain("");
    notifications.show({ title: "Password changed", message: "Your other sessions have ended." });
    await client.invalidateQueries({ queryKey: ["sessions"] });
  };
  return (
    <Panel title="Password" className="span-6">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (chosen === again) void run(change);
        }}
      >
        <Stack gap="xs" maw={380}>
          <PasswordInput label="Present password" autoComplete="current-password" required value={current} error={errorAt(error, "current")} aria-invalid={errorAt(error, "current") !== undefined} onChange={(event) => { setCurrent(event.currentTarget.value); }} />
          <PasswordInput label="New password" autoComplete="new-password" required value={chosen} error={errorAt(error, "new")} aria-invalid={errorAt(error, "new") !== undefined} onChange={(event) => { setChosen(event.currentTarget.value); }} />
          <PasswordInput label="New password again" autoComplete="new-password" required value={again} error={again && again !== chosen ? "The two differ" : undefined} aria-invalid={again !== "" && again !== chosen} onChange={(event) => { setAgain(event.currentTarget.value); }} />
          {isAboutNone(error, ["current", "new"]) ? <ErrorNote error={error} /> : null}
          <Group>
            <Button type="submit" loading={busy} disabled={!current || !chosen || chosen !== again}>
              Change it
            </Button>
            <span className="muted">Your other sessions end.</span>
          </Group>
        </Stack>
      </form>
    </Panel>
  );
}

function SecondFactor() {
  const me = useMe();
  const client = useQueryClient();
  const [enrols, setEnrols] = useState(false);
  const [codes, setCodes] = useState<string[] | null>(null);
  const [dialog, confirm] = useConfirm();
  const renew = () => {
    confirm({
      title: "New recovery codes",
      verb: "Make new ones",
      children: "The codes that you have kept stop working at once. The new ones are shown this once.",
      act: async () => {
        setCodes((await expect(api.POST("/v1/auth/recovery-codes"))).recovery_codes);
      },
    });
  };
  return (
    <Panel title="Second factor" className="span-6">
      <Stack gap="sm">
        <StateBadge state={me.totp ? "ok" : "warning"} label={me.totp ? "An authenticator is enrolled" : "No authenticator"} />
        {me.recovered ? (
          <Alert color="yellow" title="You signed in with a recovery code">
            Enrol another authenticator: until then nothing can be done that asks for a fresh code.
          </Alert>
        ) : null}
        <Text c="dimmed">
          {me.totp
            ? "Another authenticator takes the place of this one, and ends your other sessions."
            : "With an authenticator a stolen password opens nothing. Roles that trade or operate must have one."}
        </Text>
        <Group gap="xs">
          <Button variant={me.totp ? "default" : "filled"} onClick={() => { setEnrols(true); }}>
            {me.totp ? "Enrol another" : "Enrol one"}
          </Button>
          {me.totp ? (
            <Button variant="default" onClick={renew}>
              New recovery codes
            </Button>
          ) : null}
        </Group>
        <dl style={{ margin: 0, display: "grid", gridTemplateColumns: "auto 1fr", gap: "2px 12px" }}>
          <dt className="muted">This session ends</dt>
          <dd style={{ margin: 0 }}>
            <Ago at={me.idle_ends_at} ahead /> without activity, at <Time at={me.ends_at} /> in any case
          </dd>
          <dt className="muted">Fresh code</dt>
          <dd style={{ margin: 0 }}>{me.fresh_until ? <>given; asked for again <Ago at={me.fresh_until} ahead /></> : "asked for at the next sensitive act"}</dd>
        </dl>
      </Stack>
      {dialog}
      <Modal opened={enrols} onClose={() => { setEnrols(false); }} title={<strong>Enrol an authenticator</strong>}>
        {enrols ? (
          <Enrolment
            asksPassword={me.recovered || !me.totp}
            onCancel={() => {
              setEnrols(false);
            }}
            onDone={() => {
              setEnrols(false);
              void client.invalidateQueries({ queryKey: SESSION_KEY });
              void client.invalidateQueries({ queryKey: ["sessions"] });
            }}
          />
        ) : null}
      </Modal>
      <Modal opened={codes !== null} onClose={() => { setCodes(null); }} closeOnClickOutside={false} closeOnEscape={false} withCloseButton={false} title={<strong>New recovery codes</strong>}>
        {codes ? <RecoveryCodes codes={codes} onKept={() => { setCodes(null); }} /> : null}
      </Modal>
    </Panel>
  );
}
