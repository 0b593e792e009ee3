import { Notifications, notifications } from "@mantine/notifications";
import { useMutation } from "@tanstack/react-query";
import { act, fireEvent, screen } from "@testing-library/react";
import { useState } from "react";
import { afterEach, expect, it, vi } from "vitest";

import { show } from "@/testing/deck";

import { useConfirm } from "./ConfirmAction";
import { useLateFailure } from "./useAct";

let fail: (error: Error) => void;
let finish: () => void;

afterEach(() => {
  notifications.clean();
});

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

function Form() {
  const [dialog, confirm] = useConfirm();
  const change = useMutation({
    mutationFn: () => new Promise<void>((_, failed) => { fail = failed; }),
    onError: useLateFailure("Change momo-1"),
  });
  return (
    <>
      <button onClick={() => { change.mutate(); }}>save</button>
      <button onClick={() => { confirm({ title: "Drain", verb: "Drain it", children: "", act: () => change.mutateAsync() }); }}>drain</button>
      {dialog}
      {change.error instanceof Error ? <p>here: {change.error.message}</p> : null}
    </>
  );
}

function Page() {
  const [isOpen, setIsOpen] = useState(true);
  return (
    <>
      <Notifications />
      <button onClick={() => { setIsOpen(false); }}>close</button>
      {isOpen ? <Form /> : null}
    </>
  );
}

it("tells of a mutation that fails after its form was closed", async () => {
  show(<Page />);
  fireEvent.click(screen.getByText("save"));
  await act(async () => { await vi.dynamicImportSettled(); });
  fireEvent.click(screen.getByText("close"));
  act(() => { fail(new Error("the label is not known")); });
  expect(await screen.findByText("the label is not known")).toBeVisible();
  expect(screen.getByText("Change momo-1: it did not end well")).toBeVisible();
});

it("leaves it to the form while that is there", async () => {
  show(<Page />);
  fireEvent.click(screen.getByText("save"));
  await act(async () => { await vi.dynamicImportSettled(); });
  act(() => { fail(new Error("the label is not good")); });
  expect(await screen.findByText("here: the label is not good")).toBeVisible();
  expect(screen.queryByText("Change momo-1: it did not end well")).toBeNull();
});

it("tells once where a dialog and its form are both gone", async () => {
  show(<Page />);
  fireEvent.click(screen.getByText("drain"));
  fireEvent.click(screen.getByRole("button", { name: "Drain it" }));
  await act(async () => { await vi.dynamicImportSettled(); });
  fireEvent.click(screen.getByText("close"));
  act(() => { fail(new Error("an algo cannot move")); });
  expect(await screen.findAllByText("an algo cannot move")).toHaveLength(1);
});
