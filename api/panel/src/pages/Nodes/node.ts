/** A machine as its pages speak of it. */
import type { Shape } from "@/api/client";

export type Node = Shape<"NodeShown">;

/** What takes algos: everything that is well and wanted. */
export function stateOf(node: Node): string {
  if (node.draining) return "draining";
  if (node.cordoned) return "cordoned";
  return node.health;
}
