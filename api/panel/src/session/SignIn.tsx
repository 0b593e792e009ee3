/** The sign-in: password, code, change of a one-time password, enrolment of an authenticator. */
import { Alert, Anchor, Button, Group, PasswordInput, Stack, Text, TextInput, Title } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useStore } from "@/format/store";

import { Enrolment } from "./Enrolment";
import { CodeInput } from "./FreshCode";
import { endedBecause, forgetSession, SESSION_KEY, type Step, useSession } from "./session";

const TITLES: Record<Step | "login", string> = {
  login: "Sign in",
  code: "Second factor",
  password: "Choose a password",
  enrol: "Set up your authenticator",
  done: "Signed in",
};

export function SignIn() {
  const { data: session } = useSession();
  const [step, setStep] = useState<Step | "login">(session?.step ?? "login");
  const client = useQueryClient();
  const why = useStore(endedBecause);
  useEffect(() => {
    setStep(session?.step ?? "login");
  }, [session]);
  useEffect(() => {
    document.title = `${TITLES[step]} · Quarterdeck`;
  }, [step]);
  const next = async (to: Step) => {
    setStep(to);
    if (to === "done") await client.invalidateQueries({ queryKey: SESSION_KEY });
  };
  const restart = async () => {
    await expect(api.POST("/v1/auth/logout"));
    forgetSession(client);
    setStep("login");
  };
  return (
    <div className="gate">
      <main>
        <Group gap={10} mb="md">
          <img src="/favicon.svg" alt="" width={34} height={34} />
          <div>
            <Text fw={650} size="lg">
              Quarterdeck
            </Text>
            <Text size="sm" c="dimmed">
              {location.host}
            </Text>
          </div>
        </Group>
        <Title order={1} mb="sm">
          {TITLES[step]}
        </Title>
        {step === "login" && why ? (
          <Alert color="yellow" p="xs" mb="sm" role="status" title="You were signed out">
            {why[0]?.toUpperCase()}
            {why.slice(1)}
          </Alert>
        ) : null}
        {step === "login" ? <Login next={next} /> : null}
        {step === "code" ? <Code next={next} /> : null}
        {step === "password" ? <NewPassword next={next} /> : null}
        {step === "enrol" ? <Enrolment onDone={next} /> : null}
        {step === "login" || step === "done" ? null : (
          <Anchor component="button" type="button" size="sm" mt="md" onClick={() => void restart()}>
            Sign in as somebody else
          </Anchor>
        )}
      </main>
    </div>
  );
}

type Next = (step: Step) => Promise<void>;

/** A form of the sign-in: one request, its error, its button. */
function Form(given: {
  send: () => Promise<{ step: Step }>;
  next: Next;
  verb: string;
  ready: boolean;
  fields: string[];
  onError?: () => void;
  children: (error: unknown) => ReactNode;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const submit = async () => {
    setBusy(true);
    setError(null);
    try {
      await given.next((await given.send()).step);
    } catch (found) {
      setError(found);
      given.onError?.();
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (given.ready && !busy) void submit();
      }}
    >
      <Stack gap="sm">
        {given.children(error)}
        {isAboutNone(error, given.fields) ? <ErrorNote error={error} /> : null}
        <Button type="submit" size="sm" loading={busy} disabled={!given.ready} fullWidth>
          {given.verb}
        </Button>
      </Stack>
    </form>
  );
}

function Login({ next }: { next: Next }) {
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  return (
    <Form
      verb="Sign in"
      ready={user.trim() !== "" && password !== ""}
      next={next}
      fields={["user", "password"]}
      onError={() => {
        setPassword("");
      }}
      send={() => expect(api.POST("/v1/auth/login", { body: { user: user.trim(), password } }))}
    >
      {(error) => (
        <>
          <TextInput
            size="sm"
            label="User"
            name="username"
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            autoFocus
            required
            value={user}
            error={errorAt(error, "user")}
            onChange={(event) => {
              setUser(event.currentTarget.value);
            }}
          />
          <PasswordInput
            size="sm"
            label="Password"
            name="password"
            autoComplete="current-password"
            required
            value={password}
            error={errorAt(error, "password")}
            aria-invalid={errorAt(error, "password") !== undefined}
            onChange={(event) => {
              setPassword(event.currentTarget.value);
            }}
          />
        </>
      )}
    </Form>
  );
}

function Code({ next }: { next: Next }) {
  const [code, setCode] = useState("");
  const [recovers, setRecovers] = useState(false);
  return (
    <Form
      verb="Go on"
      ready={recovers ? code.trim() !== "" : code.length === 6}
      next={next}
      fields={["code", "recovery_code"]}
      onError={() => {
        setCode("");
      }}
      send={() =>
        expect(api.POST("/v1/auth/code", { body: recovers ? { recovery_code: code.trim() } : { code } }))
      }
    >
      {(error) => (
        <>
          {recovers ? (
            <TextInput
              size="sm"
              label="Recovery code"
              description="One of those that you kept when you set up your authenticator. It works once."
              autoComplete="off"
              autoFocus
              required
              value={code}
              error={errorAt(error, "recovery_code")}
              onChange={(event) => {
                setCode(event.currentTarget.value);
              }}
            />
          ) : (
            <CodeInput value={code} onChange={setCode} error={errorAt(error, "code")} autoFocus />
          )}
          <Anchor
            component="button"
            type="button"
            size="sm"
            onClick={() => {
              setRecovers(!recovers);
              setCode("");
            }}
          >
            {recovers ? "Use the authenticator" : "Use a recovery code"}
          </Anchor>
        </>
      )}
    </Form>
  );
}

function NewPassword({ next }: { next: Next }) {
  const [current, setCurrent] = useState("");
  const [chosen, setChosen] = useState("");
  const [again, setAgain] = useState("");
  const differs = again !== "" && again !== chosen;
  return (
    <Form
      verb="Change the password"
      ready={current !== "" && chosen !== "" && again === chosen}
      next={next}
      fields={["current", "new"]}
      send={() => expect(api.POST("/v1/auth/password", { body: { current, new: chosen } }))}
    >
      {(error) => (
        <>
          <Text size="md" c="dimmed">
            Your password was made for one sign-in. Choose one of your own.
          </Text>
          <PasswordInput
            size="sm"
            label="One-time password"
            autoComplete="current-password"
            autoFocus
            required
            value={current}
            error={errorAt(error, "current")}
            aria-invalid={errorAt(error, "current") !== undefined}
            onChange={(event) => {
              setCurrent(event.currentTarget.value);
            }}
          />
          <PasswordInput
            size="sm"
            label="New password"
            autoComplete="new-password"
            required
            value={chosen}
            error={errorAt(error, "new")}
            aria-invalid={errorAt(error, "new") !== undefined}
            onChange={(event) => {
              setChosen(event.currentTarget.value);
            }}
          />
          <PasswordInput
            size="sm"
            label="New password again"
            autoComplete="new-password"
            required
            value={again}
            error={differs ? "The two differ" : undefined}
            aria-invalid={differs}
            onChange={(event) => {
              setAgain(event.currentTarget.value);
            }}
          />
        </>
      )}
    </Form>
  );
}
