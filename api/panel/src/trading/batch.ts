/** One command to many algos. */
import { api, expect, type Shape } from "@/api/client";

export type BatchOutcome = Shape<"BatchShown">;
export type BatchWanted = Partial<Shape<"BatchWanted">> & Pick<Shape<"BatchWanted">, "action"> & { ids: string[] };

const MOST = 1_000;

/** The outcome for each of them; more than the server takes at once are sent one after the other. */
export async function commandMany(wanted: BatchWanted): Promise<BatchOutcome> {
  const all: BatchOutcome = { action: wanted.action, done: 0, refused: 0, holds: null, results: [] };
  for (let i = 0; i < wanted.ids.length; i += MOST) {
    const body = { ...wanted, ids: wanted.ids.slice(i, i + MOST) } as Shape<"BatchWanted">;
    const part = await expect(api.POST("/v1/algos/batch", { body }));
    all.done += part.done;
    all.refused += part.refused;
    all.results.push(...part.results);
    if (part.holds !== null && part.holds !== undefined) all.holds = (all.holds ?? true) && part.holds;
  }
  return all;
}
