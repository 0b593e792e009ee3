import { screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { KillForm } from "./KillForm";

afterEach(() => {
  vi.unstubAllGlobals();
});

it("begins anew once it was thrown: the next kill closes no positions because the last did", async () => {
  const asked = answers({ "POST /v1/risk/kill": () => Response.json({ id: "k" }) });
  const onThrown = vi.fn();
  show(<KillForm onThrown={onThrown} />);
  const user = userEvent.setup();
  await user.type(screen.getByRole("textbox", { name: /Reason/ }), "Drill");
  await user.click(screen.getByLabelText("Close positions at the market too"));
  await user.click(screen.getByRole("button", { name: "Stop the whole cluster" }));
  await user.click(within(await screen.findByRole("dialog")).getByRole("button", { name: "Stop and close positions" }));
  await waitFor(() => { expect(onThrown).toHaveBeenCalledOnce(); });
  expect(asked.find((each) => each.method === "POST")?.body).toEqual({ scope: "cluster", flatten: true, reason: "Drill" });
  expect(screen.getByRole("textbox", { name: /Reason/ })).toHaveValue("");
  expect(screen.getByLabelText("Close positions at the market too")).not.toBeChecked();
});
