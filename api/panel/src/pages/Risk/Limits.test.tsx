import { screen, within } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { Limits } from "./Limits";
import { Losses } from "./Losses";

const FIGURES = { gross: "200", net: "100", money_at_risk: "20", pnl_today: "-4", drawdown: "0", open_orders: 1 };
const LIMIT = { kind: "gross_exposure", value: "500", used: "200", use: 0.4, unit: "money", generation: 1 };

function level(scope: string, old: unknown[], more: object = {}) {
  const money = { currency: "USDT", currencies: ["USDT"] };
  return { scope, instrument: "", title: scope.split(":").pop(), limits: [LIMIT], figures: FIGURES, children: [], old, ...money, ...more };
}

afterEach(() => {
  vi.unstubAllGlobals();
});

it("shows what a session that is silent told last as old, of whom and with its age, and the rest as it is", async () => {
  const at = new Date(Date.now() - 125_000).toISOString();
  const bo = { account: "bo-1", at };
  const gone = { account: "cy-1", at: null };
  const others = { account: null, at };
  answers({
    "GET /v1/risk/tree": () =>
      Response.json(
        level("cluster", [bo, gone, others], {
          children: [level("account:asha-1", []), level("account:bo-1", [bo]), level("account:cy-1", [gone], { figures: null })],
        }),
      ),
  });
  show(<Limits />);
  const of = async (name: string) => screen.findByRole("region", { name });
  const told = (await of("bo-1")).querySelector(".tree-head") as HTMLElement;
  expect(told).toHaveTextContent(/Old: bo-1 as of .*\(2 min ago\)/);
  expect(within(told).getByText(/gross/).closest(".stale")).not.toBeNull();
  expect(within(await of("bo-1")).getByRole("table", { name: "Limits of bo-1" })).toHaveClass("stale");
  expect(await of("cy-1")).toHaveTextContent("Old: cy-1 not known");
  const present = await of("asha-1");
  expect(present).not.toHaveTextContent("Old");
  expect(present.querySelector(".stale")).toBeNull();
  const root = (await of("cluster")).querySelector(".tree-head");
  expect(root).toHaveTextContent(/Old: bo-1 as of .*, cy-1 not known, others as of/);
});

it("shows losses of what is silent as old too", async () => {
  const bo = { account: "bo-1", at: new Date(Date.now() - 125_000).toISOString() };
  const use = (scope: string) => ({ scope, instrument: "", profit: "-4", drawdown: "4", money_at_risk: "0", gross: "9", open_orders: 0, limits: {}, blocked: [], currency: "USDT", currencies: ["USDT"] });
  answers({
    "GET /v1/risk/tree": () => Response.json(level("cluster", [bo], { children: [level("account:asha-1", []), level("account:bo-1", [bo])] })),
    "GET /v1/risk/exposure": () => Response.json({ levels: ["cluster", "account:asha-1", "account:bo-1"].map(use), exposure: [], over: [] }),
  });
  show(<Losses />);
  const table = await screen.findByRole("grid", { name: "Losses of the day by level" });
  const row = async (scope: string) => (await within(table).findByText(scope)).closest("tr") as HTMLElement;
  await vi.waitFor(async () => { expect(await row("account:bo-1")).toHaveClass("stale"); });
  expect(await row("account:bo-1")).toHaveTextContent("old");
  expect(await row("cluster")).toHaveClass("stale");
  expect(await row("account:asha-1")).not.toHaveClass("stale");
  expect(await row("account:asha-1")).toHaveTextContent("ok");
});

it("calls no limit that is in force none", async () => {
  const limits = [
    { ...LIMIT, kind: "halted", unit: "0, 1 or 2", value: "1", used: null, use: null },
    { ...LIMIT, kind: "open_orders", unit: "orders", value: "0", used: "2", use: null },
    { ...LIMIT, kind: "order_notional", value: "25000", used: null, use: null },
    { ...LIMIT, kind: "short_exposure", value: "0", used: "0", use: null },
  ];
  const silent = level("account:bo-1", [], { limits, figures: null });
  answers({
    "GET /v1/risk/tree": () => Response.json(level("cluster", [], { limits, children: [silent] })),
    "GET /v1/risk/kills": () => Response.json([]),
  });
  show(<Limits />);
  const uses = async (name: string) =>
    within(await screen.findByRole("table", { name: `Limits of ${name}` })).getAllByRole("row").slice(1).map((row) => row.children[3]?.textContent);
  expect(await uses("cluster")).toEqual(["–", "reached", "–", "–"]);
  expect(await uses("bo-1")).toEqual(["not known", "reached", "not known", "not known"]);
  expect(screen.queryByText("no limit")).toBeNull();
});

it("leads to the kill that holds a halt in place of lifting it, and lifts what no kill holds", async () => {
  const limits = [{ ...LIMIT, kind: "halted", unit: "0, 1 or 2", value: "1", used: null, use: null }];
  const kill = (id: string, scope: string, lifted_at: string | null) => ({ id, scope, lifted_at });
  const below = [level("account:held", [], { limits }), level("account:released", [], { limits }), level("TEST:AAA", [], { limits, instrument: "TEST:AAA", scope: "account:held" })];
  answers({
    "GET /v1/risk/tree": () => Response.json(level("cluster", [], { children: below })),
    "GET /v1/risk/kills": () => Response.json([kill("kill-1", "account:held", null), kill("kill-2", "account:released", "2026-01-01T00:00:00Z")]),
  });
  show(<Limits />);
  const held = await screen.findByRole("region", { name: "held" });
  expect(await within(held).findByRole("link", { name: "held by a kill" })).toHaveAttribute("href", "/kill/kill-1");
  expect(within(held).queryByRole("button", { name: /^Lift/ })).toBeNull();
  expect(screen.getByRole("button", { name: "Lift halted of released" })).toBeVisible();
  expect(screen.getByRole("button", { name: "Lift halted of AAA" })).toBeVisible();
});
