import { Anchor } from "@mantine/core";
import { useNavigate } from "react-router";

import { DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { FILL_COLUMNS, fillKey, useFills } from "@/trading/fills";

export default function Trades() {
  const fills = useFills({});
  const navigate = useNavigate();
  return (
    <Page title="Trades" note="Executions, as brokers told them">
      <Panel title="Executions" flush fill>
        <DataTable
          name="trades"
          label="Executions"
          rows={fills.rows}
          columns={FILL_COLUMNS}
          rowId={fillKey}
          sort="-at"
          loading={fills.isLoading}
          error={fills.error}
          retry={fills.refetch}
          stale={fills.isStale}
          cut={fills.isCut}
          empty={{ title: "Nothing has traded yet", hint: "Each execution appears here as soon as its broker tells it." }}
          onOpen={(fill) =>
            void navigate(`/orders/${encodeURIComponent(fill.account)}/${encodeURIComponent(fill.client_order_id)}?which=all`)
          }
          tools={
            <Anchor size="sm" href="/v1/fills.csv" download>
              the whole history as CSV
            </Anchor>
          }
        />
      </Panel>
    </Page>
  );
}
