import { MantineProvider } from "@mantine/core";
import { fireEvent, render, screen, waitFor } from "@testing-library/react";
import { expect, it } from "vitest";

import { OutcomeUnknown } from "@/api/problem";

import { ErrorNote } from "./ErrorNote";

const ASK = "Ask again whether it happened";

function ask(...answers: (() => Promise<Response>)[]) {
  const again = () => {
    const next = answers.shift();
    if (!next) throw new Error("asked once too often");
    return next();
  };
  const error = new OutcomeUnknown("POST /v1/orders", again);
  render(
    <MantineProvider>
      <ErrorNote error={error} />
    </MantineProvider>,
  );
  fireEvent.click(screen.getByRole("button", { name: ASK }));
}

const problem = (status: number, code: string, detail: string) => () =>
  Promise.resolve(Response.json({ status, code, detail }, { status }));

it("says that it happened where the server has done it", async () => {
  ask(() => Promise.resolve(Response.json({})));
  expect(await screen.findByText(/^It happened/)).toBeVisible();
  expect(screen.queryByRole("button", { name: ASK })).toBeNull();
});

it.each([
  { refused: [{ code: "orders_are_open", detail: "2 orders may still fill" }], closing: [] },
  { done: false, waiting: ["2 orders may still fill"] },
  { done: 1, refused: 0, results: [{ id: "a", problem: null, left: [{ client_order_id: "a-1", detail: "2 orders may still fill" }] }] },
  { done: 1, refused: 1, results: [{ id: "a", status: 200 }, { id: "b", problem: { detail: "2 orders may still fill" } }] },
])("says what of it was not done: %j", async (body) => {
  ask(() => Promise.resolve(Response.json(body)));
  expect(await screen.findByText(/^It happened.*But not all of it: 2 orders may still fill$/)).toBeVisible();
});

it("says that it did not where the server refused it, and why", async () => {
  ask(problem(422, "risk_denied", "over the limit"));
  expect(await screen.findByText(/^It did not happen.*over the limit/)).toBeVisible();
});

it.each([
  [424, "outcome_unknown"], [504, "unreachable"], [503, "not_ready"], [401, "unauthorized"], [403, "fresh_code_needed"], [500, "internal"],
])("does not take %i %s for a refusal, and lets one ask again", async (status, code) => {
  ask(problem(status, code, "in the server's words"), () => Promise.resolve(Response.json({})));
  expect(await screen.findByText(/still not known.*in the server's words/)).toBeVisible();
  expect(screen.queryByText(/did not happen/)).toBeNull();
  fireEvent.click(screen.getByRole("button", { name: ASK }));
  expect(await screen.findByText(/^It happened/)).toBeVisible();
});

it("lets one ask again where nobody answered", async () => {
  const lost = () => Promise.reject(new OutcomeUnknown("POST /v1/orders", () => Promise.reject(new Error("unused"))));
  ask(lost, problem(409, "orders_are_open", "there are open orders"));
  await waitFor(() => { expect(screen.getAllByText(/not known yet/)).toHaveLength(2); });
  fireEvent.click(screen.getByRole("button", { name: ASK }));
  expect(await screen.findByText(/^It did not happen/)).toBeVisible();
});
