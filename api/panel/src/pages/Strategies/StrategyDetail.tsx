/** One strategy: its parameters, its versions, what changed between two of them, its code. */
import { Button, Code, Group, Select, Stack, Table, Tabs } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link, useNavigate } from "react-router";

import { readAll } from "@/api/all";
import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { type Column, DataTable } from "@/components/DataTable";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { fieldsOf, type Schema } from "@/components/schema";
import { StateBadge } from "@/components/StateBadge";
import { Time } from "@/components/values";
import { formatNumber } from "@/format/measure";
import { formatTime } from "@/format/time";

import { Diff } from "./Diff";
import { shortVersion, type Strategy } from "./strategy";

type Version = Shape<"VersionShown">;

export function StrategyDetail(given: { strategy: Strategy; mayWrite: boolean }) {
  const { strategy } = given;
  return (
    <Tabs defaultValue="parameters" keepMounted={false}>
      <Tabs.List>
        <Tabs.Tab value="parameters">Parameters</Tabs.Tab>
        {strategy.builtin ? null : <Tabs.Tab value="versions">Versions</Tabs.Tab>}
        {strategy.builtin || !given.mayWrite ? null : <Tabs.Tab value="diff">Differences</Tabs.Tab>}
        {given.mayWrite ? <Tabs.Tab value="code">Code</Tabs.Tab> : null}
      </Tabs.List>
      <Tabs.Panel value="parameters" pt="xs">
        <Parameters schema={strategy.parameters as Schema} />
      </Tabs.Panel>
      <Tabs.Panel value="versions" pt="xs">
        <Versions name={strategy.name} mayWrite={given.mayWrite} />
      </Tabs.Panel>
      <Tabs.Panel value="diff" pt="xs">
        <Differences name={strategy.name} />
      </Tabs.Panel>
      <Tabs.Panel value="code" pt="xs">
        <Source name={strategy.name} />
      </Tabs.Panel>
    </Tabs>
  );
}

function Parameters(given: { schema: Schema }) {
  const fields = fieldsOf(given.schema);
  if (!fields.length) return <p className="muted">It takes no parameters.</p>;
  return (
    <Panel title="What it wants to know" flush>
      <Table>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Name</Table.Th>
            <Table.Th>Kind</Table.Th>
            <Table.Th>If left out</Table.Th>
            <Table.Th>Bounds</Table.Th>
            <Table.Th>Takes changes while it runs</Table.Th>
            <Table.Th>Meaning</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {fields.map((field) => (
            <Table.Tr key={field.name}>
              <Table.Td>
                <Code>{field.name}</Code>
              </Table.Td>
              <Table.Td>{field.kind}</Table.Td>
              <Table.Td className="mono">{field.required ? "must be given" : JSON.stringify(field.fallback)}</Table.Td>
              <Table.Td>{field.bounds}</Table.Td>
              <Table.Td>{field.updatable ? "yes" : "no"}</Table.Td>
              <Table.Td className="wrap">{field.help}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Panel>
  );
}

function useVersions(name: string) {
  return useQuery({
    queryKey: ["versions", name],
    queryFn: () =>
      readAll((cursor) =>
        expect(api.GET("/v1/strategies/{name}/versions", { params: { path: { name }, query: { limit: 1000, cursor } } })),
      ),
  });
}

function Versions(given: { name: string; mayWrite: boolean }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [dialog, confirm] = useConfirm();
  const [open, setOpen] = useState<string | null>(null);
  const query = useVersions(given.name);
  const rows = useMemo(() => query.data?.items ?? [], [query.data]);
  const single = useQuery({
    queryKey: ["version", given.name, open],
    queryFn: () =>
      expect(api.GET("/v1/strategies/{name}/versions/{version}", { params: { path: { name: given.name, version: open ?? "" } } })),
    enabled: open !== null,
  });
  const again = async () => {
    await client.invalidateQueries({ queryKey: ["versions", given.name] });
    await client.invalidateQueries({ queryKey: ["version", given.name] });
    await client.invalidateQueries({ queryKey: ["strategies"] });
  };
  const columns = useMemo<Column<Version>[]>(
    () => [
      { id: "version", header: "Version", value: (each) => shortVersion(each.version), width: 130 },
      {
        id: "state", header: "State", value: (each) => (each.deprecated ? "deprecated" : "ready"), width: 110,
        cell: (each) => <StateBadge state={each.deprecated ? "deprecated" : "ready"} reason={each.deprecated?.because} />,
      },
      { id: "file", header: "File", value: (each) => each.file_name, width: 150 },
      { id: "size", header: "Bytes", value: (each) => each.size, kind: "number", width: 90, cell: (each) => formatNumber(each.size) },
      { id: "entry", header: "Class", value: (each) => each.entry, width: 200 },
      { id: "requirements", header: "Requirements", value: (each) => each.requirements.join(", "), width: 170 },
      { id: "by", header: "By", value: (each) => each.submitted_by, width: 100 },
      { id: "at", header: "At", value: (each) => each.submitted_at, kind: "time", width: 140, cell: (each) => <Time at={each.submitted_at} /> },
    ],
    [],
  );
  const shown = single.data;
  const params = { path: { name: given.name, version: open ?? "" } };
  return (
    <div className="columns">
      {dialog}
      <Panel title={`Versions of ${given.name}`} flush className="span-7">
        <DataTable
          name="versions"
          label={`Versions of ${given.name}`}
          rows={rows}
          columns={columns}
          rowId={(each) => each.version}
          sort="-at"
          height={260}
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          openId={open}
          onOpen={(each) => {
            setOpen(each.version);
          }}
        />
      </Panel>
      <Panel title="The version" className="span-5">
        <ErrorNote error={single.error} />
        {shown ? (
          <Stack gap="xs">
            <Code className="wrap">{shown.version}</Code>
            {shown.deprecated ? (
              <div className="wrap">
                Deprecated by {shown.deprecated.by}: {shown.deprecated.because}
              </div>
            ) : null}
            <div>
              Algos on it:{" "}
              {shown.algos?.length
                ? shown.algos.map((algo, index) => (
                    <span key={algo}>
                      {index ? ", " : ""}
                      <Link to={`/algos/${encodeURIComponent(algo)}`}>{algo}</Link>
                    </span>
                  ))
                : "none"}
            </div>
            {shown.files?.length ? <div className="wrap muted">Files: {shown.files.join(", ")}</div> : null}
            <details>
              <summary>What the check found</summary>
              <Code block className="wrap">
                {JSON.stringify(shown.checked, null, 1)}
              </Code>
            </details>
            {given.mayWrite ? (
              <Group gap="xs">
                {shown.deprecated ? (
                  <Button
                    variant="default"
                    onClick={() => {
                      confirm({
                        title: `Reinstate version ${shortVersion(shown.version)} of ${given.name}`,
                        children: "Algos may be put on it again.",
                        verb: "Reinstate",
                        act: async () => {
                          await expect(api.POST("/v1/strategies/{name}/versions/{version}/reinstate", { params }));
                          await again();
                        },
                      });
                    }}
                  >
                    Reinstate
                  </Button>
                ) : (
                  <Button
                    variant="default"
                    onClick={() => {
                      confirm({
                        title: `Deprecate version ${shortVersion(shown.version)} of ${given.name}`,
                        children: "Algos on it run on; no algo is put on it any more.",
                        verb: "Deprecate",
                        reason: true,
                        act: async (because) => {
                          await expect(
                            api.POST("/v1/strategies/{name}/versions/{version}/deprecate", { params, body: { because } }),
                          );
                          await again();
                        },
                      });
                    }}
                  >
                    Deprecate
                  </Button>
                )}
                <Button
                  variant="default"
                  c="var(--qd-bad)"
                  onClick={() => {
                    confirm({
                      title: `Delete version ${shortVersion(shown.version)} of ${given.name}`,
                      children: "Its code is forgotten; a version that an algo needs cannot be deleted.",
                      verb: "Delete",
                      danger: true,
                      act: async () => {
                        await expect(api.DELETE("/v1/strategies/{name}/versions/{version}", { params }));
                        setOpen(null);
                        await again();
                      },
                    });
                  }}
                >
                  Delete
                </Button>
                <Button
                  variant="default"
                  c="var(--qd-bad)"
                  onClick={() => {
                    confirm({
                      title: `Delete ${given.name}`,
                      children: "The strategy with all its versions is forgotten; one that an algo needs cannot be deleted.",
                      verb: "Delete all",
                      danger: true,
                      typed: given.name,
                      act: async () => {
                        await expect(api.DELETE("/v1/strategies/{name}", { params: { path: { name: given.name } } }));
                        await client.invalidateQueries({ queryKey: ["strategies"] });
                        void navigate("/strategies");
                      },
                    });
                  }}
                >
                  Delete the strategy
                </Button>
              </Group>
            ) : null}
          </Stack>
        ) : (
          <span className="muted">{single.isLoading ? "Reading…" : "Choose a version."}</span>
        )}
      </Panel>
    </div>
  );
}

function Differences(given: { name: string }) {
  const versions = useVersions(given.name);
  const items = versions.data?.items ?? [];
  const [from, setFrom] = useState<string | null>(null);
  const [to, setTo] = useState<string | null>(null);
  // Newest first as the server lists them: what changed last.
  const first = from ?? items[1]?.version ?? null;
  const second = to ?? items[0]?.version ?? null;
  const query = useQuery({
    queryKey: ["diff", given.name, first, second],
    queryFn: () =>
      expect(
        api.GET("/v1/strategies/{name}/diff", {
          params: { path: { name: given.name }, query: { from: first ?? "", to: second ?? "" } },
        }),
      ),
    enabled: first !== null && second !== null && first !== second,
  });
  const data = items.map((each) => ({
    value: each.version,
    label: `${shortVersion(each.version)} · ${formatTime(each.submitted_at)}`,
  }));
  return (
    <Panel title="What changed">
      <Group align="end" gap="xs" mb="xs">
        <Select label="From" data={data} value={first} onChange={setFrom} w={260} />
        <Select label="To" data={data} value={second} onChange={setTo} w={260} />
      </Group>
      <ErrorNote error={versions.error ?? query.error} />
      {items.length < 2 ? <p className="muted">There is one version only.</p> : null}
      {query.data ? query.data.diff ? <Diff text={query.data.diff} /> : <p>They are the same.</p> : null}
    </Panel>
  );
}

function Source(given: { name: string }) {
  const query = useQuery({
    queryKey: ["strategy", given.name],
    queryFn: () => expect(api.GET("/v1/strategies/{name}", { params: { path: { name: given.name } } })),
  });
  return (
    <Panel title="Code of the newest version">
      <ErrorNote error={query.error} retry={() => void query.refetch()} />
      {query.data ? (
        query.data.source ? (
          <Code block className="wrap">
            {query.data.source}
          </Code>
        ) : (
          <p className="muted">Its code is in more than one file, or comes with Quarterdeck; its versions name the files.</p>
        )
      ) : null}
    </Panel>
  );
}
