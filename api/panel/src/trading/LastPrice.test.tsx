import { act, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { LastPrice } from "./LastPrice";

const NOW = new Date("2026-01-31T09:15:00Z");
let line: ReturnType<typeof show>["line"];

function ticks(at: string, body: object = { price: 5, bid: 4, ask: 6 }) {
  act(() => {
    line.says({ updates: [{ n: 1, skipped: 0, topic: "ticks:f/A", key: "A", at, body }] });
    vi.advanceTimersByTime(1);
  });
}

beforeEach(() => {
  vi.useFakeTimers({ now: NOW });
  answers({});
  line = show(<LastPrice feed="f" instrument="A" />).line;
  act(() => { vi.advanceTimersByTime(1_000); });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("is grey where no connection keeps it up to date, however new it is", () => {
  ticks(NOW.toISOString());
  expect(screen.getByText("5")).not.toHaveClass("stale");
  act(() => { line.breaks(); });
  expect(screen.getByText("5")).toHaveClass("stale");
});

it("is grey after a minute without another", () => {
  ticks(NOW.toISOString());
  act(() => { vi.advanceTimersByTime(62_000); });
  expect(screen.getByText("5")).toHaveClass("stale");
  expect(screen.getByText("5")).toHaveAttribute("title", expect.stringContaining("1 min ago"));
});

it("is grey after a minute also where this computer's clock is behind", () => {
  ticks("2026-01-31T10:00:00Z");
  expect(screen.getByText("5")).not.toHaveClass("stale");
  act(() => { vi.advanceTimersByTime(62_000); });
  expect(screen.getByText("5")).toHaveClass("stale");
});

it("is no quote where nothing was traded", () => {
  ticks(NOW.toISOString(), { price: null, bid: 4, ask: 600 });
  expect(screen.getByText("–")).toHaveAttribute("title", "No trade yet; bid 4, ask 600");
  expect(screen.queryByText("4")).toBeNull();
});

it.each([[4e-9, "0.000000004"], [0.1 + 0.2, "0.3"], [1_234_567.25, "1,234,567.25"]])("shows all of %d", (price, words) => {
  ticks(NOW.toISOString(), { price, bid: null, ask: null });
  expect(screen.getByText(words)).toBeInTheDocument();
});
