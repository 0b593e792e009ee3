import { screen } from "@testing-library/react";
import { expect, it } from "vitest";

import type { Shape } from "@/api/client";
import { show } from "@/testing/deck";

import { Flattened } from "./Flattened";

type Done = Shape<"FlattenShown">;
const done = (more: Partial<Done>): Done => ({ cancelled: 0, closing: [], refused: [], ...more });
const refusal = (code: string, detail: string) => ({ code, detail }) as Done["refused"][number];
const NOTHING = "It holds nothing that must be closed.";

it("says that nothing must be closed only where nothing was refused", () => {
  show(<Flattened account="paper-1" done={done({})} />);
  expect(screen.getByText(NOTHING)).toBeVisible();
});

it("says that it is not closed where orders are open still, why, and what to do", () => {
  show(<Flattened account="paper-1" done={done({ cancelled: 2, refused: [refusal("orders_are_open", "2 orders may still fill")] })} />);
  expect(screen.queryByText(NOTHING)).toBeNull();
  expect(screen.getByText("Not closed")).toBeVisible();
  expect(screen.getByText("2 orders may still fill")).toBeVisible();
  expect(screen.getByText(/Flatten it again once its orders have ended/)).toBeVisible();
});

it("tells what closes and what does not", () => {
  const closing = [{ client_order_id: "flat-1", instrument: "NSE:INFY", state: "pending" }] as Done["closing"];
  show(<Flattened account="paper-1" done={done({ closing, refused: [refusal("risk_denied", "NSE:TCS is halted")] })} />);
  expect(screen.getByText(/NSE:INFY/)).toBeVisible();
  expect(screen.getByText("Not all of it was closed")).toBeVisible();
  expect(screen.getByText("NSE:TCS is halted")).toBeVisible();
});
