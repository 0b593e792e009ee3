/** A deck for the tests of pages: answers by method and path, and a stream that a test speaks on. */
import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render } from "@testing-library/react";
import type { ReactNode } from "react";
import { MemoryRouter } from "react-router";
import { vi } from "vitest";

import { SESSION_KEY } from "@/session/session";
import { Connection, type Socket } from "@/stream/connection";
import { StreamContext } from "@/stream/hooks";

export interface Asked {
  method: string;
  path: string;
  query: URLSearchParams;
  body: unknown;
}

type Answer = (asked: Asked) => Response | Promise<Response>;

export const refusal = (status: number, code: string, detail: string, more: object = {}): Response =>
  Response.json({ status, code, title: code, detail, ...more }, { status });

/** Answer `fetch` by `"GET /v1/orders"`; lists that nobody thought of are empty. What was asked is in the result. */
export function answers(routes: Record<string, Answer>): Asked[] {
  const all: Asked[] = [];
  vi.stubGlobal("fetch", async (input: Request | string, init?: RequestInit) => {
    const request = new Request(input, init);
    const { pathname, searchParams } = new URL(request.url);
    const text = await request.clone().text();
    const isJson = text !== "" && !request.headers.get("Content-Type")?.includes("octet-stream");
    const asked = { method: request.method, path: pathname, query: searchParams, body: isJson ? (JSON.parse(text) as unknown) : text || null };
    all.push(asked);
    const answer = routes[`${asked.method} ${decodeURIComponent(pathname)}`];
    return answer ? answer(asked) : Response.json({ items: [], next: null });
  });
  return all;
}

export class Line implements Socket {
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

  breaks(): void {
    this.onclose?.(new CloseEvent("close", { code: 1006 }));
  }
}

const ME = {
  id: "s", user: "olga", roles: ["operator"], rights: ["view", "trade", "algos", "feeds", "strategies"], step: "done", totp: true,
  fresh_until: null, idle_ends_at: "2099-01-01T00:00:00+00:00", ends_at: "2099-01-01T00:00:00+00:00",
};

/** Render a part of a page for an operator who is signed in, on a stream that has just greeted. */
export function show(part: ReactNode, at = "/"): { line: Line; stream: Connection; client: QueryClient; unmount: () => void } {
  const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  client.setQueryData(SESSION_KEY, ME);
  let line = new Line();
  const stream = new Connection({
    topics: ["orders"],
    open: () => (line = new Line()),
    frame: (run) => setTimeout(run, 0),
  });
  stream.start();
  line.onopen?.(new Event("open"));
  line.says({ instance: "one", sequence: 0, topics: ["orders"] });
  const { unmount } = render(
    <MantineProvider env="test">
      <QueryClientProvider client={client}>
        <StreamContext value={stream}>
          <MemoryRouter initialEntries={[at]}>{part}</MemoryRouter>
        </StreamContext>
      </QueryClientProvider>
    </MantineProvider>,
  );
  return { line, stream, client, unmount: () => { unmount(); stream.stop(); } };
}
