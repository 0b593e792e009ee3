import { act, screen, within } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import Positions from "./index";

const portfolio = (user: string, at: number, markAt: number | null = at) => ({
  user,
  at: new Date(at).toISOString(),
  accounts: [{ account: `${user}-1`, connected: true, reconciled: true, open_breaks: 0, currency: "USDT", cash: "1", profit: "0", unrealised: "0", fees: "0", gross_exposure: "5", open_orders: 0 }],
  positions: [{ account: `${user}-1`, instrument: "A", quantity: "5", average_cost: "1", mark: "1", mark_at: markAt === null ? null : new Date(markAt).toISOString(), unrealised: "0", realised: "0", fees: "0", exposure: "5" }],
});

afterEach(() => {
  vi.unstubAllGlobals();
});

it("shows what a session that is silent told last as old, with its age, and nothing else", async () => {
  const items = [portfolio("asha", Date.now()), portfolio("bo", Date.now() - 125_000)];
  answers({ "GET /v1/portfolios": () => Response.json({ items, next: null }) });
  const { line } = show(<Positions />);
  for (const name of ["Accounts", "Positions"]) {
    const table = await screen.findByRole("grid", { name });
    const row = async (account: string) => (await within(table).findByText(account)).closest("tr") as HTMLElement;
    expect(await row("bo-1")).toHaveClass("stale");
    expect(await row("bo-1")).toHaveTextContent("2 min old");
    expect(await row("asha-1")).not.toHaveClass("stale");
    expect(await row("asha-1")).toHaveTextContent("now");
  }
  act(() => { line.says({ sequence: 1, topic: "portfolio", key: "bo", at: "t", body: portfolio("bo", Date.now()) }); });
  await vi.waitFor(() => { expect(document.querySelector("tr.stale")).toBeNull(); }, 3_000);
});

it("shows figures made with the price of a silent market, or of none, as old, and says how old", async () => {
  const now = Date.now();
  const items = [portfolio("asha", now, now - 50_000), portfolio("bo", now, now - 185_000), portfolio("cho", now, null)];
  answers({ "GET /v1/portfolios": () => Response.json({ items, next: null }) });
  show(<Positions />);
  for (const name of ["Accounts", "Positions"]) {
    const table = await screen.findByRole("grid", { name });
    const row = async (account: string) => (await within(table).findByText(account)).closest("tr") as HTMLElement;
    expect(await row("asha-1")).not.toHaveClass("stale");
    expect(await row("bo-1")).toHaveClass("stale");
    expect(await row("bo-1")).toHaveTextContent("price 3 min old");
    expect(await row("cho-1")).toHaveClass("stale");
    expect(await row("cho-1")).toHaveTextContent("no price yet");
  }
});

it("goes by the server's clock where this computer's is wrong", async () => {
  const server = Date.now() - 3_600_000;
  answers({
    "GET /v1/portfolios": () =>
      Response.json({ items: [portfolio("asha", server)], next: null }, { headers: { Date: new Date(server).toUTCString() } }),
  });
  show(<Positions />);
  const table = await screen.findByRole("grid", { name: "Accounts" });
  expect((await within(table).findByText("asha-1")).closest("tr")).toHaveTextContent("now");
});

it("has all its columns in sight on a screen of 1366 by 768", async () => {
  answers({ "GET /v1/portfolios": () => Response.json({ items: [portfolio("asha", Date.now())], next: null }) });
  show(<Positions />);
  // Less the navigation, the page's padding, the panel's border and a scroll bar.
  const room = 1_366 - 176 - 24 - 2 - 15;
  for (const name of ["Accounts", "Positions"]) {
    const columns = (await screen.findByRole("grid", { name })).querySelectorAll("col");
    expect([...columns].reduce((sum, each) => sum + parseInt(each.style.width), 0)).toBeLessThanOrEqual(room);
  }
});
