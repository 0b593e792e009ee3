import { act, cleanup, screen, waitFor } from "@testing-library/react";
import { Route, Routes } from "react-router";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { type Asked, answers, show } from "@/testing/deck";

import Chart from "./index";

vi.mock("./Candles", () => ({
  default: ({ bars, tick }: { bars: { close: number }[]; tick?: string }) => (
    <output data-tick={tick}>{bars.map((each) => String(each.close)).join(" ")}</output>
  ),
}));

let asked: Asked[];
let line: ReturnType<typeof show>["line"];

const reads = () => asked.filter((each) => each.path === "/v1/orders").length;
const changes = (sequence: number) => {
  line.says({ sequence, topic: "orders", key: "k", at: "t", body: { order: { instrument: "A", state: "filled" }, event: {} } });
};

const SECOND = 1_000;
const bar = (at: number, close: number, more: object = {}) => ({
  opened_at: new Date(at).toISOString(), open: close, high: close, low: close, close, volume: 1, ...more,
});
const drawn = () => document.querySelector("output")?.textContent;

beforeEach(() => {
  asked = answers({
    "GET /v1/feeds": () => Response.json({ items: [{ id: "f", enabled: true, instruments: ["A"] }], next: null }),
    "GET /v1/history": () => Response.json({ items: [], gaps: [] }),
  });
  line = show(<Routes><Route path="/chart/:instrument" element={<Chart />} /></Routes>, "/chart/A").line;
});
afterEach(() => {
  vi.unstubAllGlobals();
  localStorage.clear();
});

/** The chart of A with bars of a width. */
function open(interval: string, routes: Parameters<typeof answers>[0]) {
  localStorage.setItem("qd-chart-interval", JSON.stringify(interval));
  asked = answers({ "GET /v1/feeds": () => Response.json({ items: [{ id: "f", enabled: true, instruments: ["A"] }], next: null }), ...routes });
  line = show(<Routes><Route path="/chart/:instrument" element={<Chart />} /></Routes>, "/chart/A").line;
}

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

it("reads days in pieces, the newest first, each to its end", async () => {
  cleanup();
  const day = 86_400 * SECOND;
  const now = Date.now();
  open("1d", {
    "GET /v1/history": ({ query }) => {
      const end = query.get("end");
      const from = Date.parse(query.get("start") ?? "");
      // Two pages of each piece; the newest has no end of its own.
      const isSecond = query.get("cursor") !== null;
      const age = Math.round((now - Date.parse(end ?? new Date(now).toISOString())) / day);
      return Response.json({
        items: [bar(from + (isSecond ? 20 : 1) * day, age * 10 + (isSecond ? 2 : 1))],
        next: isSecond ? null : "more", gaps: [], until: new Date(now).toISOString(),
      });
    },
  });
  const of = (age: number) => `${String(age * 10 + 1)} ${String(age * 10 + 2)}`;
  await waitFor(() => { expect(drawn()).toBe(Array.from({ length: 20 }, (_, n) => of((19 - n) * 30)).join(" ")); });
  const reads = asked.filter((each) => each.path === "/v1/history").map((each) => [each.query.get("end") === null, each.query.get("cursor")]);
  expect(reads.slice(0, 4)).toEqual([[true, null], [true, "more"], [false, null], [false, "more"]]);
  expect(screen.getByText(/closed days only/)).toBeVisible();
});

it("shows the bar that is under way when it is opened, and history's whole one once the next begins", async () => {
  cleanup();
  const hour = 3_600 * SECOND;
  const start = Math.floor(Date.now() / hour) * hour;
  let isOver = false;
  open("1h", {
    "GET /v1/history": ({ query }) => {
      if (query.get("interval") === "1m") {
        return Response.json({ items: [bar(start - 60 * SECOND, 70), bar(start, 5)], next: null, gaps: [], until: new Date(start + 60 * SECOND).toISOString() });
      }
      const items = [bar(start - hour, 1), ...(isOver ? [bar(start, 8)] : [])];
      return Response.json({ items, next: null, gaps: [], until: new Date(start + (isOver ? hour : 0)).toISOString() });
    },
    "GET /v1/fills": () => Response.json({
      items: [start - 2 * hour, start - 1, start + 1].map((at) => ({ side: "buy", account: "a", client_order_id: "o", fill: { at: new Date(at).toISOString(), quantity: "1" } })),
      next: null,
    }),
    "GET /v1/instruments/A": () => Response.json({ id: "A", tick_size: "0.000001" }),
  });
  await waitFor(() => { expect(drawn()).toBe("1 5"); });
  // The one that fell before the first bar stands nowhere.
  expect(screen.getByText(/2 fills marked/)).toBeVisible();
  expect(document.querySelector("output")?.dataset.tick).toBe("0.000001");
  const says = (topic: string, body: object) => { act(() => { line.says({ updates: [{ n: 1, skipped: 0, topic, key: "A", at: "t", body }] }); }); };
  says("bars:A/1m", bar(start + 60 * SECOND, 6, { closed: false }));
  isOver = true;
  says("bars:A/1h", bar(start + hour, 9, { closed: false }));
  await waitFor(() => { expect(drawn()).toBe("1 8 9"); });
});
