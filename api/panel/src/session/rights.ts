/** What the signed-in user may do; the server judges, the panel only leaves out what would be refused. */
import { useMe } from "./session";

export const RIGHTS = {
  trade: "trade",
  algos: "run algos",
  strategies: "register strategies",
  feeds: "manage feeds and instruments",
  operate: "operate the deck",
} as const;

export function useMay(right: keyof typeof RIGHTS): boolean {
  return useMe().rights.includes(RIGHTS[right]);
}
