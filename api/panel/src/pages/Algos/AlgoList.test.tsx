import { screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, it, vi } from "vitest";

import { answers, show } from "@/testing/deck";

import { AlgoList } from "./AlgoList";

it("offers each column once", async () => {
  answers({});
  const { unmount } = show(<AlgoList />);
  await userEvent.click(await screen.findByRole("button", { name: "Columns" }));
  const boxes = (await screen.findAllByRole("checkbox")).map((each) => (each as HTMLInputElement).labels?.[0]?.textContent);
  expect(boxes.filter((each) => each === "Labels")).toHaveLength(1);
  unmount();
  vi.unstubAllGlobals();
});
