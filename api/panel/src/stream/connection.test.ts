import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { type Change, Connection, type Socket, type Update } from "./connection";

class FakeSocket implements Socket {
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  closed = false;

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.closed = true;
    this.readyState = 3;
  }

  opens(): this {
    this.readyState = 1;
    this.onopen?.(new Event("open"));
    return this;
  }

  says(message: unknown): void {
    this.onmessage?.(new MessageEvent("message", { data: JSON.stringify(message) }));
  }

  breaks(code = 1006, reason = ""): void {
    this.onclose?.(new CloseEvent("close", { code, reason }));
  }
}

let sockets: FakeSocket[];
let link: Connection;
const newest = () => sockets.at(-1) as FakeSocket;

function make(topics = ["orders"], places: Record<string, number> = {}): Connection {
  link = new Connection({
    topics,
    places,
    open: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    frame: (run) => setTimeout(run, 16),
  });
  return link;
}

const change = (sequence: number, body: unknown = sequence) => ({ sequence, topic: "orders", key: "k", at: "t", body });
const tick = (n: number, price: number, topic = "ticks:f/A") => ({ n, skipped: 0, topic, key: "A", at: "t", body: { price } });
const greets = (socket: FakeSocket, sequence = 10, instance = "one", more = {}) => {
  socket.says({ instance, sequence, topics: ["orders"], ...more });
};

beforeEach(() => {
  sockets = [];
  vi.useFakeTimers();
});
afterEach(() => {
  link.stop();
  vi.useRealTimers();
});

describe("changes", () => {
  it("come once a frame, in their order", () => {
    const heard = vi.fn<(changes: Change[]) => void>();
    make().onChanges("orders", heard);
    link.start();
    newest().opens();
    greets(newest());
    newest().says(change(11));
    newest().says(change(12));
    expect(heard).not.toHaveBeenCalled();
    vi.advanceTimersByTime(16);
    expect(heard).toHaveBeenCalledOnce();
    expect(heard.mock.calls[0]?.[0].map((each) => each.sequence)).toEqual([11, 12]);
  });

  it("go on after a break where they stopped", () => {
    make().start();
    newest().opens();
    expect(newest().sent[0]).toEqual({ topics: ["orders"], places: {}, per_second: 20 });
    greets(newest());
    newest().says(change(17));
    newest().breaks();
    expect(link.status.state).toBe("reconnecting");
    vi.advanceTimersByTime(2_000);
    expect(sockets).toHaveLength(2);
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ after: 17, instance: "one" });
    greets(newest(), 17);
    expect(link.status.state).toBe("connected");
  });

  it("are read anew where the server has lost them", () => {
    const reset = vi.fn();
    make().onReset(reset);
    link.start();
    newest().opens();
    greets(newest());
    expect(reset).toHaveBeenCalledTimes(1);
    newest().says({ sequence: 12, reset: true, detail: "may be missing" });
    expect(reset).toHaveBeenCalledTimes(2);
    newest().breaks();
    vi.advanceTimersByTime(2_000);
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ after: 12 });
    greets(newest(), 40, "two", { reset: true });
    expect(reset).toHaveBeenCalledTimes(3);
  });

  it("before the first greeting are in nothing that came, however long it took: what was read is read anew", () => {
    const reset = vi.fn();
    make().onReset(reset);
    link.start();
    newest().breaks();
    vi.advanceTimersByTime(20_000);
    expect(reset).not.toHaveBeenCalled();
    newest().opens();
    greets(newest());
    expect(reset).toHaveBeenCalledOnce();
    newest().breaks();
    vi.advanceTimersByTime(20_000);
    newest().opens();
    greets(newest());
    expect(reset).toHaveBeenCalledOnce();
  });

  it("that came before a reset are not laid over what is read after it", () => {
    const heard = vi.fn();
    make().onChanges("orders", heard);
    link.start();
    newest().opens();
    greets(newest());
    newest().says(change(11));
    newest().says({ sequence: 12, reset: true });
    vi.advanceTimersByTime(50);
    expect(heard).not.toHaveBeenCalled();
  });
});

describe("market data", () => {
  it("is subscribed while anybody wants it, all of a page in one message", () => {
    make().start();
    newest().opens();
    greets(newest());
    const one = link.onUpdates("ticks:f/A", vi.fn());
    const two = link.onUpdates("ticks:f/A", vi.fn());
    link.onUpdates("ticks:f/B", vi.fn());
    return Promise.resolve().then(() => {
      expect(newest().sent.slice(1)).toEqual([{ subscribe: ["ticks:f/A", "ticks:f/B"] }]);
      one();
      vi.advanceTimersByTime(5_000);
      expect(newest().sent).toHaveLength(2);
      two();
      vi.advanceTimersByTime(5_000);
      expect(newest().sent[2]).toEqual({ unsubscribe: ["ticks:f/A"] });
    });
  });

  it("that a page wants again at once stays subscribed", async () => {
    make().start();
    newest().opens();
    greets(newest());
    const first = link.onUpdates("ticks:f/A", vi.fn());
    await Promise.resolve();
    first();
    const heard = vi.fn();
    link.onUpdates("ticks:f/A", heard);
    await Promise.resolve();
    vi.advanceTimersByTime(5_000);
    expect(newest().sent).toHaveLength(2);
    newest().says({ updates: [tick(1, 5)] });
    vi.advanceTimersByTime(16);
    expect(heard).toHaveBeenCalledOnce();
  });

  it("shows the newest tick of a frame, and every bar", () => {
    const ticks = vi.fn<(updates: Update[]) => void>();
    const bars = vi.fn<(updates: Update[]) => void>();
    make().onUpdates("ticks:f/A", ticks);
    link.onUpdates("bars:A/1m", bars);
    link.start();
    newest().opens();
    greets(newest());
    newest().says({ updates: [tick(1, 5), tick(1, 1, "bars:A/1m")] });
    newest().says({ updates: [tick(2, 6), tick(2, 2, "bars:A/1m")] });
    vi.advanceTimersByTime(16);
    expect(ticks.mock.calls[0]?.[0].map((each) => each.n)).toEqual([2]);
    expect(bars.mock.calls[0]?.[0].map((each) => each.n)).toEqual([1, 2]);
  });

  it("is subscribed again after a break, from its place", async () => {
    make().onUpdates("ticks:f/A", vi.fn());
    link.start();
    newest().opens();
    greets(newest());
    newest().says({ updates: [tick(7, 5)] });
    newest().breaks();
    vi.advanceTimersByTime(2_000);
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ places: { "ticks:f/A": 7 } });
    greets(newest());
    await Promise.resolve();
    expect(newest().sent[1]).toEqual({ subscribe: ["ticks:f/A"] });
  });

  it("forgets its places where the server is another", () => {
    make().onUpdates("ticks:f/A", vi.fn());
    link.start();
    newest().opens();
    greets(newest());
    newest().says({ updates: [tick(7, 5)] });
    newest().breaks();
    vi.advanceTimersByTime(2_000);
    newest().opens();
    greets(newest(), 3, "two");
    newest().breaks();
    vi.advanceTimersByTime(2_000);
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ places: {} });
  });

  it("never asks for more than the server takes: what is out of sight makes room", async () => {
    make().start();
    newest().opens();
    greets(newest());
    const forget = Array.from({ length: 180 }, (_, i) => link.onUpdates(`ticks:f/A${String(i)}`, vi.fn()));
    await Promise.resolve();
    for (const each of forget) each();
    Array.from({ length: 180 }, (_, i) => link.onUpdates(`ticks:f/B${String(i)}`, vi.fn()));
    Array.from({ length: 40 }, (_, i) => link.onUpdates(`ticks:f/C${String(i)}`, vi.fn()));
    await Promise.resolve();
    const held = new Set<string>();
    for (const message of newest().sent.slice(1)) {
      for (const each of (message.unsubscribe ?? []) as string[]) held.delete(each);
      for (const each of (message.subscribe ?? []) as string[]) held.add(each);
      expect(held.size).toBeLessThanOrEqual(200);
    }
    expect([...held].filter((each) => each.includes("/B"))).toHaveLength(180);
    expect(held.size).toBe(200);
  });

  it("of one wrong topic does not cost the others", async () => {
    const errors: string[] = [];
    make().onError((detail) => errors.push(detail));
    link.onUpdates("ticks:f/A", vi.fn());
    link.onUpdates("ticks:f/GONE", vi.fn());
    link.start();
    newest().opens();
    greets(newest());
    await Promise.resolve();
    newest().says({ error: "unknown instrument" });
    expect(newest().sent.slice(2)).toEqual([{ subscribe: ["ticks:f/A"] }, { subscribe: ["ticks:f/GONE"] }]);
    newest().says({ topics: ["ticks:f/A"] });
    newest().says({ error: "no instrument GONE" });
    expect(errors).toEqual(["ticks:f/GONE: no instrument GONE"]);
  });
});

describe("the connection", () => {
  it("is called lost after a while, and tries on, ever more slowly", () => {
    make().start();
    newest().opens();
    greets(newest());
    for (let i = 0; i < 6; i += 1) {
      newest().breaks();
      vi.advanceTimersByTime(12_000);
    }
    expect(link.status.state).toBe("lost");
    expect(sockets.length).toBeGreaterThan(5);
    newest().opens();
    greets(newest());
    expect(link.status.state).toBe("connected");
  });

  it("asks a silent server whether it is there, and leaves one that is not", () => {
    make().start();
    newest().opens();
    greets(newest());
    vi.advanceTimersByTime(11_500);
    expect(newest().sent.at(-1)).toEqual({});
    newest().says({ topics: [] });
    vi.advanceTimersByTime(9_000);
    expect(sockets).toHaveLength(1);
    vi.advanceTimersByTime(14_000);
    expect(sockets.length).toBeGreaterThan(1);
    expect(sockets[0]?.closed).toBe(true);
  });

  it("ends with the session", () => {
    make();
    const out = vi.fn();
    link.onSignedOut = out;
    link.start();
    newest().opens();
    newest().breaks(4401, "the session has ended");
    vi.advanceTimersByTime(60_000);
    expect(out).toHaveBeenCalledOnce();
    expect(sockets).toHaveLength(1);
    expect(link.status.state).toBe("refused");
  });

  it("goes on without a topic that the server does not know", () => {
    make(["orders", "alerts"]).start();
    newest().opens();
    newest().breaks(4422, "topics: no topic 'alerts'; there are orders");
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ topics: ["orders"] });
  });

  it("follows a log from the line after the last that it has", () => {
    const heard = vi.fn();
    make(["algo-log:a"], { "algo-log:a": 5 }).onChanges("algo-log:a", heard);
    link.start();
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ places: { "algo-log:a": 5 } });
    greets(newest());
    newest().says({ topic: "algo-log:a", key: "a", at: "t", body: { number: 8, text: "x" } });
    vi.advanceTimersByTime(16);
    expect(heard).toHaveBeenCalledOnce();
    newest().breaks();
    vi.advanceTimersByTime(2_000);
    newest().opens();
    expect(newest().sent[0]).toMatchObject({ places: { "algo-log:a": 8 } });
  });
});
