import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { App } from "./App";

const SESSION = {
  id: "s", user: "vera", roles: ["viewer"], rights: ["view"], step: "done", totp: false, fresh_until: null,
  idle_ends_at: "2126-01-01T00:00:00+00:00", ends_at: "2126-01-01T00:00:00+00:00",
};

function answers(session: () => Response | Promise<Response>) {
  vi.stubGlobal("fetch", (input: Request) => {
    if (new URL(input.url).pathname === "/v1/auth/session") return Promise.resolve(session());
    return Promise.resolve(Response.json({ items: [], next: null }));
  });
}

function open(path: string) {
  history.replaceState(null, "", path);
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
        <App />
      </QueryClientProvider>
    </MantineProvider>,
  );
}

beforeEach(() => {
  vi.stubGlobal("WebSocket", class {
    readyState = 0;
    close = vi.fn();
    send = vi.fn();
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

it("shows the sign-in where there is no session", async () => {
  answers(() => Response.json({ code: "unauthorized", detail: "nobody" }, { status: 401 }));
  open("/");
  expect(await screen.findByRole("heading", { level: 1, name: "Sign in" })).toBeVisible();
});

it("shows the step that is due, and no page before it is done", async () => {
  answers(() => Response.json({ ...SESSION, step: "code", rights: [] }));
  open("/orders");
  expect(await screen.findByRole("heading", { level: 1, name: "Second factor" })).toBeVisible();
  expect(screen.queryByRole("navigation")).toBeNull();
});

it("keeps operators' pages from others, and their links too", async () => {
  answers(() => Response.json(SESSION));
  open("/users");
  expect(await screen.findByText(/This page is for operators/)).toBeVisible();
  const navigation = screen.getByRole("navigation", { name: "Pages" });
  expect(navigation).toHaveTextContent("Orders");
  expect(navigation).not.toHaveTextContent("Users");
});

it("reads anew what it had read before the stream began", async () => {
  interface Fake { onopen?: () => void; onmessage?: (event: { data: string }) => void }
  const sockets: Fake[] = [];
  vi.stubGlobal("WebSocket", class {
    readyState = 1;
    close = vi.fn();
    send = vi.fn();
    constructor() {
      sockets.push(this as Fake);
    }
  });
  let reads = 0;
  vi.stubGlobal("fetch", (input: Request) => {
    const { pathname } = new URL(input.url);
    if (pathname === "/v1/auth/session") return Promise.resolve(Response.json(SESSION));
    if (pathname === "/v1/orders") reads += 1;
    return Promise.resolve(Response.json({ items: [], next: null }));
  });
  open("/orders");
  await waitFor(() => { expect(reads).toBeGreaterThan(0); });
  await screen.findByRole("heading", { level: 1, name: "Orders" });
  const before = reads;
  const socket = sockets.at(-1);
  socket?.onopen?.();
  socket?.onmessage?.({ data: JSON.stringify({ instance: "one", sequence: 7, topics: ["orders"] }) });
  await waitFor(() => { expect(reads).toBeGreaterThan(before); });
});

it("says so where nothing is, with one heading", async () => {
  answers(() => Response.json(SESSION));
  open("/no/such/page");
  expect(await screen.findByRole("heading", { level: 1, name: "Nothing is here" })).toBeVisible();
  expect(screen.getAllByRole("heading", { level: 1 })).toHaveLength(1);
});
