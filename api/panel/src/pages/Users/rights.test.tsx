import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { answers, refusal, show } from "@/testing/deck";

import { UserDetail } from "./UserDetail";

afterEach(() => {
  vi.unstubAllGlobals();
});

const USER = { id: "bo", roles: ["trader"], enabled: true, generation: 1, created_at: "2026-01-01T00:00:00Z", totp: true };

function open(roles = USER.roles, level: string | null = null, moved = false) {
  const all = answers({
    "GET /v1/users/bo": () => Response.json({ ...USER, roles }),
    "PATCH /v1/users/bo": ({ body }) =>
      moved ? refusal(409, "generation_changed", "somebody has changed bo") : Response.json({ ...USER, ...(body as object), generation: 2 }),
    "GET /v1/accounts": () => Response.json({ items: [{ id: "a-1", user: "asha", connector: "paper", enabled: true }], next: null }),
    "GET /v1/grants": () => Response.json({ items: level ? [{ account: "a-1", user: "bo", level, granted_at: "2026-01-01T00:00:00Z", granted_by: "olga" }] : [], next: null }),
    "PUT /v1/grants/a-1/bo": () => Response.json({}),
  });
  show(<UserDetail id="bo" />);
  return (method: string) => all.filter((each) => each.method === method).map((each) => each.body);
}

async function grant(level: string): Promise<void> {
  await userEvent.click(await screen.findByRole("textbox", { name: "Account to grant" }));
  await userEvent.click(await screen.findByRole("option", { name: "a-1 (asha)", hidden: true }));
  await userEvent.click(screen.getByRole("textbox", { name: "How far" }));
  await userEvent.click(await screen.findByRole("option", { name: level, hidden: true }));
  await userEvent.click(screen.getByRole("button", { name: "Grant…" }));
}

async function role(name: RegExp): Promise<void> {
  await userEvent.click(await screen.findByRole("textbox", { name: "What this user may do" }));
  await userEvent.click(await screen.findByRole("option", { name, hidden: true }));
  await userEvent.click(screen.getByRole("button", { name: "Change roles" }));
}

it("says what a grant to trade makes possible with the user's roles, before it is given", async () => {
  const sent = open();
  await grant("look and trade");
  const dialog = await screen.findByRole("dialog", { name: "Grant a-1 to bo" });
  expect(dialog).toHaveTextContent("bo sees all that is in a-1 of asha, and places, changes and takes back orders there");
  expect(dialog).toHaveTextContent("asha, whose money it is");
  expect(sent("PUT")).toEqual([]);
  await userEvent.click(screen.getByRole("button", { name: "Let them trade it" }));
  await waitFor(() => { expect(sent("PUT")).toEqual([{ level: "trade" }]); });
});

it("asks nothing where a grant to trade becomes one to look", async () => {
  const sent = open(["trader"], "trade");
  await screen.findByText("look and trade", { selector: "td *, td" });
  await grant("look");
  await waitFor(() => { expect(sent("PUT")).toEqual([{ level: "view" }]); });
  expect(screen.queryByRole("dialog", { name: "Grant a-1 to bo" })).toBeNull();
});

it("says what a role makes possible before it is given, and asks nothing where one is taken", async () => {
  const sent = open(["viewer"]);
  await role(/^trader/);
  expect(await screen.findByRole("dialog", { name: "bo becomes a trader" })).toHaveTextContent("A trader places, changes and takes back orders");
  expect(sent("PATCH")).toEqual([]);
  await userEvent.click(screen.getAllByRole("button", { name: "Change roles" }).at(-1) as HTMLElement);
  await waitFor(() => { expect(sent("PATCH")).toEqual([{ roles: ["viewer", "trader"], generation: 1 }]); });
});

it("asks nothing where a role is taken away", async () => {
  const sent = open(["viewer", "trader"]);
  await role(/^trader/);
  await waitFor(() => { expect(sent("PATCH")).toEqual([{ roles: ["viewer"], generation: 1 }]); });
});

it("keeps the dialog open, and says why, where the role is refused", async () => {
  open(["viewer"], null, true);
  await role(/^trader/);
  const dialog = await screen.findByRole("dialog", { name: "bo becomes a trader" });
  await userEvent.click(screen.getAllByRole("button", { name: "Change roles" }).at(-1) as HTMLElement);
  expect(await within(dialog).findByText("somebody has changed bo")).toBeVisible();
});
