import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import type { Algo } from "@/trading/read";

import { EditPlacement, USUAL } from "./Placement";

const ALGO = {
  id: "momo-1", node: "", want: "running", state: "running", generation: 4, labels: { desk: "alpha" }, placement: USUAL,
} as unknown as Algo;

afterEach(() => {
  vi.unstubAllGlobals();
});

/** The dialog, and the bodies that it sends; each is answered by `answer`. */
function open(algo: Algo, answer: () => Response = () => Response.json({ ...algo, applied: "live" })) {
  const sent: unknown[] = [];
  vi.stubGlobal("fetch", (_: string, init: RequestInit) => {
    sent.push(JSON.parse(new TextDecoder().decode(init.body as ArrayBuffer)));
    return Promise.resolve(answer());
  });
  const onClose = vi.fn();
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <EditPlacement algo={algo} onClose={onClose} />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return { sent, onClose };
}

it("sends labels by themselves, which restart nothing", async () => {
  const { sent, onClose } = open(ALGO);
  const labels = await screen.findByLabelText("Labels");
  expect(labels).toHaveValue("desk=alpha");
  expect(screen.getByRole("button", { name: "Save" })).toBeDisabled();
  await userEvent.type(labels, ", risk=low");
  await userEvent.click(screen.getByRole("button", { name: "Save" }));
  await waitFor(() => {
    expect(onClose).toHaveBeenCalledOnce();
  });
  expect(sent).toEqual([{ generation: 4, labels: { desk: "alpha", risk: "low" } }]);
});

it("says that a running one restarts with another placement, and sends all of that", async () => {
  const { sent } = open(ALGO);
  await userEvent.type(await screen.findByLabelText(/^On machines with these labels/), "region=eu ");
  expect(screen.getByText(/It runs: with another placement it stops in order at once/)).toBeVisible();
  await userEvent.click(screen.getByRole("button", { name: "Save and restart it" }));
  await waitFor(() => {
    expect(sent).toEqual([{ generation: 4, placement: { ...USUAL, selector: "region=eu" } }]);
  });
});

it("speaks of no restart where it does not run", async () => {
  open({ ...ALGO, want: "stopped", state: "stopped" });
  await userEvent.type(await screen.findByLabelText(/^On machines with these labels/), "ssd");
  expect(screen.getByRole("button", { name: "Save" })).toBeEnabled();
  expect(screen.queryByText(/It runs/)).toBeNull();
});

it("refuses labels that are none, before anything is sent", async () => {
  const { sent } = open(ALGO);
  await userEvent.type(await screen.findByLabelText("Labels"), ", wrong");
  expect(screen.getByText("Write key=value, key=value")).toBeVisible();
  expect(screen.getByRole("button", { name: "Save" })).toBeDisabled();
  expect(sent).toEqual([]);
});

it("shows what the server finds wrong at its field, and stays open", async () => {
  const problem = { code: "bad_input", title: "Bad input", detail: "'a b' is no requirement", field: "selector" };
  const { onClose } = open(ALGO, () => Response.json(problem, { status: 422 }));
  await userEvent.type(await screen.findByLabelText(/^On machines with these labels/), "a b");
  await userEvent.click(screen.getByRole("button", { name: "Save and restart it" }));
  expect(await screen.findByText("'a b' is no requirement")).toBeVisible();
  expect(onClose).not.toHaveBeenCalled();
});
