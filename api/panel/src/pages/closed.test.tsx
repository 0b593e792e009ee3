/** Dialogs that were closed while their act was under way: what came of it is told all the same. */
import { File } from "node:buffer";

import { notifications, Notifications } from "@mantine/notifications";
import { act, fireEvent, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { type ReactNode, useState } from "react";
import { useLocation } from "react-router";
import { afterEach, expect, it, vi } from "vitest";

import { USUAL } from "@/pages/Algos/Placement";
import { answers, refusal, show } from "@/testing/deck";
import type { Algo } from "@/trading/read";

import { Commands } from "./Algos/commands";
import { EditPlacement } from "./Algos/Placement";
import { FlattenAccount, StartAll } from "./Deck/acts";
import { NewFeed } from "./Feeds/NewFeed";
import Reconciliation from "./Reconciliation";
import { LimitForm } from "./Risk/LimitForm";
import { Upload } from "./Strategies/Upload";

const user = userEvent.setup();
const ACCOUNT = { id: "paper-1", user: "olga", enabled: true };
const ALGO = { id: "momo-1", node: "", want: "stopped", state: "stopped", reason: "", strategy: "dip", account: "paper-1", generation: 4, labels: {}, placement: USUAL } as unknown as Algo;
const BREAK = { id: 7, kind: "quantity", account: "paper-1", instrument: "A", ours: "1", theirs: "2", opened_at: "2026-11-22T10:00:00+00:00", resolved_at: null, resolved_by: null, resolution: "", client_order_id: null, note: "" };
const list = (...items: unknown[]) => () => Response.json({ items, next: null });

let give: (answer: Response) => void;

afterEach(() => {
  notifications.clean();
  vi.unstubAllGlobals();
});

function Host({ children }: { children: (onClose: () => void) => ReactNode }) {
  const [opened, setOpened] = useState(true);
  const { pathname } = useLocation();
  return (
    <>
      <Notifications />
      <output>{pathname}</output>
      {opened ? children(() => { setOpened(false); }) : null}
    </>
  );
}

/** Show a dialog; what `act` says is answered by `give`. */
function open(route: string, children: (onClose: () => void) => ReactNode, more: Parameters<typeof answers>[0] = {}) {
  const asked = answers({ ...more, [route]: () => new Promise<Response>((done) => { give = done; }) });
  show(<Host>{children}</Host>);
  const path = route.split(" ")[1] ?? "";
  return () => waitFor(() => { expect(asked.some((each) => `${each.method} ${decodeURIComponent(each.path)}` === route), path).toBe(true); });
}

async function close(): Promise<void> {
  await user.click(screen.getByRole("button", { name: "Cancel" }));
  await waitFor(() => { expect(screen.queryByRole("dialog")).toBeNull(); });
}

it("tells that an account was not closed", async () => {
  const isAsked = open("POST /v1/accounts/paper-1/flatten", (onClose) => <FlattenAccount opened onClose={onClose} account="paper-1" />, { "GET /v1/accounts": list(ACCOUNT) });
  await screen.findByDisplayValue("paper-1 (olga)");
  await user.type(screen.getByRole("textbox", { name: /Reason/ }), "drill");
  await user.click(screen.getByRole("button", { name: "Flatten paper-1" }));
  await isAsked();
  await close();
  give(Response.json({ cancelled: 1, closing: [], refused: [{ code: "orders_are_open", detail: "1 order may still fill" }] }));
  expect(await screen.findByText("Flattening paper-1: not all of it was closed")).toBeVisible();
  expect(screen.getByText("1 order may still fill")).toBeVisible();
});

it("says nothing of an account that was closed as asked", async () => {
  const isAsked = open("POST /v1/accounts/paper-1/flatten", (onClose) => <FlattenAccount opened onClose={onClose} account="paper-1" />, { "GET /v1/accounts": list(ACCOUNT) });
  await screen.findByDisplayValue("paper-1 (olga)");
  await user.type(screen.getByRole("textbox", { name: /Reason/ }), "drill");
  await user.click(screen.getByRole("button", { name: "Flatten paper-1" }));
  await isAsked();
  await close();
  await act(async () => { give(Response.json({ cancelled: 1, closing: [], refused: [] })); await new Promise((done) => setTimeout(done, 50)); });
  expect(document.querySelector(".mantine-Notification-root")).toBeNull();
});

it("tells which algos were not started", async () => {
  const isAsked = open("POST /v1/algos/batch", (onClose) => <StartAll opened onClose={onClose} />, { "GET /v1/algos": list(ALGO) });
  await user.click(await screen.findByRole("button", { name: "Start 1 algo" }));
  await isAsked();
  await close();
  give(Response.json({ action: "start", done: 0, refused: 1, holds: null, results: [{ id: "momo-1", problem: { detail: "no machine takes it" } }] }));
  expect(await screen.findByText(/momo-1: no machine takes it/)).toBeVisible();
});

it.each([
  ["was refused", () => refusal(409, "conflict", "somebody was faster"), /somebody was faster/],
  ["was refused for some", () => Response.json({ action: "stop", done: 1, refused: 1, holds: null, results: [{ id: "b", problem: { detail: "it is gone" } }] }), /1 done, 1 refused\.\s*b: it is gone/],
  ["left an order open", () => Response.json({ action: "stop", done: 2, refused: 0, holds: null, results: [{ id: "b", problem: null, left: [{ client_order_id: "b-7", code: "not_ready", detail: "its session is starting" }] }] }), /2 done, 0 refused\.\s*b: order b-7 is not taken back: its session is starting/],
  ["is not heard everywhere", () => Response.json({ action: "stop", done: 2, refused: 0, holds: false, results: [] }), /Not every session has heard of it yet/],
])("tells that a stop of two algos %s", async (_, answer, words) => {
  const isAsked = open("POST /v1/algos/batch", () => <Commands ids={["a", "b"]} />);
  await user.click(screen.getByRole("button", { name: "Stop" }));
  await user.click(await screen.findByRole("button", { name: "Stop 2 algos" }));
  await isAsked();
  await close();
  give(answer());
  expect(await screen.findByText(words)).toBeVisible();
  expect(screen.getByText(/^Stop 2 algos: /)).toBeVisible();
});

it("tells that a placement was not taken", async () => {
  const isAsked = open("PATCH /v1/algos/momo-1", (onClose) => <EditPlacement algo={ALGO} onClose={onClose} />);
  await user.type(await screen.findByLabelText("Labels"), "risk=low");
  await user.click(screen.getByRole("button", { name: "Save" }));
  await isAsked();
  await close();
  give(refusal(409, "conflict", "somebody was faster"));
  expect(await screen.findByText("somebody was faster")).toBeVisible();
});

it("tells that a limit was not set", async () => {
  const isAsked = open("PUT /v1/risk/limits", (onClose) => <LimitForm scope="account:a" kind="gross" instrument="" value="1000" onClose={onClose} />, {
    "GET /v1/risk/kinds": () => Response.json([{ kind: "gross", unit: "money", bounds: "all", levels: ["account"], instrument: "no" }]),
  });
  await screen.findByLabelText(/^Value \(money/);
  await user.click(screen.getByRole("button", { name: "Change the limit" }));
  await isAsked();
  await close();
  give(refusal(409, "conflict", "it was changed meanwhile"));
  expect(await screen.findByText("it was changed meanwhile")).toBeVisible();
});

it("tells that a break was not accepted", async () => {
  const isAsked = open("POST /v1/breaks/7/accept", () => <Reconciliation />, { "GET /v1/breaks": list(BREAK) });
  const row = (await within(await screen.findByRole("grid", { name: /break/i })).findAllByText("A"))[0] as HTMLElement;
  await user.click(row);
  await user.type(await screen.findByRole("textbox", { name: /Note/ }), "seen");
  await user.click(screen.getByRole("button", { name: /Accept the broker/ }));
  await isAsked();
  await user.keyboard("{Escape}");
  await waitFor(() => { expect(screen.queryByRole("dialog")).toBeNull(); });
  give(refusal(409, "conflict", "both sides have changed"));
  expect(await screen.findByText("both sides have changed")).toBeVisible();
});

it("leads nobody away to a feed whose form was closed", async () => {
  const feeds = { "GET /v1/connectors": () => Response.json([{ name: "paper", market_data: true, feed_settings: { type: "object", properties: {} } }]) };
  const isAsked = open("POST /v1/feeds", (onClose) => <NewFeed onClose={onClose} />, feeds);
  await user.click(await screen.findByRole("textbox", { name: "Provider" }));
  await user.click(await screen.findByRole("option", { name: "paper" }));
  await user.type(await screen.findByRole("textbox", { name: /^Name/ }), "f");
  await user.click(screen.getByRole("button", { name: "Add the feed" }));
  await isAsked();
  await close();
  await act(async () => { give(Response.json({ id: "f" })); await new Promise((done) => setTimeout(done, 50)); });
  expect(screen.getByRole("status")).toHaveTextContent("/");
  expect(screen.getByRole("status")).not.toHaveTextContent("feeds");
});

it("leads nobody away to a strategy whose form was closed, and tells that it was uploaded", async () => {
  const isAsked = open("POST /v1/strategies/dip/versions", (onClose) => <Upload known={[]} name="dip" onClose={onClose} />);
  // `Request` takes Node's files only, and not jsdom's.
  fireEvent.change(document.querySelector("input[type=file]") as HTMLInputElement, { target: { files: [new File(["pass"], "dip.py")] } });
  await user.click(screen.getByRole("button", { name: "Check and upload" }));
  await isAsked();
  await close();
  give(Response.json({ strategy: "dip", version: "0123456789ab" }));
  expect(await screen.findByText("dip was uploaded")).toBeVisible();
  expect(screen.getByRole("status")).not.toHaveTextContent("strategies");
});
