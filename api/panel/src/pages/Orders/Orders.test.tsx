import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import Orders from "./index";

const order = (id: string, instrument: string, side: string, more: object = {}) => ({
  account: "p", client_order_id: id, instrument, side, type: "limit", quantity: "10", filled_quantity: "0", open_quantity: "10",
  limit_price: "100", stop_price: null, trail_price: null, trail_percent: null, state: "submitted", reason: "", cancelling: false, algo: null,
  average_price: "0", time_in_force: "day", created_at: "2026-11-22T10:00:00+00:00", updated_at: "2026-11-22T10:00:00+00:00", broker_order_id: null, ...more,
});

afterEach(() => {
  vi.unstubAllGlobals();
});

it("names the orders that are about to be cancelled, and those of them that a filter hides", async () => {
  const items = [order("k1", "NSE:INFY", "buy"), order("k2", "NSE:TCS", "sell", { quantity: "7", filled_quantity: "2" }), order("k3", "NSE:SBIN", "buy")];
  const asked = answers({ "GET /v1/orders": () => Response.json({ items, next: null }) });
  show(<Orders />, "/orders");
  const user = userEvent.setup();
  await user.click(await screen.findByLabelText("Select p/k1"));
  await user.click(screen.getByLabelText("Select p/k2"));
  await user.click(screen.getByRole("button", { name: "Cancel 2 chosen" }));
  const named = async () => within(await screen.findByRole("list", { name: "Orders to cancel" })).getAllByRole("listitem").map((each) => each.textContent);
  expect(await named()).toEqual(["▲ buy 10 NSE:INFY at 100 on p", "▼ sell 7 NSE:TCS at 100, 2 filled on p"]);
  expect(screen.queryByText(/not in the table now/)).toBeNull();
  await user.click(screen.getByRole("button", { name: "Cancel" }));
  await user.type(screen.getByLabelText("Filter Orders"), "INFY");
  await user.click(screen.getByRole("button", { name: "Cancel 2 chosen" }));
  expect(await screen.findByText("1 of them is not in the table now: the filters hide it.")).toBeVisible();
  expect(await named()).toEqual(["▼ sell 7 NSE:TCS at 100, 2 filled on p, hidden", "▲ buy 10 NSE:INFY at 100 on p"]);
  await user.click(screen.getByRole("button", { name: "Cancel 2 orders" }));
  await waitFor(() => {
    expect(asked.filter((each) => each.method === "DELETE").map((each) => each.path).sort()).toEqual(["/v1/orders/p/k1", "/v1/orders/p/k2"]);
  });
});
