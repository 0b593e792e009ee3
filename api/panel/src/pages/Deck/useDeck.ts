/** The deck's figures, pushed as they change. */
import { api, expect } from "@/api/client";
import { useView } from "@/stream/views";

export const useDeck = () => useView({ path: "deck", queryKey: ["deck"], read: () => expect(api.GET("/v1/deck")) });
