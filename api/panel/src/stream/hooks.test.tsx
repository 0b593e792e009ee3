import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor } from "@testing-library/react";
import { beforeEach, expect, it, vi } from "vitest";

import { type Change, Connection, type Socket } from "./connection";
import { StreamContext, useLiveRows } from "./hooks";
import { LiveRows } from "./rows";

interface Row {
  id: string;
  at: number;
  open: boolean;
}

class Line implements Socket {
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  onerror = null;
  readyState = 1;
  send = vi.fn();
  close = vi.fn();

  says(message: unknown): void {
    this.onmessage?.(new MessageEvent("message", { data: JSON.stringify(message) }));
  }
}

let line: Line;
let stream: Connection;
let answer: (rows: Row[]) => void;
let sequence = 0;

function tells(row: Row): void {
  sequence += 1;
  line.says({ sequence, topic: "orders", key: row.id, at: "t", body: row } satisfies Change<Row>);
}

function Table() {
  const live = useLiveRows<Row, Row>({
    queryKey: ["rows"],
    read: () => new Promise((done) => { answer = (items) => { done({ items, whole: true }); }; }),
    keyOf: (row) => row.id,
    topic: "orders",
    apply: (rows, { body }) => {
      const known = rows.get(body.id);
      if (known && known.at > body.at) return;
      if (body.open) rows.put(body);
      else rows.remove(body.id);
    },
  });
  return (
    <p data-testid="rows" className={live.isStale ? "stale" : ""}>
      {live.rows.map((row) => `${row.id}${String(row.at)}`).join(" ")}
    </p>
  );
}

beforeEach(() => {
  line = new Line();
  stream = new Connection({ topics: ["orders"], open: () => line, frame: (run) => setTimeout(run, 0) });
  stream.start();
  line.onopen?.(new Event("open"));
  line.says({ instance: "one", sequence: 0, topics: ["orders"] });
  render(
    <QueryClientProvider client={new QueryClient()}>
      <StreamContext value={stream}>
        <Table />
      </StreamContext>
    </QueryClientProvider>,
  );
  return () => {
    stream.stop();
  };
});

const shown = () => screen.getByTestId("rows").textContent;

it("lays what came during the reading over what was read", async () => {
  await waitFor(() => { expect(answer).toBeDefined(); });
  act(() => {
    tells({ id: "a", at: 2, open: true });
    tells({ id: "b", at: 2, open: false });
    tells({ id: "c", at: 1, open: true });
  });
  await act(() => new Promise((done) => setTimeout(done, 20)));
  act(() => { answer([{ id: "a", at: 1, open: true }, { id: "b", at: 1, open: true }, { id: "c", at: 5, open: true }]); });
  await waitFor(() => { expect(shown()).toBe("a2 c5"); });
});

it("goes on with changes, and shows when they do not come", async () => {
  await waitFor(() => { expect(answer).toBeDefined(); });
  act(() => { answer([{ id: "a", at: 1, open: true }]); });
  await waitFor(() => { expect(shown()).toBe("a1"); });
  act(() => { tells({ id: "a", at: 2, open: true }); tells({ id: "b", at: 3, open: true }); });
  await waitFor(() => { expect(shown()).toBe("a2 b3"); });
  act(() => { tells({ id: "a", at: 4, open: false }); });
  await waitFor(() => { expect(shown()).toBe("b3"); });
  expect(screen.getByTestId("rows")).not.toHaveClass("stale");
  act(() => { line.onclose?.(new CloseEvent("close", { code: 1006 })); });
  await waitFor(() => { expect(screen.getByTestId("rows")).toHaveClass("stale"); });
});

it("hands rows out at most ten times a second, the same array meanwhile", () => {
  vi.useFakeTimers();
  const rows = new LiveRows<Row>((row) => row.id);
  const heard = vi.fn();
  rows.subscribe(heard);
  for (let i = 0; i < 500; i += 1) rows.put({ id: String(i % 20), at: i, open: true });
  const before = rows.snapshot();
  expect([before.length, heard.mock.calls.length]).toEqual([0, 0]);
  vi.advanceTimersByTime(100);
  expect(heard).toHaveBeenCalledOnce();
  expect(rows.snapshot()).toHaveLength(20);
  expect(rows.snapshot()).toBe(rows.snapshot());
  vi.useRealTimers();
});
