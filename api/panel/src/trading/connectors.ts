/** Brokers and providers of market data that this deck can talk to. */
import { useQuery } from "@tanstack/react-query";

import { api, expect } from "@/api/client";

/** They come with the release: what was read once holds. */
export function useConnectors() {
  return useQuery({ queryKey: ["connectors"], queryFn: () => expect(api.GET("/v1/connectors")), staleTime: Infinity });
}

/** Settings without what was left empty: the connector's own defaults hold then. */
export function settingsOf(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value !== null));
}
