import { Notifications } from "@mantine/notifications";
import { act, fireEvent, screen } from "@testing-library/react";
import { useState } from "react";
import { expect, it, vi } from "vitest";

import { show } from "@/testing/deck";

import { useConfirm } from "./ConfirmAction";

let fail: (error: Error) => void;
let finish: () => void;

function Part() {
  const [dialog, confirm] = useConfirm();
  const [count, setCount] = useState(0);
  return (
    <>
      <Notifications />
      <button
        onClick={() => {
          setCount(count + 1);
          confirm({
            title: `Stop ${String(count)}`,
            verb: "Stop it",
            children: "",
            act: () => new Promise<void>((done, failed) => { finish = done; fail = failed; }),
          });
        }}
      >
        open
      </button>
      {dialog}
    </>
  );
}

it("tells of a failure after its dialog was closed", async () => {
  show(<Part />);
  fireEvent.click(screen.getByText("open"));
  fireEvent.click(screen.getByRole("button", { name: "Stop it" }));
  fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
  act(() => { fail(new Error("the broker is away")); });
  expect(await screen.findByText("the broker is away")).toBeVisible();
});

it("does not close the dialog that came after it", async () => {
  show(<Part />);
  fireEvent.click(screen.getByText("open"));
  fireEvent.click(screen.getByRole("button", { name: "Stop it" }));
  fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
  fireEvent.click(screen.getByText("open"));
  await act(async () => { finish(); await vi.dynamicImportSettled(); });
  expect(screen.getByText("Stop 1")).toBeVisible();
});
