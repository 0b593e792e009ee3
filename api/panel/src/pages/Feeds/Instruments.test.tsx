import { fireEvent, screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";

import { answers, refusal, show } from "@/testing/deck";

import type { Feed } from "./feed";
import { Instruments } from "./Instruments";

afterEach(() => {
  vi.unstubAllGlobals();
});

it("goes on with what is left where removing several stops in the middle", async () => {
  let fails = true;
  const items = ["A", "B", "C"].map((id) => ({ id, state: "live", reason: "", shard: 0, age_s: 1, rate: 1, ticks: 1, quarantined: 0, gaps: 0, last: null }));
  const gone = () => new Response(null, { status: 204 });
  const asked = answers({
    "GET /v1/feeds/f/instruments": () => Response.json({ items, next: null }),
    "DELETE /v1/feeds/f/instruments/A": gone,
    "DELETE /v1/feeds/f/instruments/B": () => (fails ? refusal(409, "conflict", "it is being moved") : gone()),
    "DELETE /v1/feeds/f/instruments/C": gone,
  });
  show(<Instruments feed={{ id: "f", provider: "p" } as Feed} mayManage />);
  await screen.findByRole("checkbox", { name: "Select C" });
  fireEvent.click(screen.getByRole("checkbox", { name: "Select all rows" }));
  fireEvent.click(screen.getByRole("button", { name: "Remove 3" }));
  fireEvent.click(screen.getByRole("button", { name: "Remove" }));
  expect(await screen.findByText("it is being moved")).toBeVisible();
  fails = false;
  fireEvent.click(screen.getByRole("button", { name: "Remove" }));
  await waitFor(() => { expect(screen.queryByRole("dialog")).toBeNull(); });
  const deleted = asked.filter((each) => each.method === "DELETE").map((each) => each.path.slice(-1));
  expect(deleted).toEqual(["A", "B", "B", "C"]);
});
