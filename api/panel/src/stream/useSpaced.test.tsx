import { render } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { useSpaced } from "./useSpaced";

const run = vi.fn();
let ask: () => void;

function Part() {
  ask = useSpaced(run, 500, 1_000);
  return null;
}

beforeEach(() => {
  run.mockReset();
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

it("runs after the last of several that come in a row, also of those right after a run", () => {
  render(<Part />);
  ask();
  vi.advanceTimersByTime(499);
  expect(run).not.toHaveBeenCalled();
  vi.advanceTimersByTime(1);
  expect(run).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(200);
  ask();
  vi.advanceTimersByTime(799);
  expect(run).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(1);
  expect(run).toHaveBeenCalledTimes(2);
});

it("runs at its pace where it is asked for all the time, and not at all where its page is gone", () => {
  const { unmount } = render(<Part />);
  for (let i = 0; i < 100; i += 1) {
    ask();
    vi.advanceTimersByTime(100);
  }
  expect(run.mock.calls.length).toBeGreaterThan(8);
  expect(run.mock.calls.length).toBeLessThanOrEqual(10);
  const before = run.mock.calls.length;
  ask();
  unmount();
  vi.advanceTimersByTime(5_000);
  expect(run).toHaveBeenCalledTimes(before);
});
