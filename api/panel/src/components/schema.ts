/**
 * JSON schemas (as pydantic writes them) as fields of a form.
 *
 * A form that nobody touches sends what it was given: the server replaces all values by those that are sent.
 */
import { isDecimal } from "@/format/decimal";

export interface Schema {
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  $ref?: string;
  $defs?: Record<string, Schema>;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  format?: string;
  [other: string]: unknown;
}

export type FieldKind = "text" | "integer" | "number" | "decimal" | "flag" | "choice" | "list" | "group" | "json";

export interface Field {
  name: string;
  label: string;
  help: string;
  kind: FieldKind;
  required: boolean;
  /** May be null: an empty field says so. */
  nullable: boolean;
  fallback: unknown;
  choices: unknown[];
  /** Kind of a list's members. */
  of: FieldKind;
  fields: Field[];
  /** A running algo takes a change of it up as it is. */
  updatable: boolean;
  bounds: string;
}

function resolve(schema: Schema, root: Schema): Schema {
  if (schema.$ref) {
    const name = schema.$ref.replace(/^#\/(\$defs|definitions)\//, "");
    const { $ref: _, ...rest } = schema;
    return { ...resolve(root.$defs?.[name] ?? {}, root), ...rest };
  }
  if (schema.allOf?.length === 1) return { ...resolve(schema.allOf[0] ?? {}, root), ...schema, allOf: undefined };
  return schema;
}

function typeOf(schema: Schema): string | undefined {
  return Array.isArray(schema.type) ? schema.type.find((each) => each !== "null") : schema.type;
}

function kindOf(schema: Schema): FieldKind {
  if (schema.enum || schema.const !== undefined) return "choice";
  const type = typeOf(schema);
  if (type === "boolean") return "flag";
  if (type === "integer" || type === "number") return type;
  if (type === "string") return "text";
  if (type === "object" && schema.properties) return "group";
  return "json";
}

function boundsOf(schema: Schema): string {
  const found = [
    schema.minimum === undefined ? "" : `≥ ${String(schema.minimum)}`,
    schema.exclusiveMinimum === undefined ? "" : `> ${String(schema.exclusiveMinimum)}`,
    schema.maximum === undefined ? "" : `≤ ${String(schema.maximum)}`,
    schema.exclusiveMaximum === undefined ? "" : `< ${String(schema.exclusiveMaximum)}`,
  ];
  return found.filter(Boolean).join(", ");
}

function fieldOf(name: string, given: Schema, root: Schema, required: boolean): Field {
  let schema = resolve(given, root);
  let nullable = Array.isArray(schema.type) && schema.type.includes("null");
  let kind: FieldKind | null = null;
  const any = schema.anyOf ?? schema.oneOf;
  if (any) {
    const ways = any.map((each) => resolve(each, root));
    nullable ||= ways.some((each) => each.type === "null");
    const real = ways.filter((each) => each.type !== "null");
    const types = new Set(real.map(typeOf));
    if (real.length === 1) schema = { ...real[0], ...without(schema) };
    // A Decimal is a number or a string: it is sent as a string, so that nothing is rounded.
    else if (types.size === 2 && types.has("string") && types.has("number")) {
      kind = "decimal";
      schema = { ...real.find((each) => typeOf(each) !== "string"), ...without(schema) };
    } else if (real.every((each) => each.const !== undefined)) {
      schema = { ...without(schema), enum: real.map((each) => each.const) };
    } else kind = "json";
  }
  if (schema.enum?.includes(null)) {
    nullable = true;
    schema = { ...schema, enum: schema.enum.filter((each) => each !== null) };
  }
  let of: FieldKind = "text";
  if (kind === null && typeOf(schema) === "array" && schema.items) {
    const items = resolve(schema.items, root);
    of = items.enum?.every((each) => typeof each === "string") ? "text" : kindOf(items);
    kind = of === "text" || of === "integer" || of === "number" ? "list" : "json";
  }
  kind ??= kindOf(schema);
  return {
    name,
    label: schema.title ?? name,
    help: schema.description ?? "",
    kind,
    required,
    nullable,
    fallback: schema.default,
    choices: schema.enum ?? (schema.const === undefined ? [] : [schema.const]),
    of,
    fields: kind === "group" ? fieldsOf(schema, root) : [],
    updatable: schema["x-updatable"] === true,
    bounds: boundsOf(schema),
  };
}

function without(schema: Schema): Schema {
  const { anyOf: _, oneOf: __, ...rest } = schema;
  return rest;
}

/** The fields of an object's schema, in its order. */
export function fieldsOf(schema: Schema, root: Schema = schema): Field[] {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, each]) => fieldOf(name, each, root, required.has(name)));
}

/** What the inputs hold: texts, flags, and groups of these; null where there is none. */
export type Draft = { [name: string]: string | boolean | null | Draft };

const asText = (value: unknown, { kind, nullable }: Field): string => {
  if (value == null) return "";
  if (kind === "list" && Array.isArray(value)) return asList(value, nullable);
  if (kind === "choice") return JSON.stringify(value);
  return kind === "json" || typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
};

/** Its members with commas between them; as JSON where these would be others when they are read again. */
function asList(members: unknown[], nullable: boolean): string {
  const texts = members.map(String);
  const isPlain = texts.every((each) => each !== "" && each === each.trim() && !/[,\n]/.test(each)) && !texts[0]?.startsWith("[");
  return isPlain && (members.length > 0 || !nullable) ? texts.join(", ") : JSON.stringify(members);
}

/** The inputs for these values; what has none begins with its default. */
export function draftOf(fields: Field[], values: Record<string, unknown> = {}): Draft {
  const draft: Draft = {};
  for (const field of fields) {
    const value = field.name in values ? values[field.name] : field.fallback;
    if (value == null && field.nullable) draft[field.name] = null;
    else if (field.kind === "group") draft[field.name] = draftOf(field.fields, (value ?? {}) as Record<string, unknown>);
    else if (field.kind === "flag") draft[field.name] = value === true;
    else draft[field.name] = asText(value, field);
  }
  return draft;
}

/** A text that is not what its field wants. */
export class WrongField extends Error {
  constructor(
    readonly field: string,
    detail: string,
  ) {
    super(detail);
  }
}

function scalarOf(kind: FieldKind, text: string, path: string): unknown {
  if (kind === "integer" || kind === "number") {
    const number = Number(text);
    if (!isDecimal(text) || !Number.isFinite(number)) throw new WrongField(path, `“${text}” is not a number`);
    if (kind === "integer" && !Number.isInteger(number)) throw new WrongField(path, `“${text}” is not a whole number`);
    if (Number.isInteger(number) && !Number.isSafeInteger(number)) throw new WrongField(path, `${text} is too large to be sent exactly`);
    return number;
  }
  return text;
}

/** The values that are sent; throws `WrongField` for the first that cannot be read. All else the server judges. */
export function valuesOf(fields: Field[], draft: Draft, prefix = ""): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const field of fields) {
    const path = `${prefix}${field.name}`;
    const held = draft[field.name];
    if (held === null && field.nullable) {
      values[field.name] = null;
      continue;
    }
    if (field.kind === "group") {
      values[field.name] = valuesOf(field.fields, (held ?? {}) as Draft, `${path}.`);
      continue;
    }
    if (field.kind === "flag") {
      values[field.name] = held ?? null;
      continue;
    }
    const text = typeof held === "string" ? held.trim() : "";
    if (text === "" && field.kind !== "text" && field.kind !== "list") {
      if (field.nullable) values[field.name] = null;
      else if (field.required) throw new WrongField(path, "this is needed");
      continue;
    }
    if (field.kind === "choice") values[field.name] = JSON.parse(text) as unknown;
    else if (field.kind === "json" || (field.kind === "list" && text.startsWith("["))) {
      try {
        values[field.name] = JSON.parse(text) as unknown;
      } catch {
        throw new WrongField(path, "this is not JSON");
      }
    } else if (field.kind === "list") {
      const parts = text.split(/[,\n]/).map((each) => each.trim()).filter(Boolean);
      values[field.name] = parts.map((each) => scalarOf(field.of, each, path));
    } else values[field.name] = scalarOf(field.kind, typeof held === "string" && field.kind === "text" ? held : text, path);
  }
  return values;
}
