import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { App } from "@/App";
import { install, watchInput } from "@/api/transport";

import { endedBecause, forgetSession, serverAhead } from "./session";

// Minutes of ticks, each drawn.
vi.setConfig({ testTimeout: 30_000 });

const MINUTE = 60_000;
/** Shorter than the real one: what counts is how near its end is. */
const IDLE = 6 * MINUTE;
const START = Date.parse("2026-03-02T09:00:00Z");

/** A server that keeps one session, by its own clock. */
let seenAt: number;
let endsAt: number;
let ahead: number;
let asked: string[];
let isDown: boolean;
let unwatch: () => void;

/** What tabs of one browser hear of each other. */
class Channel {
  static open: Channel[] = [];
  onmessage: ((event: { data: unknown }) => void) | null = null;

  constructor(readonly name: string) {
    Channel.open.push(this);
  }

  postMessage(data: unknown): void {
    for (const each of Channel.open) if (each !== this && each.name === this.name) each.onmessage?.({ data });
  }

  close(): void {
    Channel.open = Channel.open.filter((each) => each !== this);
  }
}

const serverNow = () => Date.now() + ahead;
const iso = (at: number) => new Date(at).toISOString();

function answer(request: Request): Promise<Response> {
  const path = new URL(request.url).pathname;
  if (isDown) return Promise.reject(new TypeError("Failed to fetch"));
  const headers = { Date: new Date(serverNow()).toUTCString() };
  const idleEnd = seenAt + IDLE;
  if (serverNow() >= Math.min(idleEnd, endsAt)) {
    const why = serverNow() >= endsAt ? "this session has reached its longest time: sign in again" : "this session was idle for too long: sign in again";
    return Promise.resolve(Response.json({ code: "unauthorized", title: "Unauthorized", detail: why }, { status: 401, headers }));
  }
  if (path !== "/v1/auth/session") {
    if (path === "/v1/me") asked.push(request.headers.has("X-Background") ? "in the background" : "by a person");
    if (!request.headers.has("X-Background")) seenAt = serverNow();
    return Promise.resolve(Response.json({ items: [], next: null }, { headers }));
  }
  return Promise.resolve(
    Response.json(
      {
        id: "s", user: "vera", roles: ["viewer"], rights: ["view"], step: "done", totp: false, fresh_until: null,
        idle_ends_at: iso(Math.min(idleEnd, endsAt)), ends_at: iso(endsAt),
      },
      { headers },
    ),
  );
}

const client = () => new QueryClient({ defaultOptions: { queries: { retry: false } } });
const pass = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));
const notice = () => screen.queryByText(/^You will be signed out at/);

async function open(known = client()) {
  history.replaceState(null, "", "/no/such/page");
  install({ onSignedOut: (why) => { forgetSession(known, why); } });
  render(
    <MantineProvider>
      <QueryClientProvider client={known}>
        <App />
      </QueryClientProvider>
    </MantineProvider>,
  );
  await pass(1_000);
}

beforeEach(() => {
  vi.useFakeTimers({ now: START });
  vi.stubGlobal("fetch", answer);
  vi.stubGlobal("BroadcastChannel", Channel);
  vi.stubGlobal("WebSocket", class {
    readyState = 0;
    close = vi.fn();
    send = vi.fn();
  });
  vi.spyOn(document, "cookie", "get").mockReturnValue("qd_csrf=token");
  [seenAt, endsAt, ahead, asked, isDown] = [START, START + 12 * 60 * MINUTE, 0, [], false];
  unwatch = watchInput(window);
});

afterEach(() => {
  cleanup();
  unwatch();
  endedBecause.set(null);
  serverAhead.set(0);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("says nothing while the end is far, and two minutes before an idle one says what ends when", async () => {
  await open();
  await pass(IDLE - 3 * MINUTE);
  expect(notice()).toBeNull();
  await pass(MINUTE);
  const said = screen.getByRole("alert");
  expect(said).toHaveTextContent(/You will be signed out at \d\d:\d\d:00/);
  expect(said).toHaveTextContent("What is typed into a form and not sent is lost then.");
  expect(asked).toEqual([]);
});

it("stays signed in at the press of its button, and says so", async () => {
  await open();
  await pass(IDLE - 1.5 * MINUTE);
  fireEvent.click(screen.getByRole("button", { name: "Stay signed in" }));
  await pass(1_000);
  expect(asked).toEqual(["by a person"]);
  expect(notice()).toBeNull();
  expect(screen.getByText("You stay signed in.")).toBeInTheDocument();
  await pass(IDLE - 3 * MINUTE);
  expect(notice()).toBeNull();
  expect(screen.getByRole("navigation", { name: "Pages" })).toBeVisible();
});

it("ends where nobody is there, and the sign-in says why", async () => {
  await open();
  await pass(IDLE + 2_000);
  expect(screen.queryByRole("navigation", { name: "Pages" })).toBeNull();
  await vi.dynamicImportSettled();
  await pass(100);
  expect(screen.getByRole("heading", { level: 1, name: "Sign in" })).toBeVisible();
  expect(screen.getByText(/idle for too long: sign in again/)).toBeVisible();
});

it("lets nobody put the longest time off", async () => {
  endsAt = START + 4 * MINUTE;
  await open();
  await pass(3 * MINUTE);
  expect(screen.getByRole("alert")).toHaveTextContent(/A session has a longest time/);
  expect(screen.queryByRole("button", { name: "Stay signed in" })).toBeNull();
  fireEvent.click(screen.getByRole("button", { name: "I have seen it" }));
  await pass(1_000);
  expect(notice()).toBeNull();
  await pass(MINUTE + 2_000);
  await vi.dynamicImportSettled();
  await pass(100);
  expect(screen.getByText(/reached its longest time/)).toBeVisible();
});

it("puts the end off by what a person does, also on a page that asks for nothing", async () => {
  await open();
  for (let minute = 0; minute < 12; minute += 2) {
    await pass(2 * MINUTE);
    fireEvent.keyDown(window, { key: "a" });
    await pass(1_000);
  }
  expect(notice()).toBeNull();
  expect(asked).toHaveLength(6);
  expect(new Set(asked)).toEqual(new Set(["by a person"]));
});

it("is silent where another tab has put the end off", async () => {
  await open();
  await pass(3 * MINUTE);
  seenAt = serverNow();
  await pass(2 * MINUTE);
  expect(notice()).toBeNull();
  await pass(3 * MINUTE);
  expect(notice()).not.toBeNull();
  seenAt = serverNow();
  await pass(11_000);
  expect(notice()).toBeNull();
});

it("hears at once that another tab has put the end off, and tells other tabs", async () => {
  await open();
  const other = new Channel("quarterdeck-session");
  other.onmessage = vi.fn();
  await pass(IDLE - 1.5 * MINUTE);
  expect(notice()).not.toBeNull();
  seenAt = serverNow();
  act(() => {
    other.postMessage("renewed");
  });
  await pass(100);
  expect(notice()).toBeNull();
  expect(other.onmessage).not.toHaveBeenCalled();
  await pass(IDLE - 1.5 * MINUTE);
  fireEvent.click(screen.getByRole("button", { name: "Stay signed in" }));
  await pass(100);
  expect(other.onmessage).toHaveBeenCalledOnce();
  other.close();
});

it("goes by the server's clock", async () => {
  ahead = 20 * MINUTE;
  seenAt = serverNow();
  endsAt = serverNow() + 12 * 60 * MINUTE;
  await open();
  await pass(IDLE - 3 * MINUTE);
  expect(notice()).toBeNull();
  await pass(MINUTE + 1_000);
  expect(notice()).not.toBeNull();
});

it("says so where the end could not be put off", async () => {
  await open();
  await pass(IDLE - 1.5 * MINUTE);
  isDown = true;
  fireEvent.click(screen.getByRole("button", { name: "Stay signed in" }));
  await pass(1_000);
  expect(screen.getByRole("alert")).toHaveTextContent(/It could not be put off: The server cannot be reached/);
});

it("says nothing of a session that its user has left", async () => {
  vi.spyOn(document, "cookie", "get").mockReturnValue("");
  const known = client();
  await open(known);
  act(() => {
    forgetSession(known, "this session was ended: signed out");
  });
  expect(endedBecause.get()).toBeNull();
});

it("forgets what was read where the session has become another one", async () => {
  const known = client();
  await open(known);
  known.setQueryData(["orders"], "of vera");
  seenAt = 0;
  await pass(MINUTE + 1_000);
  expect(known.getQueryData(["orders"])).toBeUndefined();
});
