import { screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";

import { answers, refusal, show } from "@/testing/deck";

import type { Feed } from "./feed";
import { Tuning } from "./Tuning";

afterEach(() => {
  vi.unstubAllGlobals();
});

const FEED = { id: "crypto", provider: "p", instruments: ["A"], seconds: {} } as unknown as Feed;
const tuned = (filter: object, in_force: object) => ({ instrument: null, filter, freshness: {}, in_force: { filter: in_force, freshness: { least_s: 5 } } });

it("does not overwrite what somebody else has set meanwhile: it is shown, and what was typed is laid over it", async () => {
  let moved = true;
  const asked = answers({
    "GET /v1/feeds/crypto/tuning": () => Response.json([tuned({ band_floor: 0.005 }, { band_floor: 0.005, size_limit: 100 })]),
    "PUT /v1/feeds/crypto/tuning": () =>
      moved
        ? refusal(409, "tuning_moved", "look again", { present: tuned({ band_floor: 0.02, size_limit: 100 }, { band_floor: 0.02, size_limit: 100 }) })
        : Response.json({}),
  });
  const puts = () => asked.filter((each) => each.method === "PUT").map((each) => each.body);
  show(<Tuning feed={FEED} mayManage />);
  await userEvent.click(await screen.findByRole("button", { name: "Change" }));
  const limit = () => screen.getByLabelText(/size limit/);
  await userEvent.clear(limit());
  await userEvent.type(limit(), "70");
  await userEvent.click(screen.getByRole("button", { name: "Save the tuning" }));
  const alert = await screen.findByRole("alert", { name: /has changed since/ });
  expect(alert).toHaveTextContent("filter, band floor: 0.005 has become 0.02");
  expect(puts()).toEqual([{ filter: { band_floor: 0.005, size_limit: 70 }, freshness: {}, seen: { filter: { band_floor: 0.005 }, freshness: {} } }]);
  expect(screen.getByRole("button", { name: "Save the tuning" })).toBeDisabled();
  moved = false;
  await userEvent.click(screen.getByRole("button", { name: "Go on from how it is now" }));
  expect(screen.getByLabelText(/band floor/)).toHaveValue("0.02");
  expect(limit()).toHaveValue("70");
  await userEvent.click(screen.getByRole("button", { name: "Save the tuning" }));
  await waitFor(() => { expect(puts()).toHaveLength(2); });
  expect(puts()[1]).toEqual({
    filter: { band_floor: 0.02, size_limit: 70 }, freshness: {}, seen: { filter: { band_floor: 0.02, size_limit: 100 }, freshness: {} },
  });
  expect(await screen.findByRole("button", { name: "Change" })).toBeVisible();
});
