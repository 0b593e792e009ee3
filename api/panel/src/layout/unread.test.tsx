/** What cannot be read is never shown as if there were nothing. */
import { spotlight } from "@mantine/spotlight";
import { act, fireEvent, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { NodeSelect } from "@/pages/Algos/commands";
import { FlattenAccount, StartAll } from "@/pages/Deck/acts";
import { answers, refusal, show } from "@/testing/deck";
import { KillForm } from "@/trading/KillForm";
import { OrderTicket } from "@/trading/OrderTicket";

import { Frame } from "./Frame";
import { Palette } from "./Search";

afterEach(() => {
  act(() => { spotlight.close(); });
  vi.unstubAllGlobals();
});

const away = () => refusal(503, "not_ready", "the database is away");

it("says of open alerts that they cannot be counted", async () => {
  let answer: (response: Response) => void = () => undefined;
  const answered = new Promise<Response>((done) => { answer = done; });
  answers({ "GET /v1/alerts": () => answered });
  const { client } = show(<Frame />);
  const bell = () => screen.getByRole("link", { name: /open alerts/i });
  expect(bell()).toHaveAccessibleName("Open alerts are being counted");
  await act(async () => { answer(Response.json({ items: [{}, {}], next: null })); await Promise.resolve(); });
  await waitFor(() => { expect(bell()).toHaveAccessibleName("2 open alerts"); });
  answers({ "GET /v1/alerts": away });
  await act(() => client.invalidateQueries({ queryKey: ["alerts"] }));
  await waitFor(() => { expect(bell()).toHaveAccessibleName("Open alerts cannot be counted; when they last were: 2 open alerts"); });
});

it("says where the search failed, and shows nothing that was found for other words", async () => {
  answers({ "GET /v1/search": ({ query }) => (query.get("q") === "momo-1" ? Response.json({ items: [{ kind: "algo", id: "momo-1", title: "momo-1", detail: "" }] }) : away()) });
  show(<Palette />);
  act(() => { spotlight.open(); });
  const input = await screen.findByLabelText("Search or command");
  fireEvent.change(input, { target: { value: "momo-1" } });
  expect(await screen.findByText("momo-1")).toBeInTheDocument();
  fireEvent.change(input, { target: { value: "momo-2" } });
  expect(screen.queryByText("momo-1")).toBeNull();
  expect(screen.getByText("Searching…")).toBeInTheDocument();
  expect(await screen.findByText("the database is away")).toBeInTheDocument();
  expect(screen.queryByText("Nothing of that name")).toBeNull();
});

it.each([
  ["flattening an account", <FlattenAccount key="" opened onClose={vi.fn()} />],
  ["a ticket", <OrderTicket key="" opened onClose={vi.fn()} />],
  ["the kill switch", <KillForm key="" onThrown={vi.fn()} />],
  ["a choice of machines", <NodeSelect key="" value="" onChange={vi.fn()} />],
])("says why %s has nothing to choose from", async (_, part) => {
  answers({ "GET /v1/accounts": away, "GET /v1/nodes": away });
  show(part);
  expect(await screen.findByText(/the database is away/)).toBeVisible();
});

it("says what the algos do where none is to be started", async () => {
  const algo = (id: string, state: string, more: object = {}) => ({ id, state, want: "running", reason: "", strategy: "s", account: "p", ...more });
  const none = async (items: object[], words: string) => {
    answers({ "GET /v1/algos": () => Response.json({ items, next: null }) });
    const { unmount } = show(<StartAll opened onClose={vi.fn()} />);
    expect(await screen.findByText(words)).toBeVisible();
    unmount();
  };
  await none([], "There is no algo yet.");
  await none([algo("a", "failed"), algo("b", "running", { paused_by: "x" }), algo("c", "running")], "No algo is stopped: 1 failed, 1 paused, 1 running.");
});
