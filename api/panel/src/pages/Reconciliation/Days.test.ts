import { expect, it } from "vitest";

import type { Shape } from "@/api/client";

import { stateOf } from "./Days";

const tally = { matched: 3, differing: 0, differences: [] };
const cash = { agrees: true, ours: "1", theirs: "1", currency: "USDT", not_compared: "" };
const day = (more: object) =>
  ({ made_at: "2026-01-31T00:00:00Z", orders: tally, executions: tally, positions: tally, cash, breaks: [], ...more }) as unknown as Shape<"DayShown">;

it.each([
  [{}, "agreed"],
  [{ made_at: null }, "waiting"],
  [{ orders: { ...tally, differing: 1 } }, "differs"],
  [{ cash: { ...cash, agrees: false } }, "differs"],
  [{ executions: null }, "compared in part"],
  [{ cash: null }, "compared in part"],
  [{ cash: { ...cash, agrees: null, not_compared: "the broker tells no cash" } }, "compared in part"],
])("a day with %o is %s", (more, state) => {
  expect(stateOf(day(more))).toBe(state);
});
