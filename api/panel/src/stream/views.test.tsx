import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor } from "@testing-library/react";
import { beforeEach, expect, it, vi } from "vitest";

import { Connection, type Socket } from "./connection";
import { StreamContext } from "./hooks";
import { newestOf, useView, wholeList } from "./views";

class Line implements Socket {
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  onerror = null;
  readyState = 1;
  sent: Record<string, unknown>[] = [];
  close = vi.fn();

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  says(message: unknown): void {
    this.onmessage?.(new MessageEvent("message", { data: JSON.stringify(message) }));
  }
}

let line: Line;
let read: ReturnType<typeof vi.fn<() => Promise<{ gross: string }>>>;
let client: QueryClient;
let version = 0;

const pushes = (body: unknown, topic = "view:deck") => {
  version += 1;
  line.says({ updates: [{ n: version, skipped: 0, topic, key: "deck", at: "t", body }] });
};

function Deck() {
  const query = useView({ path: "deck", queryKey: ["deck"], read });
  return <p data-testid="gross">{query.isError ? "cannot be read" : query.data?.gross}</p>;
}

function hide(hidden: boolean): void {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  act(() => document.dispatchEvent(new Event("visibilitychange")));
}

beforeEach(async () => {
  line = new Line();
  read = vi.fn(() => Promise.resolve({ gross: "1" }));
  client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  const stream = new Connection({ topics: ["orders"], open: () => line, frame: (run) => setTimeout(run, 0) });
  stream.start();
  line.onopen?.(new Event("open"));
  line.says({ instance: "one", sequence: 0, topics: ["orders"] });
  render(
    <QueryClientProvider client={client}>
      <StreamContext value={stream}>
        <Deck />
      </StreamContext>
    </QueryClientProvider>,
  );
  await waitFor(() => { expect(shown()).toBe("1"); });
  return () => {
    hide(false);
    stream.stop();
  };
});

const shown = () => screen.getByTestId("gross").textContent;
const wishes = () => line.sent.filter((each) => "subscribe" in each || "unsubscribe" in each);

it("is read once, then pushed", async () => {
  expect(wishes()).toEqual([{ subscribe: ["view:deck"] }]);
  pushes({ gross: "2" });
  await waitFor(() => { expect(shown()).toBe("2"); });
  pushes({ gross: "3" });
  await waitFor(() => { expect(shown()).toBe("3"); });
  expect(read).toHaveBeenCalledOnce();
});

it("is read again where the server says that it cannot tell, and shows that problem", async () => {
  read.mockRejectedValueOnce(new Error("not ready"));
  pushes(null);
  await waitFor(() => { expect(shown()).toBe("cannot be read"); });
  pushes({ gross: "4" });
  await waitFor(() => { expect(shown()).toBe("4"); });
});

it("does not lay what was pushed over what is being read", async () => {
  let answer: (value: { gross: string }) => void = () => undefined;
  read.mockImplementationOnce(() => new Promise((done) => { answer = done; }));
  act(() => void client.invalidateQueries({ queryKey: ["deck"] }));
  await waitFor(() => { expect(read).toHaveBeenCalledTimes(2); });
  pushes({ gross: "before the act" });
  await new Promise((done) => setTimeout(done, 30));
  expect(shown()).toBe("1");
  answer({ gross: "after" });
  await waitFor(() => { expect(shown()).toBe("after"); });
});

it("is given up while nobody sees the page", async () => {
  vi.useFakeTimers();
  hide(true);
  await vi.advanceTimersByTimeAsync(3_000);
  expect(wishes().at(-1)).toEqual({ unsubscribe: ["view:deck"] });
  hide(false);
  await vi.advanceTimersByTimeAsync(10);
  expect(wishes().at(-1)).toEqual({ subscribe: ["view:deck"] });
  vi.useRealTimers();
});

it("keeps no place in a view: it begins with the present one", async () => {
  pushes({ gross: "2" });
  await waitFor(() => { expect(shown()).toBe("2"); });
  vi.useFakeTimers();
  line.onclose?.(new CloseEvent("close", { code: 1006 }));
  await vi.advanceTimersByTimeAsync(2_000);
  vi.useRealTimers();
  line.onopen?.(new Event("open"));
  expect(line.sent.at(-1)).toMatchObject({ places: {} });
});

it("takes a list only where all of it came", () => {
  expect(wholeList({ items: [1], next: null })).toEqual({ items: [1], whole: true });
  expect(wholeList({ items: [1], next: "abc" })).toBeNull();
});

it("lays the newest of a long list before what is known, and reads again where some between were missed", () => {
  const take = newestOf<{ n: number }>((row) => row.n);
  const rows = (...numbers: number[]) => numbers.map((n) => ({ n }));
  const known = { items: rows(4, 3, 2, 1), whole: false };
  expect(take({ items: rows(6, 5, 4), next: "abc" }, known)).toEqual({ items: rows(6, 5, 4, 3, 2, 1), whole: false });
  expect(take({ items: rows(4, 3, 2), next: "abc" }, known)).toEqual(known);
  expect(take({ items: rows(9, 8, 7), next: "abc" }, known)).toBeNull();
  expect(take({ items: rows(2, 1), next: "abc" }, undefined)).toBeNull();
  expect(take({ items: rows(2, 1), next: null }, known)).toEqual({ items: rows(2, 1), whole: true });
});
