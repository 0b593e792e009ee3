import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { install } from "@/api/transport";
import { answers, refusal, show } from "@/testing/deck";

import { laidOver, Surveillance } from "./Surveillance";

afterEach(() => {
  vi.unstubAllGlobals();
  install({ askFreshCode: () => Promise.resolve(false) });
});

const HELD = { flips: 6, cancels: 20 };
const terms = (account: string | null, set: object) => ({ account, set, in_force: { ...HELD, ...set }, changed_at: null, changed_by: "olga" });
const shown = (...more: Parameters<typeof answers>) =>
  answers({
    "GET /v1/surveillance/terms": () => Response.json([terms(null, {}), terms("paper-1", { cancels: 60 })]),
    "GET /v1/accounts": () => Response.json({ items: [{ id: "paper-1" }, { id: "paper-2" }], next: null }),
    "GET /v1/audit": ({ query }) =>
      Response.json({
        items: query.get("action") === "set_surveillance_terms"
          ? [{ number: 7, at: "2026-01-31T09:15:00Z", actor: "olga", action: "set_surveillance_terms", subject: "paper-1", before: { flips: 9 }, after: { cancels: 60 } }]
          : [],
        next: null,
      }),
    ...more[0],
  });

it("lists what holds, where it comes from, and who changed it", async () => {
  shown({});
  show(<Surveillance />);
  const table = await screen.findByRole("table", { name: "Terms of surveillance" });
  expect(within(table).getByRole("row", { name: /^cancels/ })).toHaveTextContent("20 default60");
  expect(within(table).getByRole("row", { name: /^flips/ })).toHaveTextContent("6 default6 as the deck");
  expect(await screen.findByText("flips: 9 → not set, cancels: not set → 60")).toBeVisible();
});

it("sets an account's terms once a code was given, and shows what is wrong at its field", async () => {
  let code = false;
  install({ askFreshCode: () => Promise.resolve((code = true)) });
  const asked = shown({
    "PUT /v1/surveillance/terms/paper-1": ({ body }) =>
      !code
        ? refusal(403, "fresh_code_needed", "give a code")
        : (body as { terms: { flips?: number } }).terms.flips === 999
          ? refusal(422, "bad_input", "999 is out of range: use 1 to 200", { field: "terms.flips" })
          : Response.json(terms("paper-1", {})),
  });
  const puts = () => asked.filter((each) => each.method === "PUT").map((each) => each.body);
  show(<Surveillance />);
  await userEvent.click(await screen.findByRole("button", { name: "Change the terms of paper-1" }));
  expect(screen.getByLabelText(/^cancels/)).toHaveValue("60");
  await userEvent.type(screen.getByLabelText(/^flips/), "999");
  await userEvent.click(screen.getByRole("button", { name: "Set the terms of paper-1" }));
  await waitFor(() => { expect(screen.getByLabelText(/^flips/)).toHaveAccessibleDescription(/out of range: use 1 to 200/); });
  expect(puts()).toEqual(Array(2).fill({ terms: { flips: 999, cancels: 60 }, seen: { cancels: 60 } }));
  await userEvent.clear(screen.getByLabelText(/^flips/));
  await userEvent.clear(screen.getByLabelText(/^cancels/));
  await userEvent.click(screen.getByRole("button", { name: "Set the terms of paper-1" }));
  await waitFor(() => { expect(screen.queryByRole("button", { name: "Set the terms of paper-1" })).toBeNull(); });
  expect(puts().at(-1)).toEqual({ terms: {}, seen: { cancels: 60 } });
});

it("shows what somebody else has set meanwhile, and sets nothing over it unseen", async () => {
  let moved = true;
  const asked = shown({
    "PUT /v1/surveillance/terms": () => (moved ? refusal(409, "terms_moved", "look again", { present: terms(null, { flips: 8 }) }) : Response.json(terms(null, {}))),
  });
  show(<Surveillance />);
  await userEvent.click(await screen.findByRole("button", { name: "Change the terms of the deck" }));
  await userEvent.type(screen.getByLabelText(/^cancels/), "30");
  await userEvent.click(screen.getByRole("button", { name: "Set the terms of the deck" }));
  expect(await screen.findByRole("alert", { name: "olga has changed the terms since" })).toHaveTextContent("flips: not set → 8");
  expect(screen.getByRole("button", { name: "Set the terms of the deck" })).toBeDisabled();
  moved = false;
  await userEvent.click(screen.getByRole("button", { name: "Go on from how they are now" }));
  await userEvent.click(screen.getByRole("button", { name: "Set the terms of the deck" }));
  await waitFor(() => {
    expect(asked.filter((each) => each.method === "PUT").at(-1)?.body).toEqual({ terms: { flips: 8, cancels: 30 }, seen: { flips: 8 } });
  });
});

it("lays what was typed, and what was taken away, over what is newer", () => {
  expect(laidOver({ a: 5, b: 2, c: 3 }, { a: 1, b: 2 }, { a: 1, d: 4 })).toEqual({ a: 5, c: 3, d: 4 });
});
