/** Machines: how they are, what runs on them; a new one in, an old one out. */
import { Button, Group } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { labelsText } from "@/components/Labels";
import { Page, Panel } from "@/components/Page";
import { Stat } from "@/components/Stat";
import { StateBadge } from "@/components/StateBadge";
import { formatMegabytes, formatPercent, formatRate } from "@/format/measure";
import { useIsOperator } from "@/session/session";
import { useStale } from "@/stream/hooks";
import { useView, wholeList } from "@/stream/views";

import { type Node, stateOf } from "./node";
import { NodeDetail } from "./NodeDetail";
import { Register } from "./Register";
import { Tokens } from "./Tokens";

const sum = (values: (number | undefined)[]) => values.reduce<number>((all, each) => all + (each ?? 0), 0);
const received = (node: Node) => (node.facts ? sum(node.facts.network.map((each) => each.received_bytes_s)) : null);
const sent = (node: Node) => (node.facts ? sum(node.facts.network.map((each) => each.sent_bytes_s)) : null);

const columns: Column<Node>[] = [
  { id: "name", header: "Machine", value: (node) => node.name, width: 130 },
  {
    id: "state", header: "State", value: stateOf, width: 110,
    cell: (node) => <StateBadge state={stateOf(node)} reason={node.reasons.join("; ")} />,
  },
  { id: "algos", header: "Algos", value: (node) => node.algos.length, kind: "number", width: 66 },
  {
    id: "cpu", header: "CPU", value: (node) => node.facts?.cpu_percent, kind: "number", width: 74,
    cell: (node) => <span className="number">{formatPercent(node.facts?.cpu_percent)}</span>,
  },
  {
    id: "memory", header: "Memory", kind: "number", width: 130,
    value: (node) => (node.facts ? node.facts.memory_used_mb / Math.max(1, node.facts.memory_total_mb) : null),
    cell: (node) =>
      node.facts ? `${formatMegabytes(node.facts.memory_used_mb)} of ${formatMegabytes(node.facts.memory_total_mb)}` : "–",
  },
  {
    id: "disk", header: "Disk free", value: (node) => node.facts?.disk_free_mb, kind: "number", width: 90,
    cell: (node) => formatMegabytes(node.facts?.disk_free_mb),
  },
  { id: "in", header: "Net in", value: received, kind: "number", width: 90, cell: (node) => formatRate(received(node)) },
  { id: "out", header: "Net out", value: sent, kind: "number", width: 90, cell: (node) => formatRate(sent(node)) },
  {
    id: "load", header: "Load 1 min", value: (node) => node.facts?.load[0], kind: "number", width: 86,
    cell: (node) => node.facts?.load[0]?.toFixed(2) ?? "–",
  },
  {
    id: "skew", header: "Clock", value: (node) => node.facts?.clock?.skew_ms, kind: "number", width: 84, hidden: true,
    title: "How far its clock is ahead of the database's",
    cell: (node) => (node.facts?.clock ? `${node.facts.clock.skew_ms.toFixed(1)} ms` : "–"),
  },
  { id: "labels", header: "Labels", value: (node) => labelsText(node.labels), width: 190 },
  { id: "reasons", header: "Why", value: (node) => node.reasons.join("; "), width: 220 },
  { id: "platform", header: "System", value: (node) => node.facts?.platform, width: 160, hidden: true },
  { id: "code", header: "Code", value: (node) => node.facts?.code, width: 150, hidden: true },
  { id: "registered", header: "Registered", value: (node) => node.registered_at, kind: "time", width: 150, hidden: true },
];

export default function Nodes() {
  const isOperator = useIsOperator();
  const { id: open = null } = useParams();
  const navigate = useNavigate();
  const [registering, setRegistering] = useState(false);
  const query = useView({
    path: "nodes",
    queryKey: ["nodes"],
    read: () => readAll((cursor) => expect(api.GET("/v1/nodes", { params: { query: { limit: 1000, cursor } } }))),
    from: wholeList<Node>,
  });
  const nodes = useMemo(() => query.data?.items ?? [], [query.data]);
  const isStale = useStale() || query.isError;
  const shown = nodes.find((node) => node.name === open);
  const well = nodes.filter((node) => node.health === "ok").length;
  return (
    <Page
      title="Nodes"
      actions={
        isOperator ? (
          <Button
            leftSection={<IconPlus size={14} aria-hidden />}
            onClick={() => {
              setRegistering(true);
            }}
          >
            Register a machine
          </Button>
        ) : undefined
      }
    >
      <div className="stats">
        <Stat label="Machines well" value={`${String(well)} / ${String(nodes.length)}`} loading={query.isLoading} stale={isStale} />
        <Stat label="Algos on them" value={sum(nodes.map((node) => node.algos.length))} loading={query.isLoading} stale={isStale} />
        <Stat label="Cores" value={sum(nodes.map((node) => node.facts?.cpus))} loading={query.isLoading} stale={isStale} />
        <Stat
          label="Memory used"
          value={formatMegabytes(sum(nodes.map((node) => node.facts?.memory_used_mb)))}
          hint={`of ${formatMegabytes(sum(nodes.map((node) => node.facts?.memory_total_mb)))}`}
          loading={query.isLoading}
          stale={isStale}
        />
      </div>
      <Panel title="Machines" flush fill>
        <DataTable
          name="nodes"
          label="Machines"
          rows={nodes}
          columns={columns}
          rowId={(node) => node.name}
          sort="name"
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          stale={isStale}
          openId={open}
          onOpen={(node) => {
            void navigate(`/nodes/${encodeURIComponent(node.name)}`);
          }}
          empty={{ title: "No machine has joined yet", hint: "Register one: you get a command to paste on it." }}
        />
      </Panel>
      {isOperator ? <Tokens /> : null}
      {shown ? (
        <NodeDetail
          key={shown.name}
          node={shown}
          stale={isStale}
          onClose={() => {
            void navigate("/nodes");
          }}
        />
      ) : null}
      {registering ? (
        <Register
          nodes={nodes}
          onClose={() => {
            setRegistering(false);
          }}
        />
      ) : null}
      {open && !shown && query.data ? (
        <Group role="status">There is no machine {open} any more.</Group>
      ) : null}
    </Page>
  );
}
