/** Strategies: what there is to run, its versions, what each wants to know; new code in. */
import { Button } from "@mantine/core";
import { IconUpload } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { Time } from "@/components/values";
import { useMay } from "@/session/rights";

import { shortVersion, type Strategy } from "./strategy";
import { StrategyDetail } from "./StrategyDetail";
import { Upload } from "./Upload";

const columns: Column<Strategy>[] = [
  { id: "name", header: "Strategy", value: (each) => each.name, width: 190 },
  { id: "kind", header: "Comes from", value: (each) => (each.builtin ? "built in" : "uploaded"), width: 100 },
  { id: "version", header: "Version", value: (each) => shortVersion(each.version), width: 130 },
  { id: "entry", header: "Class", value: (each) => each.entry, width: 220 },
  {
    id: "parameters", header: "Parameters", width: 320,
    value: (each) => Object.keys((each.parameters.properties ?? {}) as object).join(", "),
  },
  { id: "created", header: "Since", value: (each) => each.created_at, kind: "time", width: 140, cell: (each) => <Time at={each.created_at} /> },
];

export default function Strategies() {
  const { name = null } = useParams();
  const navigate = useNavigate();
  const mayWrite = useMay("strategies");
  const [uploading, setUploading] = useState(false);
  const query = useQuery({
    queryKey: ["strategies"],
    queryFn: () => readAll((cursor) => expect(api.GET("/v1/strategies", { params: { query: { limit: 1000, cursor } } }))),
    refetchInterval: 15_000,
  });
  const rows = useMemo(() => query.data?.items ?? [], [query.data]);
  const open = rows.find((each) => each.name === name);
  return (
    <Page
      title="Strategies"
      actions={
        mayWrite ? (
          <Button
            leftSection={<IconUpload size={14} aria-hidden />}
            onClick={() => {
              setUploading(true);
            }}
          >
            Upload
          </Button>
        ) : undefined
      }
    >
      <Panel title="Strategies" flush fill={!open}>
        <DataTable
          name="strategies"
          label="Strategies"
          rows={rows}
          columns={columns}
          rowId={(each) => each.name}
          sort="name"
          {...(open ? { height: 190 } : {})}
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          openId={name}
          onOpen={(each) => {
            void navigate(`/strategies/${encodeURIComponent(each.name)}`);
          }}
          empty={{ title: "No strategy yet", hint: "Upload a Python file, a zip or a wheel." }}
        />
      </Panel>
      {open ? <StrategyDetail key={open.name} strategy={open} mayWrite={mayWrite} /> : null}
      {name !== null && query.data && !open ? <p role="status">There is no strategy {name}.</p> : null}
      {uploading ? (
        <Upload
          known={rows.filter((each) => !each.builtin).map((each) => each.name)}
          {...(open && !open.builtin ? { name: open.name } : {})}
          onClose={() => {
            setUploading(false);
          }}
        />
      ) : null}
    </Page>
  );
}
