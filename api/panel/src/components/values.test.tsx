import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { Clock } from "@/layout/Clock";

import { Ago } from "./values";

const NOW = Date.parse("2026-03-02T09:00:00Z");

beforeEach(() => {
  vi.useFakeTimers({ now: NOW });
});
afterEach(() => {
  vi.useRealTimers();
});

const shown = (what: React.ReactNode) => render(<MantineProvider>{what}</MantineProvider>);

it("says how far ahead something is, and how long ago it was once it has passed", () => {
  shown(
    <>
      <Ago at="2026-03-02T09:05:00+00:00" ahead />
      <Ago at="2026-03-02T08:58:00+00:00" ahead />
      <Ago at="2026-03-02T08:57:00+00:00" />
    </>,
  );
  expect(screen.getByText("in 5 min")).toBeVisible();
  expect(screen.getByText("2 min ago")).toBeVisible();
  expect(screen.getByText("3 min ago")).toBeVisible();
});

it("tells the time with its zone", () => {
  shown(<Clock />);
  expect(screen.getByText(/^\d\d:\d\d:00,? (GMT|UTC)/)).toHaveAttribute("datetime", "2026-03-02T09:00:00.000Z");
});
