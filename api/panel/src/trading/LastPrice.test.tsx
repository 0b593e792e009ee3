import { act, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { LastPrice } from "./LastPrice";

const NOW = new Date("2026-01-31T09:15:00Z");
let line: ReturnType<typeof show>["line"];

function ticks(at: string) {
  act(() => {
    line.says({ updates: [{ n: 1, skipped: 0, topic: "ticks:f/A", key: "A", at, body: { price: 5, bid: 4, ask: 6 } }] });
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
