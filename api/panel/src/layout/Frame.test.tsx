import { act, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { Route, Routes, useNavigate } from "react-router";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { pages } from "@/pages";
import { type Asked, answers, show } from "@/testing/deck";

import { Frame } from "./Frame";

const order = (id: string, instrument: string) => ({
  account: "p", client_order_id: id, instrument, side: "buy", type: "limit", quantity: "10", filled_quantity: "0", open_quantity: "10",
  limit_price: "100", stop_price: null, trail_price: null, trail_percent: null, state: "submitted", reason: "", cancelling: false, algo: null,
  average_price: "0", time_in_force: "day", created_at: "2026-11-22T10:00:00+00:00", updated_at: "2026-11-22T10:00:00+00:00", broker_order_id: null, events: [],
});

let asked: Asked[];
let go: (to: string) => void;

function Navigator() {
  const navigate = useNavigate();
  go = (to) => { act(() => void navigate(to)); };
  return null;
}

beforeEach(async () => {
  const orders = [order("k1", "NSE:INFY"), order("k2", "NSE:INFY"), order("k3", "NSE:TCS")];
  asked = answers({
    "GET /v1/orders": () => Response.json({ items: orders, next: null }),
    "GET /v1/orders/p/k1": () => Response.json(orders[0]),
    "GET /v1/orders/p/k2": () => Response.json(orders[1]),
  });
  const of = (name: string) => {
    const entry = pages.find((each) => each.path === name);
    return [entry?.path, ...(entry?.more ?? [])].map((path) => <Route key={path} path={path} element={entry ? <entry.page /> : null} />);
  };
  show(
    <>
      <Navigator />
      <Routes>
        <Route element={<Frame />}>
          {of("/orders")}
          {of("/trades")}
          <Route path="/nodes" element={<Broken />} />
          <Route path="/nodes/:id" element={<p>A machine</p>} />
        </Route>
      </Routes>
    </>,
    "/orders",
  );
  await screen.findByText("NSE:TCS");
});
afterEach(() => {
  vi.unstubAllGlobals();
});

function Broken(): never {
  throw new Error("broken");
}

const table = () => screen.getByRole("grid", { name: "Orders", hidden: true });
const rows = () => within(table()).getAllByRole("row", { hidden: true }).slice(1);
const reads = () => asked.filter((each) => each.path === "/v1/orders").length;

it("keeps the filter, the order, the choice and the keyboard's row of a table while a drawer opens and closes", async () => {
  const user = userEvent.setup();
  await user.type(screen.getByLabelText("Filter Orders"), "INFY");
  await user.click(within(table()).getByRole("button", { name: "Instrument" }));
  await user.click(screen.getByLabelText("Select p/k2"));
  act(() => { table().focus(); });
  await user.keyboard("{Home}{ArrowDown}");
  const active = rows().findIndex((each) => each.dataset.active === "true");
  expect(active).toBe(1);
  await user.keyboard("{Enter}");
  const drawer = await screen.findByRole("dialog");
  expect(rows()).toHaveLength(2);
  await user.click(within(drawer).getAllByRole("button")[0] as HTMLElement);
  await waitFor(() => { expect(screen.queryByRole("dialog")).toBeNull(); });
  expect(screen.getByLabelText("Filter Orders")).toHaveValue("INFY");
  expect(rows()).toHaveLength(2);
  expect(within(table()).getByRole("columnheader", { name: "Instrument" })).toHaveAttribute("aria-sort", "ascending");
  expect(screen.getByLabelText("Select p/k2")).toBeChecked();
  expect(screen.getByRole("button", { name: "Cancel 1 chosen" })).toBeInTheDocument();
  expect(rows()[active]?.dataset.active).toBe("true");
  // The arrows go on from there.
  expect(table()).toHaveFocus();
  expect(reads()).toBe(1);
});

it("reads anew, and goes to the content, on another page", async () => {
  go("/trades");
  await screen.findByRole("heading", { level: 1, name: "Trades" });
  expect(screen.getByRole("main")).toHaveFocus();
  go("/orders");
  await screen.findByText("NSE:TCS");
  expect(reads()).toBe(2);
});

it("shows another part of a page that failed", async () => {
  const told = vi.spyOn(console, "error").mockImplementation(() => undefined);
  go("/nodes");
  await screen.findByRole("heading", { level: 1, name: "This page failed" });
  go("/nodes/one");
  expect(await screen.findByText("A machine")).toBeInTheDocument();
  told.mockRestore();
});
