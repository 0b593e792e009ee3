import { act, screen } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { AlgoEvents } from "./AlgoEvents";
import { AlgoPositions } from "./AlgoPositions";

afterEach(() => {
  vi.unstubAllGlobals();
});

const event = (number: number, text: string) => ({
  number, text, at: "2026-01-31T09:15:00Z", what: ["want"], epoch: 1, generation: 1, want: "running", state: "running", reason: "", node: "n", by: "asha",
});
const held = (realised: string) => ({
  account: "paper-1", instrument: "BTC", quantity: "1", average_cost: "2", realised, fees: "0", traded: "1", multiplier: "1", currency: "USDT", updated_at: null,
});

it("shows what happens to an algo and what it holds as it is pushed, asking once", async () => {
  const asked = answers({
    "GET /v1/algos/momo-1/events": () => Response.json({ items: [event(1, "it was made")], next: null }),
    "GET /v1/positions": () => Response.json({ items: [held("5")], next: null }),
  });
  const { line } = show(<><AlgoEvents id="momo-1" /><AlgoPositions id="momo-1" className="" /></>);
  expect(await screen.findByText("it was made")).toBeInTheDocument();
  expect((await screen.findByText("BTC")).closest("tr")).toHaveTextContent("+5.00 USDT");
  const wished = line.send.mock.calls.map(([text]) => JSON.parse(text as string) as { subscribe?: string[] }).flatMap((each) => each.subscribe ?? []);
  const topics = ["view:algos/momo-1/events", "view:positions?algo=momo-1&flat=true"];
  expect(wished.sort()).toEqual(topics);
  const pushed = (topic: string | undefined, n: number, items: object[], next: string | null = null) => ({ n, skipped: 0, topic, key: "k", at: "t", body: { items, next } });
  act(() => { line.says({ updates: [pushed(topics[0], 1, [event(2, "it runs"), event(1, "it was made")], "older"), pushed(topics[1], 1, [held("7")])] }); });
  expect(await screen.findByText("it runs")).toBeInTheDocument();
  await vi.waitFor(() => { expect(screen.getByText("BTC").closest("tr")).toHaveTextContent("+7.00 USDT"); });
  expect(screen.getByText("it was made")).toBeInTheDocument();
  expect(asked).toHaveLength(2);
});
