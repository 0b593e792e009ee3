/** The everyday acts: start what should run today, pause entries, flatten an account. */
import { Button, Checkbox, Group, List, Modal, ScrollArea, Select, Stack, Text, Textarea } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { StateBadge } from "@/components/StateBadge";
import { useAct } from "@/components/useAct";
import { stateOf } from "@/pages/Algos/algos";
import { type BatchOutcome, commandMany, missedOf, NOT_HEARD, notDone } from "@/trading/batch";
import { Flattened, notClosed } from "@/trading/Flattened";
import { type Algo, readAlgos, useAccounts } from "@/trading/read";

interface Dialog {
  opened: boolean;
  onClose: () => void;
}

export function StartAll(given: Dialog) {
  return (
    <Modal opened={given.opened} onClose={given.onClose} title={<strong>Start for the day</strong>} size="lg">
      {given.opened ? (
        <Choose
          {...given}
          wanted={(algo) => algo.want === "stopped" && !["starting", "running", "paused", "stopping"].includes(algo.state)}
          none={(algos) => `No algo is stopped: ${counts(algos)}.`}
          verb="Start"
          send={(ids) => commandMany({ action: "start", ids })}
        >
          <Text>These are stopped. Those that are chosen are started on the machines that they belong to.</Text>
        </Choose>
      ) : null}
    </Modal>
  );
}

export function PauseEntries(given: Dialog) {
  const [because, setBecause] = useState("");
  const [cancelOpen, setCancelOpen] = useState(true);
  return (
    <Modal opened={given.opened} onClose={given.onClose} title={<strong>Pause entries</strong>} size="lg">
      {given.opened ? (
        <Choose
          {...given}
          wanted={(algo) => algo.want === "running" && !algo.paused_by}
          none={(algos) => `No algo is to run and not paused: ${counts(algos)}.`}
          verb="Pause"
          send={(ids) => commandMany({ action: "pause", ids, because: because.trim(), cancel_open: cancelOpen })}
        >
          <Text>
            Paused algos run on, see the market and may reduce what they hold; whatever else they ask for is refused.
          </Text>
          <Textarea
            label="Reason"
            maxLength={500}
            value={because}
            onChange={(event) => {
              setBecause(event.currentTarget.value);
            }}
          />
          <Checkbox
            label="Take back open orders that could enlarge a position"
            checked={cancelOpen}
            onChange={(event) => {
              setCancelOpen(event.currentTarget.checked);
            }}
          />
        </Choose>
      ) : null}
    </Modal>
  );
}

/** A choice of algos, all at first, and one command to them. */
function Choose(
  given: Dialog & {
    wanted: (algo: Algo) => boolean;
    /** Why nothing is offered, where there are algos. */
    none: (algos: Algo[]) => string;
    verb: string;
    send: (ids: string[]) => Promise<BatchOutcome>;
    children: ReactNode;
  },
) {
  const client = useQueryClient();
  // What is offered and ticked is what was there when the dialog was opened; it never grows unseen.
  const algos = useQuery({ queryKey: ["algos", "to-command"], queryFn: readAlgos, staleTime: 0, gcTime: 0 });
  const [offered, setOffered] = useState<ReadonlySet<string> | null>(null);
  const [ticked, setTicked] = useState<ReadonlySet<string>>(new Set());
  if (offered === null && algos.data) {
    const ids = new Set(algos.data.items.filter(given.wanted).map((each) => each.id));
    setOffered(ids);
    setTicked(ids);
  }
  const title = `${given.verb} algos`;
  const { busy, error, run } = useAct(title);
  const [outcome, setOutcome] = useState<BatchOutcome | null>(null);
  const found = (algos.data?.items ?? []).filter((each) => offered?.has(each.id));
  const chosen = found.filter((each) => ticked.has(each.id)).map((each) => each.id);
  const act = async () => {
    const sent = await given.send(chosen);
    void client.invalidateQueries({ queryKey: ["algos"] });
    void client.invalidateQueries({ queryKey: ["deck"] });
    return sent;
  };
  if (outcome) return <Outcome outcome={outcome} onClose={given.onClose} />;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (chosen.length) void run(act, setOutcome, (sent) => missedOf(title, sent));
      }}
    >
      <Stack gap="sm">
        {given.children}
        <ErrorNote error={algos.error ?? error} />
        {algos.isSuccess && !found.length ? (
          <Text c="dimmed">{algos.data.items.length ? given.none(algos.data.items) : "There is no algo yet."}</Text>
        ) : null}
        <ScrollArea.Autosize mah={280}>
          <Stack gap={4}>
            {found.map((each) => (
              <Checkbox
                key={each.id}
                size="xs"
                disabled={busy}
                checked={ticked.has(each.id)}
                onChange={() => {
                  const next = new Set(ticked);
                  if (!next.delete(each.id)) next.add(each.id);
                  setTicked(next);
                }}
                label={
                  <Group gap="xs">
                    <strong>{each.id}</strong>
                    <StateBadge state={each.state} reason={each.reason} />
                    <span className="muted">
                      {each.strategy} on {each.account}
                    </span>
                  </Group>
                }
              />
            ))}
          </Stack>
        </ScrollArea.Autosize>
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={given.onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={busy} disabled={!chosen.length}>
            {given.verb} {chosen.length} {chosen.length === 1 ? "algo" : "algos"}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** How many are in each state, in words. */
function counts(algos: Algo[]): string {
  const byState = new Map<string, number>();
  for (const state of algos.map(stateOf)) byState.set(state, (byState.get(state) ?? 0) + 1);
  return [...byState].map(([state, count]) => `${String(count)} ${state.replaceAll("_", " ")}`).join(", ");
}

/** What came of a command to many. */
export function Outcome(given: { outcome: BatchOutcome; onClose: () => void }) {
  const { outcome } = given;
  const missed = notDone(outcome);
  return (
    <Stack gap="sm">
      <StateBadge
        state={missed.length ? "warning" : "ok"}
        label={`${String(outcome.done)} done${outcome.refused ? `, ${String(outcome.refused)} refused` : ""}`}
      />
      {outcome.holds === false ? (
        <Text c="var(--qd-warn)">{NOT_HEARD}</Text>
      ) : null}
      {missed.length ? (
        <List size="sm">
          {missed.map((each) => (
            <List.Item key={each.key} className="wrap">
              <strong>{each.id}</strong>: {each.detail}
            </List.Item>
          ))}
        </List>
      ) : null}
      <Group justify="flex-end">
        <Button onClick={given.onClose} data-autofocus>
          Close
        </Button>
      </Group>
    </Stack>
  );
}

export function FlattenAccount(given: Dialog & { account?: string }) {
  return (
    <Modal opened={given.opened} onClose={given.onClose} title={<strong>Flatten an account</strong>}>
      {given.opened ? <Flatten {...given} /> : null}
    </Modal>
  );
}

function Flatten(given: Dialog & { account?: string }) {
  const client = useQueryClient();
  const { accounts, error: unread, retry } = useAccounts();
  const [account, setAccount] = useState<string | null>(given.account ?? null);
  const [reason, setReason] = useState("");
  const { busy, error, run } = useAct("Flattening an account");
  const [done, setDone] = useState<{ account: string; answer: Shape<"FlattenShown"> } | null>(null);
  const act = async (id: string) => {
    const answer = await expect(
      api.POST("/v1/accounts/{id}/flatten", { params: { path: { id } }, body: { reason: reason.trim() } }),
    );
    void client.invalidateQueries({ queryKey: ["deck"] });
    return { account: id, answer };
  };
  if (done) {
    return (
      <Stack gap="sm">
        <Flattened account={done.account} done={done.answer} />
        <Group justify="flex-end" gap="xs">
          {done.answer.refused.length ? (
            <Button
              variant="default"
              onClick={() => {
                setDone(null);
              }}
            >
              Flatten again…
            </Button>
          ) : null}
          <Button onClick={given.onClose}>Close</Button>
        </Group>
      </Stack>
    );
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (account && reason.trim()) void run(() => act(account), setDone, ({ answer }) => notClosed(account, answer));
      }}
    >
      <Stack gap="sm">
        <Text>
          Its open orders are taken back and its positions are closed at the market. Its algos run on: pause or stop them
          first if they should not enter again.
        </Text>
        <ErrorNote error={unread} retry={retry} />
        <Select
          label="Account"
          required
          searchable
          data={accounts.map(({ id, user }) => ({ value: id, label: `${id} (${user})` }))}
          value={account}
          disabled={busy}
          onChange={setAccount}
        />
        <Textarea
          label="Reason"
          required
          maxLength={500}
          value={reason}
          onChange={(event) => {
            setReason(event.currentTarget.value);
          }}
        />
        <ErrorNote error={error} />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={given.onClose}>
            Cancel
          </Button>
          <Button type="submit" color="red.9" loading={busy} disabled={!account || !reason.trim()}>
            Flatten {account ?? "it"}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
