import { MantineProvider } from "@mantine/core";
import { render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, it, vi } from "vitest";

import { ConfirmAction } from "./ConfirmAction";

function open(act: (reason: string, option: boolean) => Promise<unknown>, onClose = vi.fn()) {
  render(
    <MantineProvider>
      <ConfirmAction
        opened
        onClose={onClose}
        title="Reset asha"
        verb="Reset"
        option={{ label: "Revoke the API keys too", checked: true }}
        act={act}
      >
        All is gone.
      </ConfirmAction>
    </MantineProvider>,
  );
  return onClose;
}

it("hands over how its box was left", async () => {
  const act = vi.fn(() => Promise.resolve());
  const onClose = open(act);
  const box = await screen.findByRole("checkbox", { name: "Revoke the API keys too" });
  expect(box).toBeChecked();
  await userEvent.click(box);
  await userEvent.click(screen.getByRole("button", { name: "Reset" }));
  expect(act).toHaveBeenCalledWith("", false);
  await waitFor(() => {
    expect(onClose).toHaveBeenCalledOnce();
  });
});

it("hands the box over as it stood where nobody touched it, and stays open with the error", async () => {
  const act = vi.fn(() => Promise.reject(new Error("the server is tired")));
  const onClose = open(act);
  await userEvent.click(await screen.findByRole("button", { name: "Reset" }));
  expect(act).toHaveBeenCalledWith("", true);
  expect(await screen.findByText(/the server is tired/)).toBeVisible();
  expect(onClose).not.toHaveBeenCalled();
});
