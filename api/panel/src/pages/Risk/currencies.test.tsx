import { screen, within } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { Heat } from "./Heat";
import { Limits } from "./Limits";
import { Losses } from "./Losses";

afterEach(() => {
  vi.unstubAllGlobals();
});

const limit = { kind: "gross_exposure", value: "1000", used: "150", use: 0.15, unit: "money", generation: 1 };
const figures = { gross: "100", net: "-40", money_at_risk: "5", pnl_today: "7", drawdown: "0", open_orders: 2 };
const none = { gross: null, net: null, money_at_risk: null, pnl_today: null, drawdown: null, open_orders: 3 };
const level = { scope: "cluster", instrument: "", title: "All", limits: [limit], children: [] };

it("shows the tree's figures and limits with their currency, and no sum of several", async () => {
  const asha = { ...level, scope: "user:asha", title: "asha", currency: "INR", currencies: ["INR"], figures };
  const root = { ...level, currency: "", currencies: ["INR", "USDT"], figures: none, children: [asha] };
  answers({ "GET /v1/risk/tree": () => Response.json(root) });
  show(<Limits />);
  const mine = await screen.findByRole("region", { name: "asha" });
  expect(mine).toHaveTextContent("gross 100.00 INR · net −40.00 INR · at risk 5.00 INR · today +7.00 INR · 2 orders open");
  expect(within(mine).getByRole("row", { name: /gross exposure/ })).toHaveTextContent("(INR)150 INR1,000 INR");
  const all = screen.getByRole("region", { name: "All" });
  expect(all).toHaveTextContent("amounts in INR and USDT, which are not added up · 3 orders open");
  expect(within(all).getAllByRole("row", { name: /gross exposure/ })[0]).toHaveTextContent(
    "(money: INR and USDT added up as they are)1501,000",
  );
});

it("sums up money at risk by currency", async () => {
  const cell = (algo: string, instrument: string, at_risk: string, currency: string, share: number) => ({ algo, instrument, at_risk, currency, share });
  answers({
    "GET /v1/risk/heat": () =>
      Response.json({
        at: new Date().toISOString(), old: [], currency: "", currencies: ["INR", "USDT"], algos: ["one"], instruments: ["A", "B", "C"],
        cells: [cell("one", "A", "900", "INR", 1), cell("one", "B", "30.5", "USDT", 0.75), cell("one", "C", "10", "USDT", 0.25)],
        total: null, totals: [{ currency: "INR", at_risk: "900" }, { currency: "USDT", at_risk: "40.5" }],
      }),
  });
  show(<Heat />);
  const row = await screen.findByRole("row", { name: /^one/ });
  expect(within(row).getAllByRole("cell").map((each) => each.textContent)).toEqual([
    "900.00 INR", "30.50 USDT", "10.00 USDT", "900.00 INR40.50 USDT",
  ]);
  expect(screen.getByRole("row", { name: /^All/ })).toHaveTextContent("All900.00 INR30.50 USDT10.00 USDT900.00 INR40.50 USDT");
});

it("shows losses in the currency of their level, and says where there is none", async () => {
  const known = { instrument: "", limits: { daily_loss: "50" }, blocked: [], long: "0", short: "0", ...figures, profit: "-7" };
  answers({
    "GET /v1/risk/tree": () => Response.json({ ...level, currency: "", currencies: [] }),
    "GET /v1/risk/exposure": () =>
      Response.json({
        at: new Date().toISOString(), epoch: 1, limits_version: 1, exposure: [], over: [],
        levels: [
          { ...known, scope: "user:asha", currency: "INR", currencies: ["INR"] },
          { ...known, ...none, scope: "cluster", profit: null, currency: "", currencies: ["INR", "USDT"] },
        ],
      }),
  });
  show(<Losses />);
  const row = async (name: string) => (await screen.findByText(name)).closest("tr") as HTMLElement;
  expect(await row("user:asha")).toHaveTextContent("−7.00 INR50.00 INR");
  expect(await row("cluster")).toHaveTextContent("no sum (INR, USDT)");
});
