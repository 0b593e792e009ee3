import { act, fireEvent, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { FlattenAccount, StartAll } from "./acts";

const algo = (id: string, state: string) => ({ id, state, want: state === "running" ? "running" : "stopped", reason: "", strategy: "dip", account: "paper-1" });

afterEach(() => {
  vi.unstubAllGlobals();
});

it("starts only what was offered when the dialog was opened, also where a colleague stops another meanwhile", async () => {
  let items = [algo("a", "stopped"), algo("b", "stopped"), algo("c", "running")];
  const asked = answers({
    "GET /v1/algos": () => Response.json({ items, next: null }),
    "POST /v1/algos/batch": () => Response.json({ action: "start", done: 1, refused: 0, holds: null, results: [] }),
  });
  const { client } = show(<StartAll opened onClose={vi.fn()} />);
  fireEvent.click(await screen.findByRole("checkbox", { name: /^b/ }));
  items = [algo("a", "stopped"), algo("b", "failed"), algo("c", "stopped")];
  await act(() => client.invalidateQueries());
  await screen.findByRole("checkbox", { name: /^b.*failed/ });
  expect(screen.queryByRole("checkbox", { name: /^c/ })).toBeNull();
  fireEvent.click(screen.getByRole("button", { name: "Start 1 algo" }));
  await waitFor(() => { expect(asked.find((each) => each.method === "POST")?.body).toMatchObject({ action: "start", ids: ["a"] }); });
});

it("does not call an account flat whose orders are open still, and lets one flatten it again", async () => {
  const refused = [{ code: "orders_are_open", detail: "1 order may still fill" }];
  answers({
    "GET /v1/accounts": () => Response.json({ items: [{ id: "paper-1", user: "olga", enabled: true }], next: null }),
    "POST /v1/accounts/paper-1/flatten": () => Response.json({ cancelled: 1, closing: [], refused }),
  });
  show(<FlattenAccount opened onClose={vi.fn()} account="paper-1" />);
  await screen.findByDisplayValue("paper-1 (olga)");
  fireEvent.change(screen.getByLabelText(/Reason/), { target: { value: "drill" } });
  fireEvent.click(screen.getByRole("button", { name: "Flatten paper-1" }));
  expect(await screen.findByText("Not closed")).toBeVisible();
  expect(screen.queryByText(/holds nothing/)).toBeNull();
  fireEvent.click(screen.getByRole("button", { name: "Flatten again…" }));
  expect(screen.getByLabelText(/Reason/)).toHaveValue("drill");
});
