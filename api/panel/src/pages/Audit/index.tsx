/** Who changed what, when, from what to what; and whether the journal is what was written. */
import { Alert, Button, Code, Drawer, Group, Stack, Table, TextInput } from "@mantine/core";
import { IconShieldCheck } from "@tabler/icons-react";
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { useDebouncedValue } from "@mantine/hooks";
import { useMemo, useState } from "react";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Page, Panel } from "@/components/Page";
import { useLateFailure } from "@/components/useAct";
import { Time } from "@/components/values";
import { formatNumber } from "@/format/measure";

type Entry = Shape<"AuditShown">;

/** Entries read at once; older ones by narrowing the question. */
const MOST = 5_000;

const text = (value: unknown): string => (value == null ? "" : JSON.stringify(value));

const columns: Column<Entry>[] = [
  { id: "number", header: "No.", value: (entry) => entry.number, kind: "number", width: 76 },
  { id: "at", header: "At", value: (entry) => entry.at, kind: "time", width: 150, cell: (entry) => <Time at={entry.at} /> },
  { id: "actor", header: "Who", value: (entry) => entry.actor, width: 130 },
  { id: "action", header: "What", value: (entry) => entry.action, width: 160 },
  { id: "subject", header: "Of what", value: (entry) => entry.subject, width: 210 },
  { id: "before", header: "Before", value: (entry) => text(entry.before), width: 230 },
  { id: "after", header: "After", value: (entry) => text(entry.after), width: 300 },
];

/** What a day's or an hour's local input says, as the API writes it; null where nothing was given. */
export function givenTime(input: string): string | null {
  const at = new Date(input);
  return input && !Number.isNaN(at.getTime()) ? at.toISOString() : null;
}

export default function Audit() {
  const [actor, setActor] = useState("");
  const [action, setAction] = useState("");
  const [subject, setSubject] = useState("");
  const [since, setSince] = useState("");
  const [until, setUntil] = useState("");
  const [open, setOpen] = useState<Entry | null>(null);
  const [filter] = useDebouncedValue({ actor, action, subject, since, until }, 250);
  const question = useMemo(
    () => ({
      ...(filter.actor.trim() ? { actor: filter.actor.trim() } : {}),
      ...(filter.action.trim() ? { action: filter.action.trim() } : {}),
      ...(filter.subject.trim() ? { subject: filter.subject.trim() } : {}),
      ...(givenTime(filter.since) ? { since: givenTime(filter.since) } : {}),
      ...(givenTime(filter.until) ? { until: givenTime(filter.until) } : {}),
    }),
    [filter],
  );
  const query = useQuery({
    queryKey: ["audit", question],
    queryFn: () =>
      readAll((cursor) => expect(api.GET("/v1/audit", { params: { query: { ...question, limit: 1000, cursor } } })), MOST),
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });
  const field = (label: string, value: string, set: (value: string) => void, type = "text") => (
    <TextInput
      label={label}
      type={type}
      value={value}
      w={type === "text" ? 150 : 190}
      onChange={(event) => {
        set(event.currentTarget.value);
      }}
    />
  );
  return (
    <Page title="Audit" note="Append-only: nothing here can be changed or deleted, and if it were, it would show.">
      <Verification />
      <Group align="end" gap="xs">
        {field("Who", actor, setActor)}
        {field("What", action, setAction)}
        {field("Of what (its beginning)", subject, setSubject)}
        {field("From (your time)", since, setSince, "datetime-local")}
        {field("To (your time)", until, setUntil, "datetime-local")}
      </Group>
      <Panel title="Entries" flush fill>
        <DataTable
          name="audit"
          label="Audit"
          rows={query.data?.items ?? []}
          columns={columns}
          rowId={(entry) => String(entry.number)}
          sort="-number"
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          stale={query.isPlaceholderData || query.isError}
          cut={query.data ? !query.data.whole : false}
          onOpen={setOpen}
          openId={open ? String(open.number) : null}
          empty={{ title: "Nothing of that kind", hint: "Widen the question above." }}
        />
      </Panel>
      <Drawer
        opened={open !== null}
        onClose={() => {
          setOpen(null);
        }}
        position="right"
        size="lg"
        title={<strong>{open ? `${open.action} of ${open.subject || "the deck"}` : ""}</strong>}
      >
        {open ? <Detail entry={open} /> : null}
      </Drawer>
    </Page>
  );
}

function Detail(given: { entry: Entry }) {
  const { entry } = given;
  const side = (value: unknown) => (value == null ? "nothing" : JSON.stringify(value, null, 1));
  return (
    <Stack gap="sm">
      <div>
        No. {String(entry.number)}, by <strong>{entry.actor}</strong>, <Time at={entry.at} />
        <div className="muted mono">{entry.at}</div>
      </div>
      <h3>Before</h3>
      <Code block className="wrap">
        {side(entry.before)}
      </Code>
      <h3>After</h3>
      <Code block className="wrap">
        {side(entry.after)}
      </Code>
    </Stack>
  );
}

function Verification() {
  const verify = useMutation({ mutationFn: () => expect(api.POST("/v1/audit/verify")), onError: useLateFailure("Verify the audit") });
  const verdict = verify.data;
  return (
    <Panel
      title="The chain"
      actions={
        <Button
          size="compact-sm"
          leftSection={<IconShieldCheck size={14} aria-hidden />}
          loading={verify.isPending}
          onClick={() => {
            verify.mutate();
          }}
        >
          Verify now
        </Button>
      }
    >
      <div role="status">
        {verdict ? (
          <Alert
            color={verdict.ok ? "green" : "red"}
            title={verdict.ok ? "All is as it was written" : `${String(verdict.findings.length)} things are not as they were written`}
          >
            {formatNumber(verdict.rows)} rows in {String(verdict.heads.length)} chains, computed again at <Time at={verdict.at} />{" "}
            in {verdict.took_s.toFixed(1)} s.
            {verdict.findings.length ? (
              <ul className="wrap">
                {verdict.findings.slice(0, 100).map((each) => (
                  <li key={each}>{each}</li>
                ))}
              </ul>
            ) : null}
            <details>
              <summary>Heads, to be kept elsewhere</summary>
              <Table>
                <Table.Thead>
                  <Table.Tr>
                    <Table.Th>Chain</Table.Th>
                    <Table.Th className="number">Links</Table.Th>
                    <Table.Th>Digest</Table.Th>
                  </Table.Tr>
                </Table.Thead>
                <Table.Tbody>
                  {verdict.heads.map((head) => (
                    <Table.Tr key={head.chain}>
                      <Table.Td>{head.chain}</Table.Td>
                      <Table.Td className="number">{formatNumber(head.number)}</Table.Td>
                      <Table.Td className="mono wrap">{head.digest}</Table.Td>
                    </Table.Tr>
                  ))}
                </Table.Tbody>
              </Table>
            </details>
          </Alert>
        ) : (
          <span className="muted">
            {verify.isPending
              ? "Computing every link again; this may take minutes."
              : "Every row is covered by a chain of digests. Verifying computes all of them again."}
          </span>
        )}
      </div>
      <ErrorNote error={verify.error} />
    </Panel>
  );
}
