/** One command to many algos. */
import { api, expect, type Shape } from "@/api/client";
import type { Told } from "@/components/useAct";

export type BatchOutcome = Shape<"BatchShown">;
export type BatchWanted = Partial<Shape<"BatchWanted">> & Pick<Shape<"BatchWanted">, "action"> & { ids: string[] };

const MOST = 1_000;
export const NOT_HEARD = "Not every session has heard of it yet; those that have not are silent.";
/** So much that was not done is named in a notice. */
const NAMED = 5;

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

/** What was not done, each with the algo that it is about: the whole command, or an order that was to be taken back. */
export function notDone({ results }: BatchOutcome): { key: string; id: string; detail: string }[] {
  return results.flatMap(({ id, problem, left }) => [
    ...(problem ? [{ key: id, id, detail: problem.detail }] : []),
    ...(left ?? []).map((order) => ({ key: `${id}/${order.client_order_id}`, id, detail: `order ${order.client_order_id} is not taken back: ${order.detail}` })),
  ]);
}

/** What must be told of it where nobody sees the outcome itself: null where all of it was done. */
export function missedOf(what: string, outcome: BatchOutcome): Told | null {
  const { done, refused, holds } = outcome;
  const named = notDone(outcome).map(({ id, detail }) => `${id}: ${detail}`);
  if (!named.length && holds !== false) return null;
  const more = named.length - NAMED;
  const message = [
    `${String(done)} done, ${String(refused)} refused.`,
    ...named.slice(0, NAMED),
    ...(more > 0 ? [`and ${String(more)} more`] : []),
    ...(holds === false ? [NOT_HEARD] : []),
  ];
  return { title: `${what}: not all of it was done`, message: message.join("\n"), isBad: true };
}
