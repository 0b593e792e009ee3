import { Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQuery, useQueryClient } from "@tanstack/react-query";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import type { Schema } from "@/components/schema";
import { SchemaForm } from "@/components/SchemaForm";
import { useMay } from "@/session/rights";
import type { Algo } from "@/trading/read";

import { APPLIED } from "./algos";

/** The schema of what an algo runs: of its version, or of the built-in strategy. */
export async function readSchema(strategy: string, version: string): Promise<Schema> {
  if (!version) return (await expect(api.GET("/v1/strategies/{name}", { params: { path: { name: strategy } } }))).parameters;
  const path = { name: strategy, version };
  return (await expect(api.GET("/v1/strategies/{name}/versions/{version}", { params: { path } }))).parameters;
}

export function Parameters({ algo }: { algo: Algo }) {
  const client = useQueryClient();
  const may = useMay("algos");
  const schema = useQuery({
    queryKey: ["schema", algo.strategy, algo.strategy_version],
    queryFn: () => readSchema(algo.strategy, algo.strategy_version),
    staleTime: 300_000,
  });
  const change = async (parameters: Record<string, unknown>) => {
    const changed = await expect(
      api.PATCH("/v1/algos/{id}", {
        params: { path: { id: algo.id } },
        body: { parameters, generation: algo.generation },
      }),
    );
    await client.invalidateQueries({ queryKey: ["algo", algo.id] });
    notifications.show({ title: "Parameters changed", message: APPLIED[changed.applied ?? "unchanged"] });
  };
  return (
    <Panel title="Parameters">
      <ErrorNote error={schema.error} retry={() => void schema.refetch()} />
      {schema.data ? (
        <div style={{ maxWidth: 560 }}>
          <Text c="dimmed" mb="sm">
            Those marked “live” change while it runs; a change of any other restarts it from its snapshot.
          </Text>
          <SchemaForm
            // What somebody else changed meanwhile is shown anew.
            key={algo.generation}
            schema={schema.data}
            values={algo.parameters}
            prefix="parameters"
            verb="Change"
            onSubmit={change}
            disabled={!may}
          />
        </div>
      ) : schema.isPending ? (
        <span className="muted">Loading…</span>
      ) : null}
    </Panel>
  );
}
