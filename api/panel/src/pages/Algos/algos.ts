/** Algos as the page follows them: state by the stream, how they go by asking every few seconds. */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";

import { type LiveQuery, useLiveRows } from "@/stream/hooks";
import { type Algo, readAlgos } from "@/trading/read";

const KEY = ["algos", "list"] as const;
const LOOK_MS = 3_000;

/** What a change has come to, in words. */
export const APPLIED: Record<string, string> = {
  live: "The running algo has taken it up.",
  restart: "It restarts with it.",
  stored: "It begins with it when it is started.",
  unchanged: "It was so already.",
};

export function useAlgos(): LiveQuery<Algo> {
  const client = useQueryClient();
  const live = useLiveRows<Algo, Algo | null>({
    queryKey: KEY,
    read: readAlgos,
    keyOf: (algo) => algo.id,
    topic: "algos",
    apply: (rows, { key, body }) => {
      if (body === null) {
        rows.remove(key);
        return;
      }
      const known = rows.get(key);
      if (known && known.updated_at > body.updated_at) return;
      // The stream does not tell how it goes; an incarnation that has ended goes no more.
      rows.put({ ...body, live: known?.epoch === body.epoch ? (known.live ?? null) : null });
    },
  });
  useEffect(() => {
    const timer = setInterval(() => {
      // A read that is still under way is let come to its end.
      if (!document.hidden) void client.invalidateQueries({ queryKey: KEY }, { cancelRefetch: false });
    }, LOOK_MS);
    return () => {
      clearInterval(timer);
    };
  }, [client]);
  return live;
}

/** The state in words: what the server says of it, or else what is wanted. */
export function wordsFor(algo: Algo): string {
  if (algo.reason) return algo.reason;
  if (algo.paused_by) return `paused by ${algo.paused_by}${algo.paused_because ? `: ${algo.paused_because}` : ""}`;
  if (algo.want === "running" && algo.state === "waiting") return "waits for a machine that may take it";
  if (algo.want === "stopped" && algo.state === "stopped") return "stopped, and meant to be";
  if (algo.want === "running" && algo.state === "stopped") return "is about to be started";
  if (algo.want === "stopped" && algo.state !== "failed") return "is about to stop";
  if (algo.live?.tick_age_s != null && algo.live.tick_age_s > 60) return `no tick for ${algo.live.tick_age_s.toFixed(0)} s`;
  return algo.state === "running" ? "running as wanted" : "";
}

/** The state to show: a paused one runs, and yet does not enter. */
export const stateOf = (algo: Algo): string => (algo.paused_by && algo.state === "running" ? "paused" : algo.state);
