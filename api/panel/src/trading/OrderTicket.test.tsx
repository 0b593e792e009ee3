import { fireEvent, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { type Asked, answers, refusal, show } from "@/testing/deck";

import { OrderTicket } from "./OrderTicket";

const START = { account: "paper-1", instrument: "NSE:INFY", side: "buy", type: "market", quantity: "5" } as const;
const ORDER = { ...START, state: "submitted", client_order_id: "x" };
const unreachable = () => refusal(504, "unreachable", "the session did not answer");

let asked: Asked[];
/** What is answered to who looks for the order. */
let looks: (() => Response)[] = [];
let closed: ReturnType<typeof vi.fn<() => void>>;

function open(...placings: (() => Response | Promise<Response>)[]) {
  const routes: Parameters<typeof answers>[0] = {
    "GET /v1/accounts": () => Response.json({ items: [{ id: "paper-1", user: "olga", enabled: true }], next: null }),
    "POST /v1/orders": () => (placings.shift() ?? unreachable)(),
  };
  // The order's key is a new one each time.
  asked = answers(new Proxy(routes, {
    get: (all, name: string) => name.startsWith("GET /v1/orders/") ? () => (looks.shift() ?? unreachable)() : all[name],
  }));
  closed = vi.fn<() => void>();
  show(<OrderTicket opened onClose={closed} start={START} />);
}

const press = (name: string | RegExp) => { fireEvent.click(screen.getByRole("button", { name })); };
const placed = () => asked.filter((each) => each.method === "POST").map((each) => (each.body as { client_order_id: string }).client_order_id);

afterEach(() => {
  vi.unstubAllGlobals();
});

it("cannot be changed while the order is on its way", async () => {
  let answer: (response: Response) => void = () => undefined;
  open(() => new Promise((done) => { answer = done; }));
  press(/^Buy 5 NSE:INFY/);
  await waitFor(() => { expect(placed()).toHaveLength(1); });
  expect(screen.getByLabelText(/Quantity/)).toBeDisabled();
  expect(screen.getByLabelText(/May only make/)).toBeDisabled();
  answer(Response.json(ORDER, { status: 201 }));
  await waitFor(() => { expect(closed).toHaveBeenCalledOnce(); });
});

it("looks for the order while nobody knows whether it was placed, and sends nothing", async () => {
  open(unreachable);
  looks = [() => refusal(503, "not_ready", "the journal is away"), () => Response.json({ ...ORDER, events: [] })];
  press(/^Buy 5 NSE:INFY/);
  expect(await screen.findByText(/may have been placed/)).toBeVisible();
  expect(screen.getByLabelText(/Quantity/)).toBeDisabled();
  expect(screen.queryByRole("button", { name: /Buy/ })).toBeNull();
  press("Look what became of it");
  // That it is not ready tells nothing of the first try.
  expect(await screen.findByText("the journal is away")).toBeVisible();
  expect(screen.getByText(/may have been placed/)).toBeVisible();
  press("Look what became of it");
  await waitFor(() => { expect(closed).toHaveBeenCalledOnce(); });
  expect(placed()).toHaveLength(1);
});

it("is sent once more only where the deck knows of no such order and somebody says so", async () => {
  open(unreachable, () => Response.json(ORDER, { status: 201 }));
  looks = [() => refusal(404, "unknown_order", "no such order")];
  press(/^Buy 5 NSE:INFY/);
  await screen.findByText(/may have been placed/);
  press("Look what became of it");
  expect(await screen.findByText(/it was not placed/)).toBeVisible();
  expect(placed()).toHaveLength(1);
  press(/^Send now: Buy 5 NSE:INFY/);
  await waitFor(() => { expect(closed).toHaveBeenCalledOnce(); });
  expect(new Set(placed()).size).toBe(1);
  expect(placed()).toHaveLength(2);
});

it("places another order only where that was chosen in so many words", async () => {
  open(() => refusal(424, "outcome_unknown", "cut off"), () => Response.json(ORDER, { status: 201 }));
  press(/^Buy 5 NSE:INFY/);
  await screen.findByText(/may have been placed/);
  press("Place another order");
  expect(screen.getByLabelText(/Quantity/)).toBeEnabled();
  press(/^Buy 5 NSE:INFY/);
  await waitFor(() => { expect(closed).toHaveBeenCalledOnce(); });
  expect(new Set(placed()).size).toBe(2);
});

it("is open to changes again after a refusal, and is another order then", async () => {
  open(unreachable, () => refusal(422, "risk_denied", "over the limit"), () => Response.json(ORDER, { status: 201 }));
  looks = [() => refusal(404, "unknown_order", "no such order")];
  press(/^Buy 5 NSE:INFY/);
  await screen.findByText(/may have been placed/);
  press("Look what became of it");
  await screen.findByText(/it was not placed/);
  press(/^Send now/);
  expect(await screen.findByText("over the limit")).toBeVisible();
  fireEvent.change(screen.getByLabelText(/Quantity/), { target: { value: "4" } });
  press(/^Buy 4 NSE:INFY/);
  await waitFor(() => { expect(closed).toHaveBeenCalledOnce(); });
  const [first, second, third] = placed();
  expect(second).toBe(first);
  expect(third).not.toBe(first);
});
