import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { describe, expect, it, vi } from "vitest";

import { ProblemError } from "@/api/problem";

import { draftOf, fieldsOf, type Schema, valuesOf, WrongField } from "./schema";
import { SchemaForm, type SchemaFormProps } from "./SchemaForm";

/** As pydantic writes it. */
const SCHEMA: Schema = {
  type: "object",
  required: ["fast"],
  $defs: {
    Mode: { enum: ["calm", "brisk"], type: "string", title: "Mode" },
    Stop: { type: "object", properties: { percent: { type: "number", default: 1.5, exclusiveMinimum: 0 } } },
  },
  properties: {
    fast: { type: "integer", title: "Fast", minimum: 1, description: "Bars of the fast average." },
    size: { anyOf: [{ type: "number", exclusiveMinimum: 0 }, { type: "string", pattern: "^.*$" }], default: "0.01", title: "Size", "x-updatable": true },
    ratio: { type: "number", default: 0.5, title: "Ratio" },
    note: { anyOf: [{ type: "string" }, { type: "null" }], default: null, title: "Note" },
    mode: { $ref: "#/$defs/Mode", default: "calm" },
    exits: { type: "boolean", default: true, title: "Exits" },
    windows: { type: "array", items: { type: "integer" }, default: [5, 10], title: "Windows" },
    stop: { $ref: "#/$defs/Stop", title: "Stop" },
    extra: { type: "object", additionalProperties: true, default: {}, title: "Extra" },
  },
};

describe("a schema", () => {
  const fields = fieldsOf(SCHEMA);

  it("becomes fields", () => {
    expect(Object.fromEntries(fields.map((each) => [each.name, each.kind]))).toEqual({
      fast: "integer", size: "decimal", ratio: "number", note: "text", mode: "choice", exits: "flag", windows: "list",
      stop: "group", extra: "json",
    });
    expect(fields.filter((each) => each.updatable).map((each) => each.name)).toEqual(["size"]);
    expect(fields.find((each) => each.name === "fast")?.required).toBe(true);
    expect(fields.find((each) => each.name === "fast")?.bounds).toBe("≥ 1");
  });

  it("gives back the values that it was filled with", () => {
    const values = {
      fast: 5, size: "0.0100000000000000000001", ratio: 0.25, note: null, mode: "brisk", exits: false, windows: [1, 2],
      stop: { percent: 2 }, extra: { a: [1] },
    };
    expect(valuesOf(fields, draftOf(fields, values))).toEqual(values);
  });

  it("leaves out what is empty, so that the strategy's default counts", () => {
    const draft = { ...draftOf(fields, { fast: 5 }), ratio: "" };
    expect(valuesOf(fields, draft)).not.toHaveProperty("ratio");
  });

  it.each([
    ["fast", "five", "not a number"],
    ["fast", "1.5", "not a whole number"],
    ["fast", "", "needed"],
    ["fast", "9007199254740993", "too large"],
    ["windows", "1, x", "not a number"],
    ["extra", "{", "not JSON"],
  ])("refuses %s = %j by its name", (name, text, words) => {
    const draft = { ...draftOf(fields, { fast: 5 }), [name]: text };
    const wrong = () => valuesOf(fields, draft);
    expect(wrong).toThrow(WrongField);
    expect(wrong).toThrow(words);
  });
});

function show(given: Partial<SchemaFormProps> = {}) {
  const onSubmit = vi.fn<(values: Record<string, unknown>) => Promise<unknown>>().mockResolvedValue(null);
  render(
    <MantineProvider>
      <SchemaForm schema={SCHEMA} values={{ fast: 5 }} prefix="parameters" verb="Change" onSubmit={onSubmit} {...given} />
    </MantineProvider>,
  );
  return given.onSubmit ?? onSubmit;
}

const problem = (field: string, detail: string) =>
  new ProblemError({ status: 422, code: "bad_input", title: "Bad input", detail, field });

describe("its form", () => {
  it("sends what was typed", async () => {
    const onSubmit = show();
    const fast = screen.getByLabelText(/^Fast/);
    await userEvent.clear(fast);
    await userEvent.type(fast, "8");
    await userEvent.click(screen.getByLabelText("Exits"));
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(onSubmit).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ fast: 8, exits: false, size: "0.01" }));
  });

  it("shows the server's words at the field that it names", async () => {
    const detail = "fast must be below slow";
    show({ onSubmit: () => Promise.reject(problem("parameters.fast", detail)) });
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(await screen.findByText(detail)).toBeVisible();
    expect(screen.getByLabelText(/^Fast/)).toHaveAttribute("aria-invalid", "true");
    expect(screen.queryByRole("alert")).toBeNull();
  });

  it("shows words about a field of a group there", async () => {
    show({ onSubmit: () => Promise.reject(problem("parameters.stop.percent", "too tight")) });
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(await screen.findByText("too tight")).toBeVisible();
    expect(screen.getByLabelText("percent")).toHaveAttribute("aria-invalid", "true");
  });

  it("shows below it what is about none of its fields", async () => {
    show({ onSubmit: () => Promise.reject(problem("generation", "somebody else was faster")) });
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(await screen.findByRole("alert")).toHaveTextContent("somebody else was faster");
  });

  it("sends nothing that cannot be read", async () => {
    const onSubmit = show();
    await userEvent.type(screen.getByLabelText(/^Fast/), "x");
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(onSubmit).not.toHaveBeenCalled();
    expect(screen.getByText(/is not a number/)).toBeVisible();
  });
});
