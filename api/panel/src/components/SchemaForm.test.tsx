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

  const one = (schema: Schema) =>
    fieldsOf({
      $defs: { Stop: { type: "object", properties: { pct: { type: "number", default: 2 } } }, Size: { type: "integer", enum: [1, 2] } },
      properties: { x: schema },
    });
  const orNull = (schema: Schema, fallback: unknown = null): Schema => ({ anyOf: [schema, { type: "null" }], default: fallback });
  const texts: Schema = { type: "array", items: { type: "string" } };

  it.each<[string, Schema, unknown]>([
    ["no group", orNull({ $ref: "#/$defs/Stop" }), null],
    ["no group that has a needed field", orNull({ type: "object", properties: { pct: { type: "number" } }, required: ["pct"] }), null],
    ["a group that may be none", orNull({ $ref: "#/$defs/Stop" }), { pct: 5 }],
    ["texts with commas", texts, ["a, b", "c"]],
    ["texts with spaces around them, empty ones, several lines", texts, [" a ", "", "b\nc"]],
    ["a text that looks like JSON", texts, ["[a]", "b"]],
    ["texts of a choice", { type: "array", items: { enum: ["a", "b"], type: "string" } }, ["a", "b"]],
    ["numbers of a choice", { type: "array", items: { $ref: "#/$defs/Size" } }, [1, 2]],
    ["flags", { type: "array", items: { type: "boolean" } }, [true, false]],
    ["no list", orNull(texts), null],
    ["an empty list that may be none", orNull(texts), []],
    ["an empty list", texts, []],
    ["an empty text that may be none", orNull({ type: "string" }, "z"), ""],
    ["no text", orNull({ type: "string" }, "z"), null],
    ["a whole number or a text: the number", { anyOf: [{ type: "integer" }, { type: "string" }] }, 5],
    ["a whole number or a text: the text", { anyOf: [{ type: "integer" }, { type: "string" }] }, "5"],
    ["null among the choices", { enum: ["a", null], default: "a" }, null],
    ["no flag", orNull({ type: "boolean" }), null],
    ["a small number", { type: "number" }, 1e-7],
  ])("gives back %s", (_, schema, x) => {
    const field = one(schema);
    expect(valuesOf(field, draftOf(field, { x }))).toEqual({ x });
  });

  it("has no group where none is the default", () => {
    const field = one(orNull({ $ref: "#/$defs/Stop" }));
    expect(valuesOf(field, draftOf(field))).toEqual({ x: null });
  });

  it("leaves out what is empty, so that the strategy's default counts", () => {
    const draft = { ...draftOf(fields, { fast: 5 }), ratio: "" };
    expect(valuesOf(fields, draft)).not.toHaveProperty("ratio");
  });

  it.each([
    ["fast", "five", "not a number"],
    ["fast", "1.5", "not a whole number"],
    ["fast", "0x10", "not a number"],
    ["windows", "[1", "not JSON"],
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

  it("sets a group that may be none only where somebody says so, and takes it away again", async () => {
    const schema = { properties: { stop: { anyOf: [{ type: "object", properties: { pct: { type: "number", default: 2 } } }, { type: "null" }], default: null, title: "Stop" } } };
    const onSubmit = show({ schema, values: { stop: null } });
    const sends = async (value: unknown) => {
      await userEvent.click(screen.getByRole("button", { name: "Change" }));
      expect(onSubmit).toHaveBeenLastCalledWith({ stop: value });
    };
    await sends(null);
    expect(screen.queryByLabelText("pct")).toBeNull();
    await userEvent.click(screen.getByLabelText("Set Stop"));
    await sends({ pct: 2 });
    await userEvent.click(screen.getByLabelText("Set Stop"));
    await sends(null);
  });

  it("takes an emptied text that may be none as none", async () => {
    const onSubmit = show({ schema: { properties: { note: { anyOf: [{ type: "string" }, { type: "null" }], title: "Note" } } }, values: { note: "a" } });
    await userEvent.clear(screen.getByLabelText("Note"));
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(onSubmit).toHaveBeenLastCalledWith({ note: null });
  });

  it("shows words about a group as a whole there", async () => {
    show({ onSubmit: () => Promise.reject(problem("parameters.stop", "a stop is needed")) });
    await userEvent.click(screen.getByRole("button", { name: "Change" }));
    expect(await screen.findByText("a stop is needed")).toBeVisible();
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
