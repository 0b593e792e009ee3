import { act, fireEvent, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import * as csv from "@/format/csv";
import { answers, type Asked, show } from "@/testing/deck";

import type { Feed } from "./feed";
import { Instruments } from "./Instruments";

const ALL = Array.from({ length: 3_000 }, (_, n) => ({
  id: `X${String(n).padStart(4, "0")}`, state: n % 1_000 === 7 ? "stale" : "live", reason: "", shard: 0, age_s: n / 1_000, rate: n, ticks: 1, quarantined: 0, gaps: 0, last: null,
}));

/** As the server does it, by name or by rate. */
function windowOf(query: URLSearchParams, rows = ALL) {
  const search = (query.get("search") ?? "").toLowerCase();
  const least = Number(/^rate:>=(\d+)$/.exec(query.get("where") ?? "")?.[1] ?? 0);
  const found = rows.filter((each) => each.rate >= least && (!query.get("state") || each.state === query.get("state")) && each.id.toLowerCase().includes(search));
  if (query.get("sort") === "-rate") found.sort((a, b) => b.rate - a.rate);
  const offset = Number(query.get("offset") ?? 0);
  return { items: found.slice(offset, offset + Number(query.get("limit") ?? 100)), offset, total: found.length, states: { live: 2_997, stale: 3 } };
}

let asked: Asked[];
let line: ReturnType<typeof show>["line"];
const windows = () => asked.filter((each) => each.path.endsWith("/window") && each.query.get("limit") !== "1").map((each) => each.query);
const topics = () =>
  line.send.mock.calls
    .map(([text]) => JSON.parse(text as string) as { subscribe?: string[] })
    .flatMap((each) => each.subscribe ?? [])
    .map((topic) => new URLSearchParams(topic.split("?")[1]));
const grid = () => screen.getByRole("grid", { name: "Instruments of f" });
const names = () => within(grid()).getAllByRole("row").flatMap((row) => /X\d{4}/.exec(row.textContent)?.[0] ?? []);

beforeEach(async () => {
  // jsdom does not scroll by itself.
  Element.prototype.scrollTo = function scrollTo(this: Element, to?: unknown) {
    this.scrollTop = (to as { top: number }).top;
    setTimeout(() => fireEvent.scroll(this), 0);
  } as never;
  Object.defineProperty(HTMLElement.prototype, "scrollHeight", { configurable: true, value: 27 * 3_001 });
  asked = answers({ "GET /v1/feeds/f/instruments/window": ({ query }) => Response.json(windowOf(query)) });
  line = show(<Instruments feed={{ id: "f", provider: "p" } as Feed} mayManage />).line;
  await screen.findByText("X0000");
});

afterEach(() => {
  Reflect.deleteProperty(HTMLElement.prototype, "scrollHeight");
  Reflect.deleteProperty(Element.prototype, "scrollTo");
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

it("reads and watches of a long list only the rows that are looked at", async () => {
  expect(screen.getByRole("status")).toHaveTextContent("3000 rows");
  expect(grid()).toHaveAttribute("aria-rowcount", "3001");
  expect(windows().map((each) => each.toString())).toEqual(["search=&state=&sort=id&offset=0&limit=50"]);
  expect(topics().map((each) => each.toString())).toEqual(["search=&state=&sort=id&offset=0&limit=50"]);
  expect(asked.some((each) => each.path === "/v1/feeds/f/instruments")).toBe(false);
  const [topic] = line.send.mock.calls.map(([text]) => JSON.parse(text as string) as { subscribe?: string[] }).flatMap((each) => each.subscribe ?? []);
  const body = windowOf(new URLSearchParams("offset=0&limit=50"), [{ ...(ALL[0] as (typeof ALL)[0]), reason: "silent for 9 s", state: "stale" }, ...ALL.slice(1)]);
  act(() => { line.says({ updates: [{ n: 1, skipped: 0, topic, key: "k", at: "t", body }] }); });
  expect(await screen.findByText("silent for 9 s")).toBeInTheDocument();
  expect(windows()).toHaveLength(1);
});

it("asks for the place that the keyboard goes to, and goes on from there", async () => {
  grid().focus();
  await userEvent.keyboard("{End}");
  await waitFor(() => { expect(names().at(-1)).toBe("X2999"); });
  const last = topics().at(-1);
  expect(Number(last?.get("offset"))).toBeGreaterThan(2_900);
  expect(Number(last?.get("limit"))).toBeLessThanOrEqual(100);
  const active = () => grid().getAttribute("aria-activedescendant");
  await waitFor(() => { expect(active()).toMatch(/X2999$/); });
  await userEvent.keyboard("{ArrowUp}");
  await waitFor(() => { expect(active()).toMatch(/X2998$/); });
});

it("has the server sort and filter", async () => {
  await userEvent.click(within(grid()).getByRole("button", { name: "Ticks/s" }));
  await waitFor(() => { expect(names()[0]).toBe("X2999"); });
  await userEvent.type(screen.getByLabelText("Filter Instruments of f"), "x10");
  await waitFor(() => { expect(names()[0]).toBe("X1099"); });
  expect(screen.getByRole("status")).toHaveTextContent("100 rows");
  await userEvent.type(screen.getByLabelText("Filter Instruments of f"), "zz");
  expect(await screen.findByText("No row passes the filters")).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Show all" }));
  await userEvent.click(screen.getByRole("textbox", { name: "Only in state" }));
  await userEvent.click(await screen.findByRole("option", { name: "stale (3)", hidden: true }));
  await waitFor(() => { expect(names()).toEqual(["X2007", "X1007", "X0007"]); });
});

it("has the server filter by column, and sort by prices too", async () => {
  await userEvent.click(screen.getByRole("button", { name: "Filters by column" }));
  await userEvent.type(screen.getByLabelText("Filter by Ticks/s"), ">=2990");
  await waitFor(() => { expect(screen.getByRole("status")).toHaveTextContent("10 rows"); });
  expect(names()[0]).toBe("X2990");
  await userEvent.click(within(grid()).getByRole("button", { name: "Last" }));
  await waitFor(() => { expect(windows().at(-1)?.get("sort")).toBe("-last"); });
  await userEvent.type(screen.getByLabelText("Filter by Worker"), "1");
  await waitFor(() => { expect(topics().at(-1)?.getAll("where")).toEqual(["rate:>=2990", "shard:1"]); });
  // Without the row of filters nothing is filtered unseen.
  await userEvent.click(screen.getByRole("button", { name: "Filters by column" }));
  await waitFor(() => { expect(screen.getByRole("status")).toHaveTextContent("3000 rows"); });
});

it("chooses none of what is not here, and saves all that passes", async () => {
  const saved = vi.spyOn(csv, "download").mockImplementation(() => undefined);
  expect(screen.getByRole("checkbox", { name: "Select all rows" })).toBeDisabled();
  await userEvent.click(screen.getByRole("button", { name: "Save as CSV" }));
  await waitFor(() => { expect(saved).toHaveBeenCalledOnce(); });
  const lines = saved.mock.calls[0]?.[1].trim().split("\r\n") ?? [];
  expect(lines).toHaveLength(3_001);
  expect(lines.at(-1)).toContain("X2999");
});
