/** Enrolment of an authenticator: QR, first code, recovery codes to keep. */
import { Button, Checkbox, Code, CopyButton, Group, PasswordInput, SimpleGrid, Skeleton, Stack, Text } from "@mantine/core";
import { IconCheck, IconCopy, IconDownload } from "@tabler/icons-react";
import { useCallback, useEffect, useRef, useState } from "react";

import { api, Cancelled, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { errorAt } from "@/components/SchemaForm";
import { download } from "@/format/csv";

import { CodeInput } from "./FreshCode";
import type { Step } from "./session";

interface Begun {
  secret: string;
  uri: string;
  qr_svg: string;
}

/** With `asksPassword`, for who has no second factor to show, the password comes first. */
export function Enrolment(given: {
  onDone: (step: Step) => Promise<void> | void;
  onCancel?: () => void;
  asksPassword?: boolean;
}) {
  // The server asks for it too where somebody signed in long ago.
  const [wanted, setWanted] = useState(false);
  const asksPassword = given.asksPassword === true || wanted;
  const [password, setPassword] = useState("");
  const [begun, setBegun] = useState<Begun | null>(null);
  const [code, setCode] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [kept, setKept] = useState<{ step: Step; codes: string[] } | null>(null);
  const asked = useRef(false);

  const { onCancel } = given;
  const current = useRef("");
  const begin = useCallback(async () => {
    setError(null);
    try {
      setBegun(await expect(api.POST("/v1/auth/totp", { body: current.current ? { current: current.current } : null })));
    } catch (found) {
      if (found instanceof Cancelled) onCancel?.();
      else {
        if (errorAt(found, "current") !== undefined) setWanted(true);
        setError(found);
      }
    }
  }, [onCancel]);
  useEffect(() => {
    // Once: a second secret would put the one that was just scanned out of use.
    if (asked.current || asksPassword) return;
    asked.current = true;
    void begin();
  }, [begin, asksPassword]);

  const confirm = async () => {
    setBusy(true);
    setError(null);
    try {
      const { step, recovery_codes } = await expect(api.POST("/v1/auth/totp/confirm", { body: { code } }));
      setKept({ step, codes: recovery_codes });
    } catch (found) {
      setError(found);
      setCode("");
    } finally {
      setBusy(false);
    }
  };
  if (kept) {
    return <RecoveryCodes codes={kept.codes} onKept={() => given.onDone(kept.step)} />;
  }
  if (asksPassword && !begun) {
    return (
      <form
        onSubmit={(event) => {
          event.preventDefault();
          current.current = password;
          setBusy(true);
          void begin().finally(() => {
            setBusy(false);
          });
        }}
      >
        <Stack gap="sm">
          <PasswordInput
            label="Your password"
            description="So that nobody else enrols an authenticator of theirs"
            autoComplete="current-password"
            value={password}
            onChange={(event) => {
              setPassword(event.currentTarget.value);
            }}
            error={errorAt(error, "current")}
            data-autofocus
            required
          />
          {errorAt(error, "current") === undefined ? <ErrorNote error={error} /> : null}
          <Button type="submit" size="sm" loading={busy} disabled={password === ""} fullWidth>
            Go on
          </Button>
        </Stack>
      </form>
    );
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (code.length === 6 && !busy) void confirm();
      }}
    >
      <Stack gap="sm">
        <Text size="md" c="dimmed">
          Scan this with an authenticator app, then give the code that it shows.
        </Text>
        {begun ? (
          <>
            <img
              src={imageOf(begun.qr_svg)}
              alt="QR code of the secret that is written below"
              width={190}
              height={190}
              style={{ background: "#fff", padding: 8, borderRadius: 6, alignSelf: "center" }}
            />
            <Group gap="xs" justify="center" wrap="nowrap">
              <Code style={{ overflowWrap: "anywhere" }}>{begun.secret}</Code>
              <Copy text={begun.secret} what="secret" />
            </Group>
          </>
        ) : error === null ? (
          <Skeleton height={190} width={190} style={{ alignSelf: "center" }} />
        ) : null}
        <CodeInput value={code} onChange={setCode} />
        <ErrorNote error={error} retry={begun ? undefined : () => void begin()} />
        <Button type="submit" size="sm" loading={busy} disabled={code.length !== 6 || !begun} fullWidth>
          Confirm
        </Button>
      </Stack>
    </form>
  );
}

/** An SVG as an image, so that nothing in it can run; as a file of its own it must say what it is. */
export function imageOf(svg: string): string {
  const whole = svg.includes("xmlns=") ? svg : svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"');
  return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(whole)}`;
}

/** Codes that are shown once; one goes on only after having kept them. */
export function RecoveryCodes(given: { codes: string[]; onKept: () => unknown }) {
  const [kept, setKept] = useState(false);
  const text = `${given.codes.join("\n")}\n`;
  return (
    <Stack gap="sm">
      <Text size="md">
        Recovery codes, for when your authenticator is lost. Each works once. They are shown now and never again.
      </Text>
      <SimpleGrid cols={2} spacing={6} component="ul" p={0} m={0} style={{ listStyle: "none" }} aria-label="Recovery codes">
        {given.codes.map((each) => (
          <li key={each}>
            <Code block>{each}</Code>
          </li>
        ))}
      </SimpleGrid>
      <Group gap="xs">
        <Copy text={text} what="codes" />
        <Button
          variant="default"
          leftSection={<IconDownload size={14} aria-hidden />}
          onClick={() => {
            download("quarterdeck-recovery-codes.txt", text, "text/plain;charset=utf-8");
          }}
        >
          Download
        </Button>
      </Group>
      <Checkbox
        label="I have kept them in a safe place"
        checked={kept}
        onChange={(event) => {
          setKept(event.currentTarget.checked);
        }}
      />
      <Button size="sm" disabled={!kept} onClick={() => void given.onKept()} fullWidth>
        Go on
      </Button>
    </Stack>
  );
}

/** Copies a text, and says that it has. */
export function Copy(given: { text: string; what: string }) {
  return (
    <CopyButton value={given.text} timeout={2_500}>
      {({ copied, copy }) => (
        <Button
          variant="default"
          onClick={copy}
          aria-label={copied ? `Copied ${given.what}` : `Copy ${given.what}`}
          leftSection={copied ? <IconCheck size={14} aria-hidden /> : <IconCopy size={14} aria-hidden />}
        >
          {copied ? "Copied" : "Copy"}
        </Button>
      )}
    </CopyButton>
  );
}
