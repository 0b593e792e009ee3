import { act, fireEvent, screen, waitFor } from "@testing-library/react";
import { useState } from "react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { type Asked, answers, refusal, show } from "@/testing/deck";

import { ChangeOrder } from "./ChangeOrder";
import type { Order } from "./read";

const ORDER = {
  account: "paper-1", client_order_id: "k-1", state: "submitted", quantity: "10", filled_quantity: "0", limit_price: "100",
  stop_price: null, trail_price: null, trail_percent: null, updated_at: "2026-01-31T09:15:00.000000001+00:00",
} as unknown as Order;

let asked: Asked[];
let change: (order: Order) => void;
const onDone = vi.fn();
const onMoved = vi.fn();

function Part() {
  const [order, setOrder] = useState(ORDER);
  change = (next) => { act(() => { setOrder(next); }); };
  return <ChangeOrder order={order} onDone={onDone} onMoved={onMoved} />;
}

const type = (label: string | RegExp, value: string) => { fireEvent.change(screen.getByLabelText(label), { target: { value } }); };
const send = () => { fireEvent.click(screen.getByRole("button", { name: "Ask the broker to change it" })); };
const sent = () => asked.map((each) => each.body);

beforeEach(() => {
  onDone.mockReset();
  onMoved.mockReset();
  asked = answers({ "PATCH /v1/orders/paper-1/k-1": () => Response.json(ORDER) });
  show(<Part />);
});
afterEach(() => {
  vi.unstubAllGlobals();
});

it("sends what was typed, and which order was seen", async () => {
  type("Limit price", "101");
  send();
  await waitFor(() => { expect(onDone).toHaveBeenCalledOnce(); });
  expect(sent()).toEqual([{ limit_price: "101", seen: ORDER.updated_at }]);
});

it("does not undo what somebody else has changed since it was opened", async () => {
  type("Limit price", "101");
  change({ ...ORDER, quantity: "4", filled_quantity: "1", updated_at: "2026-01-31T09:15:01.000000001+00:00" });
  expect(screen.getByRole("alert")).toHaveTextContent("Quantity, filled part included: 10 has become 4");
  expect(screen.getByRole("alert")).toHaveTextContent("Filled: 0 has become 1");
  send();
  expect(sent()).toEqual([]);
  fireEvent.click(screen.getByRole("button", { name: "Go on from how it is now" }));
  expect(screen.getByLabelText(/Quantity/)).toHaveValue("4");
  expect(screen.getByLabelText("Limit price")).toHaveValue("101");
  send();
  await waitFor(() => { expect(onDone).toHaveBeenCalledOnce(); });
  expect(sent()).toEqual([{ limit_price: "101", seen: "2026-01-31T09:15:01.000000001+00:00" }]);
});

it("reads the order again where the server has seen a change that the panel has not", async () => {
  asked = answers({ "PATCH /v1/orders/paper-1/k-1": () => refusal(409, "order_moved", "look at it again") });
  type("Limit price", "101");
  send();
  expect(await screen.findByText("look at it again")).toBeVisible();
  expect(onMoved).toHaveBeenCalledOnce();
  expect(onDone).not.toHaveBeenCalled();
});
