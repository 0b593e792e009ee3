import { screen } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import Deck from "./index";

afterEach(() => {
  vi.unstubAllGlobals();
});

const account = (id: string, currency: string, pnl_today: string) => ({
  account: id, user: "asha", connector: "paper", enabled: true, state: "ready", detail: "", currency, currencies: [currency],
  equity: "1", pnl_today, gross: "2", gross_limit: null, gross_use: null,
});
const deck = {
  at: new Date().toISOString(), gross_limit: "9", gross_use: null, not_known: [], algos: { running: 0, wanted: 0, by_state: {} },
  feeds: [], nodes: [], open_orders: 0, breaks: 0, alerts: 0, kills: [], trouble: "",
};

it("names the currency of the sums, and has none where there are several", async () => {
  const accounts = [account("a-1", "INR", "5"), account("b-1", "USDT", "6")];
  const sums = { currency: "", currencies: ["INR", "USDT"], pnl_today: null, gross: null, net: null };
  answers({ "GET /v1/deck": () => Response.json({ ...deck, ...sums, accounts }) });
  const { client, unmount } = show(<Deck />);
  expect((await screen.findByText("a-1")).closest("tr")).toHaveTextContent("+5.00 INR");
  const stat = async (name: RegExp) => (await screen.findAllByText(name, { selector: ".stat .label" }))[0]?.closest(".stat") ?? null;
  expect(await stat(/^P&L today$/)).toHaveTextContent("not knownINR and USDT are not added up");
  expect(await stat(/^Gross exposure$/)).toHaveTextContent("not knownINR and USDT are not added up");
  client.clear();
  unmount();
  const one = { currency: "INR", currencies: ["INR"], pnl_today: "5", gross: "2", net: "2" };
  answers({ "GET /v1/deck": () => Response.json({ ...deck, ...one, accounts: accounts.slice(0, 1) }) });
  show(<Deck />);
  expect(await stat(/^P&L today, INR$/)).toHaveTextContent("+5.001 accounts");
});

it("tells a limit of nothing from none at all", async () => {
  const accounts = [account("a-1", "INR", "5"), { ...account("b-1", "INR", "5"), gross_limit: "0" }];
  const sums = { currency: "INR", currencies: ["INR"], pnl_today: "5", gross: "2", net: "2", gross_limit: null };
  answers({ "GET /v1/deck": () => Response.json({ ...deck, ...sums, accounts }) });
  show(<Deck />);
  const row = async (name: string) => (await screen.findByText(name)).closest("tr");
  expect(await row("a-1")).toHaveTextContent("no limit");
  expect(await row("b-1")).toHaveTextContent("reached");
});
