import { screen } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { SESSION_KEY } from "@/session/session";
import { answers, show } from "@/testing/deck";

import { KillProof } from "./KillProof";

const KILL = {
  id: "k", scope: "account:paper-1", flatten: true, reason: "drill", at: "2026-11-22T10:00:00+00:00", halted_at: null, by: "olga", lifted_at: null,
  lifted_by: "", done: false, waiting: [], silent: [], cancelled: 0, cancels_asked_ms: null, took_ms: null, accounts: [], algos: [],
};
const TRADER = {
  id: "s", user: "tara", roles: ["trader"], rights: ["view", "trade"], step: "done", totp: true, fresh_until: null,
  idle_ends_at: "2099-01-01T00:00:00+00:00", ends_at: "2099-01-01T00:00:00+00:00",
};

afterEach(() => {
  vi.unstubAllGlobals();
});

function proof(more: object, session: object | null = null) {
  answers({ "GET /v1/risk/kills/k": () => Response.json({ ...KILL, ...more }), ...(session ? { "GET /v1/auth/session": () => Response.json(session) } : {}) });
  return show(<KillProof id="k" />);
}

it.each([
  [{}, "positions are being closed too"],
  [{ done: true }, "positions closed too"],
  [{ lifted_at: KILL.at }, "lifted before all was closed"],
])("says of positions only what is so: %j", async (more, words) => {
  proof(more);
  expect(await screen.findByText(words)).toBeVisible();
});

it("offers to lift a kill to operators, and to whoever threw it", async () => {
  const first = proof({ by: "asha" });
  expect(await screen.findByRole("button", { name: "Lift" })).toBeVisible();
  first.unmount();
  for (const [by, isThere] of [["asha", false], ["tara", true]] as const) {
    const { client, unmount } = proof({ by }, TRADER);
    client.setQueryData(SESSION_KEY, TRADER);
    await screen.findByText(/drill/);
    await vi.waitFor(() => { expect(screen.queryByRole("button", { name: "Lift" }) !== null).toBe(isThere); });
    unmount();
  }
});
