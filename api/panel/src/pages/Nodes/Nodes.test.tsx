import { fireEvent, screen, waitFor } from "@testing-library/react";
import { Link, Route, Routes } from "react-router";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { type Asked, answers, refusal, show } from "@/testing/deck";

import Nodes from "./index";

const node = (name: string, labels: Record<string, string>) => ({
  name, labels, generation: 4, health: "ok", reasons: [], cordoned: false, draining: false, algos: [], facts: null,
});
const token = { id: "t1", node: "c", labels: {}, with_secrets: false, pool: false, created_by: "olga", created_at: "2026-01-01T00:00:00Z", expires_at: "2099-01-01T00:00:00Z", used_at: null, revoked_at: null };

let asked: Asked[];

beforeEach(() => {
  asked = answers({
    "GET /v1/nodes": () => Response.json({ items: [node("a", { region: "eu" }), node("b", { region: "in" })], next: null }),
    "GET /v1/nodes/tokens": () => Response.json({ items: [token], next: null }),
    "PATCH /v1/nodes/b": () => refusal(409, "generation_changed", "somebody has changed it: look again"),
  });
  show(
    <>
      <Link to="/nodes/b">to b</Link>
      <Routes><Route path="/nodes/:id?" element={<Nodes />} /></Routes>
    </>,
    "/nodes/a",
  );
});
afterEach(() => {
  vi.unstubAllGlobals();
});

it("opens the next machine with its own labels, and changes them only as they were seen", async () => {
  expect(await screen.findByLabelText("Labels")).toHaveValue("region=eu");
  fireEvent.click(screen.getByText("to b"));
  await waitFor(() => { expect(screen.getByLabelText("Labels")).toHaveValue("region=in"); });
  fireEvent.change(screen.getByLabelText("Labels"), { target: { value: "region=us" } });
  fireEvent.click(screen.getByRole("button", { name: "Save labels" }));
  expect(await screen.findByText(/somebody has changed it/)).toBeVisible();
  expect(asked.find((each) => each.method === "PATCH")?.body).toEqual({ labels: { region: "us" }, generation: 4 });
});

it("says whose token is revoked, and that its machines leave", async () => {
  fireEvent.click(await screen.findByRole("button", { name: "Revoke", hidden: true }));
  expect(await screen.findByText("Revoke the join token for c")).toBeVisible();
  expect(screen.getByText(/machines that have joined with it leave/)).toBeVisible();
});
