import { screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { answers, refusal, show } from "@/testing/deck";

import { LimitForm } from "./LimitForm";
import { whatBecomesPossible } from "./raising";

afterEach(() => {
  vi.unstubAllGlobals();
});

const KINDS = [
  { kind: "gross_exposure", unit: "money", bounds: "the value of all that is held", levels: ["account"], instrument: "no" },
  { kind: "halted", unit: "0, 1 or 2", bounds: "everything but orders that reduce a position", levels: ["account"], instrument: "may" },
];
const [GROSS, HALTED] = KINDS as [(typeof KINDS)[0], (typeof KINDS)[0]];
const asked = (value: string, kind = "gross_exposure") => ({ scope: "account:a", kind, instrument: "", value });

function open(held: string | null, more: Parameters<typeof answers>[0] = {}) {
  const all = answers({
    "GET /v1/risk/kinds": () => Response.json(KINDS),
    "GET /v1/risk/limits": () => Response.json({ items: held === null ? [] : [asked(held)], next: null }),
    "PUT /v1/risk/limits": () => Response.json({}),
    ...more,
  });
  const onClose = vi.fn();
  show(<LimitForm scope="account:a" kind="gross_exposure" instrument="" value="1000" money="INR" onClose={onClose} />);
  return { onClose, puts: () => all.filter((each) => each.method === "PUT").map((each) => each.body) };
}

async function change(value: string): Promise<void> {
  const field = await screen.findByLabelText(/^Value \(INR\)/);
  await userEvent.clear(field);
  await userEvent.type(field, value);
  await userEvent.click(screen.getByRole("button", { name: "Change the limit" }));
}

it("says what becomes possible before a limit is raised, and sets nothing until that is confirmed", async () => {
  const { puts, onClose } = open("1000");
  await change("2500.50");
  const dialog = await screen.findByRole("dialog", { name: /^Allow more/ });
  expect(dialog).toHaveTextContent("gross exposure goes from 1,000 INR to 2,500.5 INR");
  expect(dialog).toHaveTextContent("that may be 1,500.5 INR more than now");
  expect(puts()).toEqual([]);
  await userEvent.click(screen.getByRole("button", { name: "Allow it" }));
  await waitFor(() => { expect(onClose).toHaveBeenCalledOnce(); });
  expect(puts()).toEqual([{ ...asked("2500.50"), seen: "1000" }]);
});

it("asks nothing before a limit is lowered, or where none held", async () => {
  const { puts, onClose } = open("1000");
  await change("400");
  await waitFor(() => { expect(onClose).toHaveBeenCalledOnce(); });
  expect(puts()).toEqual([{ ...asked("400"), seen: "1000" }]);
  expect(screen.queryByRole("dialog", { name: /^Allow more/ })).toBeNull();
});

it("goes by what is in force now, not by what the page shows", async () => {
  const { puts } = open("300");
  await change("400");
  expect(await screen.findByRole("dialog", { name: /^Allow more/ })).toHaveTextContent("from 300 INR to 400 INR");
  expect(puts()).toEqual([]);
});

it("sets nothing where what is in force cannot be read", async () => {
  const { puts } = open("300", { "GET /v1/risk/limits": () => refusal(503, "not_ready", "later") });
  await change("400");
  expect(await screen.findByText("later")).toBeVisible();
  expect(puts()).toEqual([]);
});

it.each(["1_000", "９０００", "1,000", "2.5 million", "0x10"])("sets nothing for %s, which is no number", async (value) => {
  const { puts } = open("0");
  await change(value);
  expect(screen.getByText(/^Write a number/)).toBeVisible();
  expect(screen.getByRole("button", { name: "Change the limit" })).toBeDisabled();
  await userEvent.type(screen.getByLabelText(/^Value/), "{Enter}");
  expect(puts()).toEqual([]);
});

it("compares a fraction that begins with its point", async () => {
  const { puts } = open("0.1");
  await change(".9");
  expect(await screen.findByRole("dialog", { name: /^Allow more/ })).toHaveTextContent("from 0.1 INR to 0.9 INR");
  expect(puts()).toEqual([]);
});

it("sets nothing where it cannot be read what the limit means, and says why", async () => {
  const { puts } = open("300", { "GET /v1/risk/kinds": () => refusal(503, "not_ready", "the database is away") });
  expect(await screen.findByText("the database is away")).toBeVisible();
  await userEvent.type(screen.getByLabelText(/^Value/), "9{Enter}");
  expect(screen.getByRole("button", { name: "Change the limit" })).toBeDisabled();
  expect(puts()).toEqual([]);
});

it("knows that of a state the smaller number allows more", () => {
  expect(whatBecomesPossible(asked("0", "halted"), HALTED, "2", "")?.[1]).toContain("All of these orders pass then");
  expect(whatBecomesPossible(asked("1", "halted"), HALTED, "2", "")?.[0]).toContain("halted goes from 2 to 1");
  expect(whatBecomesPossible(asked("2", "halted"), HALTED, "1", "")).toBeNull();
  expect(whatBecomesPossible(asked("5"), GROSS, null, "")).toBeNull();
  expect(whatBecomesPossible(asked("1000.0"), GROSS, "1000", "")).toBeNull();
  expect(() => whatBecomesPossible(asked("much"), GROSS, "1000", "")).toThrow("much: Write a number");
});
