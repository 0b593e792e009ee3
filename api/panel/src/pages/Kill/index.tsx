import { useState } from "react";
import { useNavigate, useParams } from "react-router";

import { api, expect, type Shape } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Time } from "@/components/values";
import { useMay } from "@/session/rights";
import { useView } from "@/stream/views";
import { type Kill, KillForm } from "@/trading/KillForm";
import { KillProof } from "@/trading/KillProof";

type Line = Shape<"KillLine">;

const NONE: Line[] = [];
const COLUMNS: Column<Line>[] = [
  {
    id: "state",
    header: "State",
    width: 90,
    value: (kill) => (kill.lifted_at ? "lifted" : "in force"),
    cell: (kill) => <StateBadge state={kill.lifted_at ? "removed" : "halted"} label={kill.lifted_at ? "lifted" : "in force"} />,
  },
  { id: "scope", header: "Scope", value: (kill) => kill.scope, width: 150 },
  { id: "reason", header: "Reason", value: (kill) => kill.reason, width: 240 },
  { id: "flatten", header: "Closes positions", value: (kill) => (kill.flatten ? "yes" : "no"), width: 110 },
  { id: "at", header: "Thrown", kind: "time", value: (kill) => kill.at, cell: (kill) => <Time at={kill.at} />, width: 130 },
  { id: "by", header: "By", value: (kill) => kill.by, width: 100 },
  { id: "lifted", header: "Lifted", kind: "time", value: (kill) => kill.lifted_at, cell: (kill) => <Time at={kill.lifted_at} />, width: 130 },
  { id: "lifted_by", header: "Lifted by", value: (kill) => kill.lifted_by, width: 100 },
];

export default function KillSwitch() {
  const { id } = useParams();
  const navigate = useNavigate();
  const may = useMay("trade");
  const [thrown, setThrown] = useState<Kill>();
  const kills = useView({ path: "risk/kills", queryKey: ["kills"], read: () => expect(api.GET("/v1/risk/kills")) });
  return (
    <Page title="Kill switch" note="Stops trading at once, and proves it">
      {id === undefined ? null : (
        <Panel title="Proof">
          <KillProof key={id} id={id} first={thrown?.id === id ? thrown : undefined} />
        </Panel>
      )}
      {may ? (
        <Panel title="Throw it">
          <KillForm
            onThrown={(kill) => {
              setThrown(kill);
              void kills.refetch();
              void navigate(`/kill/${kill.id}`);
            }}
          />
        </Panel>
      ) : null}
      <Panel title="Kills so far" flush fill>
        <DataTable
          name="kills"
          label="Kills"
          rows={kills.data ?? NONE}
          columns={COLUMNS}
          rowId={(kill) => kill.id}
          loading={kills.isPending}
          error={kills.error}
          retry={() => void kills.refetch()}
          stale={kills.isError}
          empty={{ title: "Never thrown", hint: "Whatever is stopped by the kill switch is listed here, with its proof." }}
          openId={id ?? null}
          onOpen={(kill) => void navigate(`/kill/${kill.id}`)}
        />
      </Panel>
    </Page>
  );
}
