/** Commands to one algo or to many, each with its dialog. */
import { Button, Checkbox, Group, Menu, Modal, Radio, Select, Stack, Text, Textarea } from "@mantine/core";
import {
  IconArrowMoveRight, IconChevronDown, IconPlayerPause, IconPlayerPlay, IconPlayerStop, IconPlayerTrackNext, IconRefresh,
} from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { useAct } from "@/components/useAct";
import { Outcome } from "@/pages/Deck/acts";
import { type BatchOutcome, type BatchWanted, commandMany, missedOf } from "@/trading/batch";

type Action = BatchWanted["action"];

const TITLES: Record<Action, string> = {
  start: "Start", stop: "Stop", restart: "Restart", pause: "Pause", resume: "Resume", move: "Move",
};

/** Buttons that command these algos. */
export function Commands(given: { ids: string[]; compact?: boolean }) {
  const [action, setAction] = useState<Action | null>(null);
  const { ids } = given;
  const disabled = !ids.length;
  const open = (next: Action) => () => {
    setAction(next);
  };
  return (
    <Group gap={5}>
      <Button disabled={disabled} leftSection={<IconPlayerPlay size={14} aria-hidden />} onClick={open("start")}>
        Start
      </Button>
      <Button disabled={disabled} variant="default" leftSection={<IconPlayerStop size={14} aria-hidden />} onClick={open("stop")}>
        Stop
      </Button>
      <Button disabled={disabled} variant="default" leftSection={<IconPlayerPause size={14} aria-hidden />} onClick={open("pause")}>
        Pause
      </Button>
      <Menu position="bottom-end" shadow="md">
        <Menu.Target>
          <Button disabled={disabled} variant="default" rightSection={<IconChevronDown size={13} aria-hidden />}>
            More
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item leftSection={<IconPlayerTrackNext size={15} aria-hidden />} onClick={open("resume")}>
            Resume
          </Menu.Item>
          <Menu.Item leftSection={<IconRefresh size={15} aria-hidden />} onClick={open("restart")}>
            Restart
          </Menu.Item>
          <Menu.Item leftSection={<IconArrowMoveRight size={15} aria-hidden />} onClick={open("move")}>
            Move to another machine
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {action ? (
        <Command
          ids={ids}
          action={action}
          onClose={() => {
            setAction(null);
          }}
        />
      ) : null}
    </Group>
  );
}

function Command(given: { ids: string[]; action: Action; onClose: () => void }) {
  const { action } = given;
  // The choice may change while the dialog is open; the command is for those that it named.
  const [ids] = useState(given.ids);
  const client = useQueryClient();
  const [orders, setOrders] = useState<"cancel" | "leave">("cancel");
  const [position, setPosition] = useState<"keep" | "flatten">("keep");
  const [because, setBecause] = useState("");
  const [cancelOpen, setCancelOpen] = useState(false);
  const [node, setNode] = useState<string>("");
  const [force, setForce] = useState(false);
  const [outcome, setOutcome] = useState<BatchOutcome | null>(null);
  const whom = ids.length === 1 ? (ids[0] ?? "") : `${String(ids.length)} algos`;
  const title = `${TITLES[action]} ${whom}`;
  const { busy, error, run } = useAct(title);
  const act = async () => {
    const own: Partial<BatchWanted> =
      action === "stop" ? { orders, position }
      : action === "pause" ? { because: because.trim(), cancel_open: cancelOpen }
      : action === "move" ? { node, force }
      : {};
    const sent = await commandMany({ action, ids, ...own });
    void client.invalidateQueries({ queryKey: ["algos"] });
    for (const id of ids) void client.invalidateQueries({ queryKey: ["algo", id] });
    return sent;
  };
  const left = (sent: BatchOutcome) => missedOf(title, sent);
  const done = (sent: BatchOutcome) => {
    if (left(sent)) setOutcome(sent);
    else given.onClose();
  };
  const words: Record<Action, ReactNode> = {
    start: "It starts on the machine it belongs to; what runs already goes on untouched.",
    restart: "It stops in order and goes on from its snapshot.",
    resume: "Its orders pass again.",
    stop: null,
    pause: "It runs on, sees the market and may reduce what it holds; whatever else it asks for is refused.",
    move: "It stops in order on its machine and goes on elsewhere from its snapshot.",
  };
  return (
    <Modal
      opened
      onClose={given.onClose}
      title={<strong>{title}</strong>}
    >
      {outcome ? (
        <Outcome outcome={outcome} onClose={given.onClose} />
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            void run(act, done, left);
          }}
        >
          <Stack gap="sm">
            {words[action] === null ? null : <Text>{words[action]}</Text>}
            {ids.length > 1 ? (
              <Text c="dimmed" size="sm" className="wrap">
                {ids.slice(0, 30).join(", ")}
                {ids.length > 30 ? ` and ${String(ids.length - 30)} more` : ""}
              </Text>
            ) : null}
            {action === "stop" ? (
              <>
                <Radio.Group label="Its open orders" value={orders} onChange={(value) => { setOrders(value as typeof orders); }}>
                  <Group mt={4}>
                    <Radio size="xs" value="cancel" label="are taken back" />
                    <Radio size="xs" value="leave" label="are left open" />
                  </Group>
                </Radio.Group>
                <Radio.Group label="Its position" value={position} onChange={(value) => { setPosition(value as typeof position); }}>
                  <Group mt={4}>
                    <Radio size="xs" value="keep" label="stays as it is" />
                    <Radio size="xs" value="flatten" label="is closed at the market" />
                  </Group>
                </Radio.Group>
              </>
            ) : null}
            {action === "pause" ? (
              <>
                <Textarea label="Reason" maxLength={500} value={because} onChange={(event) => { setBecause(event.currentTarget.value); }} />
                <Checkbox label="Take back open orders that could enlarge a position" checked={cancelOpen} onChange={(event) => { setCancelOpen(event.currentTarget.checked); }} />
              </>
            ) : null}
            {action === "move" ? (
              <>
                <NodeSelect value={node} onChange={setNode} />
                <Checkbox label="Also to a machine that cannot take it now: it waits there" checked={force} onChange={(event) => { setForce(event.currentTarget.checked); }} />
              </>
            ) : null}
            <ErrorNote error={error} />
            <Group justify="flex-end" gap="xs">
              <Button variant="default" onClick={given.onClose}>
                Cancel
              </Button>
              <Button type="submit" loading={busy} color={action === "stop" ? "red.9" : undefined} data-autofocus>
                {title}
              </Button>
            </Group>
          </Stack>
        </form>
      )}
    </Modal>
  );
}

/** A machine, or wherever the Supervisor finds best. */
export function NodeSelect(given: { value: string; onChange: (node: string) => void; error?: string | undefined }) {
  const nodes = useQuery({
    queryKey: ["nodes", "names"],
    queryFn: () => expect(api.GET("/v1/nodes", { params: { query: { limit: 1_000 } } })),
    staleTime: 15_000,
  });
  const names = (nodes.data?.items ?? []).map((each) => ({
    value: each.name,
    label: `${each.name} (${each.health}${each.cordoned ? ", cordoned" : ""})`,
  }));
  return (
    <Select
      label="Machine"
      data={[{ value: "", label: "Wherever fits best" }, ...names]}
      value={given.value}
      error={given.error}
      onChange={(value) => {
        given.onChange(value ?? "");
      }}
    />
  );
}
