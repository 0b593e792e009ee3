/** The deck's figures: read again soon after anything has changed, and every few seconds anyhow. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";

import { api, expect } from "@/api/client";
import { useStream } from "@/stream/hooks";

const SOON_MS = 1_500;
const TOPICS = ["orders", "portfolio", "algos", "feeds", "alerts"];

export function useDeck() {
  const stream = useStream();
  const query = useQuery({
    queryKey: ["deck"],
    queryFn: () => expect(api.GET("/v1/deck")),
    refetchInterval: 5_000,
    staleTime: 1_000,
  });
  const { refetch } = query;
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  useEffect(() => {
    const soon = () => {
      if (document.hidden) return;
      timer.current ??= setTimeout(() => {
        timer.current = null;
        void refetch();
      }, SOON_MS);
    };
    const forget = TOPICS.map((topic) => stream.onChanges(topic, soon));
    return () => {
      for (const each of forget) each();
      if (timer.current) clearTimeout(timer.current);
      timer.current = null;
    };
  }, [stream, refetch]);
  return query;
}
