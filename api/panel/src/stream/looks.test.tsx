import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor } from "@testing-library/react";
import { StrictMode } from "react";
import { beforeEach, expect, it } from "vitest";

import { Line } from "@/testing/deck";

import { Connection } from "./connection";
import { StreamContext, useLiveRows } from "./hooks";

interface Row {
  id: string;
  at: number;
  open: boolean;
}

let line: Line;
let stream: Connection;
/** Reads that are under way, the oldest first. */
let reads: { which: string; answer: (...rows: string[]) => void; fail: () => void }[];
/** Everything that was ever on the screen, in its order. */
let seen: string[];
let show: (which: string | null) => void;
let sequence = 0;

/** `a1` is row a as it was at 1. */
const row = (text: string, open = true): Row => ({ id: text.slice(0, 1), at: Number(text.slice(1)), open });

async function tells(...rows: Row[]): Promise<void> {
  for (const body of rows) line.says({ sequence: (sequence += 1), topic: "orders", key: body.id, at: "t", body });
  await act(() => new Promise((done) => setTimeout(done, 20)));
}

function Rows({ which }: { which: string }) {
  const live = useLiveRows<Row, Row>({
    queryKey: ["rows", which],
    read: () =>
      new Promise((done, fail) => {
        reads.push({
          which,
          answer: (...rows) => { done({ items: rows.map((each) => row(each)), whole: true }); },
          fail: () => { fail(new Error("away")); },
        });
      }),
    keyOf: (each) => each.id,
    topic: "orders",
    apply: (rows, { body }) => {
      const known = rows.get(body.id);
      if (known && known.at > body.at) return;
      if (body.open || which === "all") rows.put(body);
      else rows.remove(body.id);
    },
  });
  const text = live.isLoading && !live.rows.length ? "loading" : live.rows.map((each) => `${each.id}${String(each.at)}`).join(" ");
  const now = live.isStale ? `${text} (old)` : text;
  if (seen.at(-1) !== now) seen.push(now);
  return <p data-testid="rows">{now}</p>;
}

beforeEach(() => {
  line = new Line();
  reads = [];
  seen = [];
  stream = new Connection({ topics: ["orders"], open: () => line, frame: (run) => setTimeout(run, 0) });
  stream.start();
  line.onopen?.(new Event("open"));
  line.says({ instance: "one", sequence: 0, topics: ["orders"] });
  // As in the panel: what was read counts as fresh for a while, and is read anew where the stream says so.
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: 5_000, retry: false } } });
  stream.onReset(() => void client.invalidateQueries());
  const tree = (which: string | null) => (
    <StrictMode>
      <QueryClientProvider client={client}>
        <StreamContext value={stream}>{which === null ? null : <Rows which={which} />}</StreamContext>
      </QueryClientProvider>
    </StrictMode>
  );
  const { rerender } = render(tree("open"));
  show = (which) => { rerender(tree(which)); };
  return () => {
    stream.stop();
  };
});

const shown = () => screen.getByTestId("rows").textContent;
const until = async (text: string) => { await waitFor(() => { expect(shown()).toBe(text); }); };

it("reads anew where the rows are shown again, and shows nothing until then", async () => {
  expect(reads).toHaveLength(1);
  reads[0]?.answer("a1", "b1");
  await until("a1 b1");
  await tells(row("a2", false));
  await until("b1");
  show(null);
  await tells(row("b2", false));
  show("open");
  expect(shown()).toBe("loading");
  seen = [];
  await waitFor(() => { expect(reads).toHaveLength(2); });
  reads[1]?.answer("c1");
  await until("c1");
  expect(seen).toEqual(["c1"]);
  expect(reads).toHaveLength(2);
});

it("reads anew after another key was shown, and never shows what it had read before", async () => {
  reads[0]?.answer("a1", "b1");
  await until("a1 b1");
  await tells(row("a2", false));
  await until("b1");
  show("all");
  expect(shown()).toBe("loading");
  await waitFor(() => { expect(reads).toHaveLength(2); });
  reads[1]?.answer("a2", "b1");
  await until("a2 b1");
  show("open");
  expect(shown()).toBe("loading");
  await waitFor(() => { expect(reads).toHaveLength(3); });
  seen = [];
  reads[2]?.answer("b1");
  await until("b1");
  expect(seen).toEqual(["b1"]);
  expect(reads.map((each) => each.which)).toEqual(["open", "all", "open"]);
});

it("waits for no read that began before the rows were shown again", async () => {
  show(null);
  // The first read has found a, which ends when nobody listens.
  await tells(row("a2", false));
  show("open");
  await waitFor(() => { expect(reads).toHaveLength(2); });
  await act(async () => { reads[0]?.answer("a1"); await Promise.resolve(); });
  expect(shown()).toBe("loading");
  reads[1]?.answer("b1");
  await until("b1");
  expect(seen).not.toContain("a1");
});

it("shows what was read only with what came meanwhile over it, not even for a moment without", async () => {
  await tells(row("a2"), row("b2", false));
  reads[0]?.answer("a1", "b1", "c5");
  await until("a2 c5");
  expect(seen.filter((each) => each.includes("a1") || each.includes("b1"))).toEqual([]);
});

it("reads once more where the stream begins anew during the reading, and shows the second only", async () => {
  act(() => { line.says({ sequence: 9, reset: true }); });
  reads[0]?.answer("a1");
  await waitFor(() => { expect(reads).toHaveLength(2); });
  expect(shown()).toBe("loading");
  reads[1]?.answer("b1");
  await until("b1");
  expect(seen).not.toContain("a1");
  expect(reads).toHaveLength(2);
});

it("is old from when changes were missed until it has been read after that", async () => {
  reads[0]?.answer("a1");
  await until("a1");
  act(() => { line.says({ sequence: 9, reset: true }); });
  await until("a1 (old)");
  expect(reads).toHaveLength(2);
  await tells(row("a3"));
  await until("a3 (old)");
  seen = [];
  reads[1]?.answer("a2");
  await until("a3");
  expect(seen).toEqual(["a3"]);
  expect(reads).toHaveLength(2);
});

it("goes on with the changes where it cannot be read again, and says so", async () => {
  reads[0]?.answer("a1");
  await until("a1");
  act(() => { line.says({ sequence: 9, reset: true }); });
  reads[1]?.fail();
  await tells(row("a4"));
  await until("a4 (old)");
  act(() => { line.says({ sequence: 10, reset: true }); });
  await waitFor(() => { expect(reads).toHaveLength(3); });
  // What the one before was after is not laid over this one.
  reads[2]?.answer("b1");
  await until("b1");
});
