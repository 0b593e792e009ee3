import { Button, Code, Table } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Time } from "@/components/values";
import { useMay } from "@/session/rights";
import type { Algo } from "@/trading/read";

/** Versions of its strategy, and going to another of them. */
export function Versions({ algo }: { algo: Algo }) {
  const client = useQueryClient();
  const may = useMay("algos");
  const [dialog, confirm] = useConfirm();
  const versions = useQuery({
    queryKey: ["strategy", algo.strategy, "versions"],
    queryFn: () =>
      expect(
        api.GET("/v1/strategies/{name}/versions", { params: { path: { name: algo.strategy }, query: { limit: 200 } } }),
      ),
  });
  return (
    <Panel title={`Versions of ${algo.strategy}`}>
      <ErrorNote error={versions.error} retry={() => void versions.refetch()} />
      <Table aria-label="Versions">
        <Table.Thead>
          <Table.Tr>
            {["Version", "Submitted", "By", "Entry", "State", "Act"].map((each) => (
              <Table.Th key={each}>{each}</Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {(versions.data?.items ?? []).map((each) => {
            const runs = each.version === algo.strategy_version;
            return (
              <Table.Tr key={each.version}>
                <Table.Td>
                  <Code>{each.version.slice(0, 12)}</Code>
                </Table.Td>
                <Table.Td>
                  <Time at={each.submitted_at} />
                </Table.Td>
                <Table.Td>{each.submitted_by}</Table.Td>
                <Table.Td>{each.entry}</Table.Td>
                <Table.Td>
                  {runs ? <StateBadge state="running" label="it runs this" /> : null}
                  {each.version === algo.previous_version ? <StateBadge state="info" label="the one before" /> : null}
                  {each.deprecated ? <StateBadge state="deprecated" reason={each.deprecated.because} /> : null}
                </Table.Td>
                <Table.Td>
                  {may && !runs && !each.deprecated ? (
                    <Button
                      size="compact-xs"
                      variant="default"
                      onClick={() => {
                        confirm({
                          title: `Take ${algo.id} to ${each.version.slice(0, 12)}`,
                          verb: "Upgrade",
                          children:
                            "Its parameters are checked against that version first. If it runs, it stops in order and goes on with the new version from its snapshot.",
                          act: async () => {
                            await expect(
                              api.POST("/v1/algos/{id}/upgrade", {
                                params: { path: { id: algo.id } },
                                body: { version: each.version, parameters: null },
                              }),
                            );
                            await client.invalidateQueries({ queryKey: ["algo", algo.id] });
                          },
                        });
                      }}
                    >
                      Go to it…
                    </Button>
                  ) : null}
                </Table.Td>
              </Table.Tr>
            );
          })}
        </Table.Tbody>
      </Table>
      {dialog}
    </Panel>
  );
}
