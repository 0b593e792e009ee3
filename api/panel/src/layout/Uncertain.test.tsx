import { MantineProvider } from "@mantine/core";
import { act, render, screen } from "@testing-library/react";
import { expect, it } from "vitest";

import { tellUncertain, UncertainNote } from "./Uncertain";

it("tells of every action that is in doubt until the last of them is settled", () => {
  render(
    <MantineProvider>
      <UncertainNote />
    </MantineProvider>,
  );
  const tell = (what: string) => {
    let settle: () => void = () => undefined;
    act(() => { settle = tellUncertain(what); });
    return () => { act(settle); };
  };
  const one = tell("POST /v1/orders");
  const two = tell("POST /v1/orders");
  expect(screen.getByRole("status")).toHaveTextContent("whether 2 actions happened");
  one();
  one();
  expect(screen.getByRole("status")).toHaveTextContent("POST /v1/orders");
  two();
  expect(screen.getByRole("status")).toBeEmptyDOMElement();
});
