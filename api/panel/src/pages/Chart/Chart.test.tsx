import { act, screen, waitFor } from "@testing-library/react";
import { Route, Routes } from "react-router";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { type Asked, answers, show } from "@/testing/deck";

import Chart from "./index";

vi.mock("./Candles", () => ({ default: () => null }));

let asked: Asked[];
let line: ReturnType<typeof show>["line"];

const reads = () => asked.filter((each) => each.path === "/v1/orders").length;
const changes = (sequence: number) => {
  line.says({ sequence, topic: "orders", key: "k", at: "t", body: { order: { instrument: "A", state: "filled" }, event: {} } });
};

beforeEach(() => {
  asked = answers({
    "GET /v1/feeds": () => Response.json({ items: [{ id: "f", enabled: true, instruments: ["A"] }], next: null }),
    "GET /v1/history": () => Response.json({ items: [], gaps: [] }),
  });
  line = show(<Routes><Route path="/chart/:instrument" element={<Chart />} /></Routes>, "/chart/A").line;
});
afterEach(() => {
  vi.unstubAllGlobals();
});

it("greys its prices where no connection keeps them up to date", async () => {
  await screen.findByText("bid");
  act(() => {
    line.says({ updates: [{ n: 1, skipped: 0, topic: "ticks:f/A", key: "A", at: new Date().toISOString(), body: { price: 5, bid: 4, ask: 6 } }] });
  });
  const price = await screen.findByText("5");
  expect(price.parentElement).not.toHaveClass("stale");
  act(() => { line.breaks(); });
  expect(price.parentElement).toHaveClass("stale");
});

it("tells the age of a price that has not moved", async () => {
  await screen.findByText("bid");
  const at = new Date(Date.now() - 120_000).toISOString();
  act(() => { line.says({ updates: [{ n: 1, skipped: 0, topic: "ticks:f/A", key: "A", at, body: { price: 5, bid: 4, ask: 6 } }] }); });
  expect(await screen.findByText("2 min ago")).toBeVisible();
});

it("reads open orders only, and again after the last of changes in a row", async () => {
  await waitFor(() => { expect(reads()).toBe(1); });
  expect(asked.find((each) => each.path === "/v1/orders")?.query.getAll("state")).toContain("submitted");
  act(() => { changes(1); });
  await waitFor(() => { expect(reads()).toBe(2); }, { timeout: 2_000 });
  act(() => { changes(2); });
  await waitFor(() => { expect(reads()).toBe(3); }, { timeout: 3_000 });
});
