/** One machine: how it was during the last day, what runs there, and what may be done with it. */
import { Button, Drawer, Group, Stack, Table, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useMemo, useState } from "react";
import { Link } from "react-router";

import { api, expect, ProblemError } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Labels, labelsText, readLabels } from "@/components/Labels";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { useLateFailure } from "@/components/useAct";
import { Ago } from "@/components/values";
import { formatMegabytes, formatNumber, formatPercent, formatRate } from "@/format/measure";
import { formatSpan } from "@/format/time";
import { useIsOperator } from "@/session/session";

import { type Node, stateOf } from "./node";

const TimeChart = lazy(() => import("@/charts/TimeChart"));

export function NodeDetail(given: { node: Node; stale: boolean; onClose: () => void }) {
  const { node } = given;
  const isOperator = useIsOperator();
  return (
    <Drawer
      opened
      onClose={given.onClose}
      position="right"
      size="xl"
      title={
        <Group gap="sm">
          <strong>{node.name}</strong>
          <StateBadge state={stateOf(node)} />
        </Group>
      }
    >
      <Stack gap="sm">
        {node.reasons.length ? (
          <ul className="wrap" style={{ margin: 0, paddingInlineStart: 18 }}>
            {node.reasons.map((each) => (
              <li key={each}>{each}</li>
            ))}
          </ul>
        ) : null}
        {isOperator ? <Actions node={node} onRemoved={given.onClose} /> : <Labels labels={node.labels} />}
        <Stack gap="sm" className={given.stale ? "stale" : ""}>
          <Facts node={node} />
          <LastDay name={node.name} />
          <Algos node={node} />
          {node.facts?.processes.length ? <Processes node={node} /> : null}
        </Stack>
      </Stack>
    </Drawer>
  );
}

function Actions(given: { node: Node; onRemoved: () => void }) {
  const { node } = given;
  const client = useQueryClient();
  const [dialog, confirm] = useConfirm();
  // Written against what was there when the form was opened: the server refuses where somebody has changed it since.
  const [opened, setOpened] = useState(node);
  const [labels, setLabels] = useState(labelsText(node.labels));
  const read = readLabels(labels);
  const params = { path: { name: node.name } };
  const again = () => client.invalidateQueries({ queryKey: ["nodes"] });
  const change = useMutation({
    mutationFn: (body: { cordoned?: boolean; draining?: boolean; labels?: Record<string, string>; generation?: number }) =>
      expect(api.PATCH("/v1/nodes/{name}", { params, body })),
    onSuccess: (changed, body) => {
      if (body.labels || changed.generation === opened.generation + 1) setOpened(changed);
    },
    onError: useLateFailure(`Change ${node.name}`),
    onSettled: again,
  });
  const drain = () => {
    confirm({
      title: `Drain ${node.name}`,
      children: (
        <>
          New algos stay away, and its {String(node.algos.length)} algos go to other machines one by one, each in order.
        </>
      ),
      verb: `Drain ${node.name}`,
      act: () => change.mutateAsync({ draining: true }),
    });
  };
  const force = change.error instanceof ProblemError && change.error.code === "node_is_needed";
  const remove = () => {
    confirm({
      title: `Remove ${node.name}`,
      children: "The machine is forgotten, and leaves the cluster if it joined with a token. Drain it first.",
      verb: `Remove ${node.name}`,
      danger: true,
      typed: node.name,
      act: async () => {
        await expect(api.DELETE("/v1/nodes/{name}", { params }));
        await again();
        given.onRemoved();
      },
    });
  };
  return (
    <Stack gap="xs">
      {dialog}
      <Group gap="xs">
        <Button
          variant="default"
          loading={change.isPending}
          onClick={() => {
            change.mutate({ cordoned: !node.cordoned });
          }}
        >
          {node.cordoned ? "Take algos again" : "Cordon: no new algos"}
        </Button>
        {node.draining ? (
          <Button
            variant="default"
            loading={change.isPending}
            onClick={() => {
              change.mutate({ draining: false });
            }}
          >
            Stop draining
          </Button>
        ) : (
          <Button variant="default" onClick={drain}>
            Drain
          </Button>
        )}
        <Button variant="default" c="var(--qd-bad)" onClick={remove}>
          Remove
        </Button>
      </Group>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (read) change.mutate({ labels: read, generation: opened.generation });
        }}
      >
        <Group gap="xs" align="end">
          <TextInput
            label="Labels"
            style={{ flex: 1 }}
            value={labels}
            error={read ? undefined : "Write key=value, key=value"}
            onChange={(event) => {
              setLabels(event.currentTarget.value);
            }}
          />
          <Button type="submit" variant="default" disabled={!read || labels === labelsText(node.labels)} loading={change.isPending}>
            Save labels
          </Button>
        </Group>
      </form>
      <ErrorNote error={change.error} title={force ? "It is needed" : undefined} />
    </Stack>
  );
}

function Facts(given: { node: Node }) {
  const { facts } = given.node;
  if (!facts) return <p className="muted">Nothing has been heard of it lately.</p>;
  const lines: [string, string][] = [
    ["Host", facts.host],
    ["CPU", `${formatPercent(facts.cpu_percent)} of ${String(facts.cpus)} cores, load ${facts.load.map((each) => each.toFixed(2)).join(" ")}`],
    ["Memory", `${formatMegabytes(facts.memory_used_mb)} of ${formatMegabytes(facts.memory_total_mb)}, swap ${formatMegabytes(facts.swap_used_mb)}`],
    ["Disk", `${formatMegabytes(facts.disk_free_mb)} free of ${formatMegabytes(facts.disk_total_mb)}`],
    ...facts.network.map((each): [string, string] => [
      `Network ${each.name}`,
      `in ${formatRate(each.received_bytes_s)}, out ${formatRate(each.sent_bytes_s)}, ${String(each.errors)} errors, ${String(each.drops)} drops`,
    ]),
    ["Clock", facts.clock ? `${facts.clock.skew_ms.toFixed(1)} ms ahead (± ${facts.clock.error_ms.toFixed(1)})` : "not measured yet"],
    ["Temperature", facts.temperature ? `${facts.temperature.celsius.toFixed(0)} °C (${facts.temperature.sensor})` : "no sensor"],
    ["Address seen from outside", facts.egress ? `${facts.egress.address}, told by ${facts.egress.told_by}` : "not asked"],
    ["Up for", formatSpan(facts.uptime_s * 1000)],
    ["Python", facts.python],
    ["Code", facts.code],
    ["System", facts.platform],
    ["Files open", `${formatNumber(facts.descriptors)} of ${formatNumber(facts.descriptors_limit)}`],
  ];
  return (
    <Panel title="Facts" flush actions={<Ago at={facts.at} />}>
      <Table>
        <Table.Tbody>
          {lines.map(([name, text]) => (
            <Table.Tr key={name}>
              <Table.Th w={170}>{name}</Table.Th>
              <Table.Td className="wrap">{text}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Panel>
  );
}

function LastDay(given: { name: string }) {
  const query = useQuery({
    queryKey: ["node-history", given.name],
    queryFn: () =>
      expect(
        api.GET("/v1/nodes/{name}/history", {
          params: { path: { name: given.name }, query: { metric: ["cpu_percent", "cpu_percent_most", "memory_used_mb"] } },
        }),
      ),
    refetchInterval: 60_000,
  });
  const items = query.data?.items;
  const cpu = useMemo(
    () => [
      { title: "mean", points: (items ?? []).map(({ at, metrics }) => ({ at, value: metrics.cpu_percent ?? null })) },
      { title: "busiest", points: (items ?? []).map(({ at, metrics }) => ({ at, value: metrics.cpu_percent_most ?? null })) },
    ],
    [items],
  );
  const memory = useMemo(
    () => [{ title: "memory", points: (items ?? []).map(({ at, metrics }) => ({ at, value: metrics.memory_used_mb ?? null })) }],
    [items],
  );
  return (
    <>
      <Panel title="CPU, last day (%)">
        <ErrorNote error={query.error} retry={() => void query.refetch()} />
        {items?.length ? (
          <Suspense fallback={<div style={{ height: 130 }} />}>
            <TimeChart label={`CPU of ${given.name} by the minute during the last day`} lines={cpu} height={130} />
          </Suspense>
        ) : (
          <p className="muted">{query.isLoading ? "Reading…" : "No whole minute yet."}</p>
        )}
      </Panel>
      {items?.length ? (
        <Panel title="Memory used, last day (MB)">
          <Suspense fallback={<div style={{ height: 110 }} />}>
            <TimeChart label={`Memory of ${given.name} by the minute during the last day`} lines={memory} height={110} />
          </Suspense>
        </Panel>
      ) : null}
    </>
  );
}

function Algos(given: { node: Node }) {
  if (!given.node.algos.length) return <p className="muted">No algo runs here.</p>;
  return (
    <Panel title="Algos here" flush>
      <Table>
        <Table.Tbody>
          {given.node.algos.map((algo) => (
            <Table.Tr key={algo.id}>
              <Table.Td>
                <Link to={`/algos/${encodeURIComponent(algo.id)}`}>{algo.id}</Link>
              </Table.Td>
              <Table.Td>
                <StateBadge state={algo.state} />
              </Table.Td>
              <Table.Td className="wrap">{algo.reason}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Panel>
  );
}

function Processes(given: { node: Node }) {
  const all = [...(given.node.facts?.processes ?? [])].sort((a, b) => b.memory_mb - a.memory_mb);
  return (
    <Panel title={`Processes of ours (${String(all.length)})`} flush>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Process</Table.Th>
            <Table.Th className="number">Id</Table.Th>
            <Table.Th className="number">Memory</Table.Th>
            <Table.Th className="number">CPU</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {all.slice(0, 60).map((each) => (
            <Table.Tr key={each.pid}>
              <Table.Td>{each.title}</Table.Td>
              <Table.Td className="number">{each.pid}</Table.Td>
              <Table.Td className="number">{formatMegabytes(each.memory_mb)}</Table.Td>
              <Table.Td className="number">{formatPercent(each.cpu_percent)}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Panel>
  );
}
