import { Badge, Button, Checkbox, Fieldset, Group, Input as MantineInput, Select, Stack, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useMemo, useState } from "react";

import { ProblemError } from "@/api/problem";

import { ErrorNote } from "./ErrorNote";
import { type Draft, draftOf, type Field, fieldsOf, type Schema, valuesOf, WrongField } from "./schema";
import { useAct } from "./useAct";

export interface SchemaFormProps<Result = unknown> {
  schema: Schema;
  values?: Record<string, unknown>;
  /** The path under which the server names these fields: `parameters` for `parameters.fast`. */
  prefix?: string;
  verb: string;
  onSubmit: (values: Record<string, unknown>) => Promise<Result>;
  /** Where to go then, if somebody still looks at the form. */
  onDone?: (result: Result) => void;
  onCancel?: () => void;
  /** Other fields of the same form, above. */
  children?: ReactNode;
  disabled?: boolean;
}

/** A form made of a JSON schema. What the server finds wrong is shown at the field that it names. */
export function SchemaForm<Result>(given: SchemaFormProps<Result>) {
  const fields = useMemo(() => fieldsOf(given.schema), [given.schema]);
  const [draft, setDraft] = useState<Draft>(() => draftOf(fields, given.values));
  const { busy, error, run } = useAct(given.verb);
  const wrong = useMemo(() => wrongFields(error, given.prefix), [error, given.prefix]);
  const known = useMemo(() => new Set(paths(fields)), [fields]);
  const isElsewhere = error !== null && ![...wrong.keys()].some((each) => known.has(each));

  return (
    <form
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void run(async () => given.onSubmit(valuesOf(fields, draft)), given.onDone);
      }}
    >
      <Stack gap="sm">
        {given.children}
        <Fields fields={fields} draft={draft} onChange={setDraft} wrong={wrong} path="" />
        {fields.length === 0 ? <span className="muted">It takes no parameters.</span> : null}
        {isElsewhere ? <ErrorNote error={error} /> : null}
        <Group justify="flex-end" gap="xs">
          {given.onCancel ? (
            <Button variant="default" onClick={given.onCancel}>
              Cancel
            </Button>
          ) : null}
          <Button type="submit" loading={busy} disabled={given.disabled ?? false}>
            {given.verb}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Fields(given: {
  fields: Field[];
  draft: Draft;
  onChange: (draft: Draft) => void;
  wrong: Map<string, string>;
  path: string;
}) {
  return given.fields.map((field) => {
    const path = `${given.path}${field.name}`;
    const set = (value: string | boolean | null | Draft) => {
      given.onChange({ ...given.draft, [field.name]: value });
    };
    if (field.kind === "group") {
      const held = given.draft[field.name] ?? null;
      const error = given.wrong.get(path);
      return (
        <Fieldset key={field.name} legend={field.label}>
          <Stack gap="sm">
            {field.nullable ? (
              <Checkbox
                size="xs"
                label={`Set ${field.label}`}
                description={held === null ? "None is set" : undefined}
                checked={held !== null}
                onChange={(event) => {
                  set(event.currentTarget.checked ? draftOf(field.fields) : null);
                }}
              />
            ) : null}
            {held === null ? null : (
              <Fields fields={field.fields} draft={held as Draft} onChange={set} wrong={given.wrong} path={`${path}.`} />
            )}
            {error === undefined ? null : <MantineInput.Error>{error}</MantineInput.Error>}
          </Stack>
        </Fieldset>
      );
    }
    return <Input key={field.name} field={field} value={given.draft[field.name]} set={set} error={given.wrong.get(path)} />;
  });
}

function Input(given: {
  field: Field;
  value: string | boolean | null | Draft | undefined;
  set: (value: string | boolean | null) => void;
  error: string | undefined;
}) {
  const { field, set } = given;
  const text = typeof given.value === "string" ? given.value : "";
  const shared = {
    label: (
      <>
        {field.label}
        {field.updatable ? (
          <Badge size="xs" ml={6} title="A running algo takes a change of it up without a restart">
            live
          </Badge>
        ) : null}
      </>
    ),
    description: [field.help, field.bounds].filter(Boolean).join(" · ") || undefined,
    error: given.error,
    required: field.required,
  };
  const placeholder = field.nullable ? "none" : field.fallback === undefined ? undefined : `default ${show(field.fallback)}`;
  const typed = {
    ...shared,
    value: text,
    placeholder,
    onChange: (event: { currentTarget: { value: string } }) => {
      const value = event.currentTarget.value;
      set(value === "" && field.nullable ? null : value);
    },
  };
  switch (field.kind) {
    case "flag":
      return (
        <Checkbox
          {...shared}
          size="xs"
          checked={given.value === true}
          onChange={(event) => {
            set(event.currentTarget.checked);
          }}
        />
      );
    case "choice":
      return (
        <Select
          {...shared}
          clearable={field.nullable}
          data={field.choices.map((each) => ({ value: JSON.stringify(each), label: show(each) }))}
          value={text || null}
          onChange={(value) => {
            set(value ?? (field.nullable ? null : ""));
          }}
        />
      );
    case "json":
      return <Textarea {...typed} styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }} />;
    case "list":
      return <TextInput {...typed} placeholder={field.nullable && given.value === null ? "none" : "separated by commas, or a JSON list"} />;
    case "integer":
    case "number":
    case "decimal":
      return <TextInput {...typed} inputMode={field.kind === "integer" ? "numeric" : "decimal"} />;
    default:
      return <TextInput {...typed} />;
  }
}

const show = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

function paths(fields: Field[], prefix = ""): string[] {
  return fields.flatMap((each) => [`${prefix}${each.name}`, ...paths(each.fields, `${prefix}${each.name}.`)]);
}

/** What is wrong at which field of this form. */
export function wrongFields(error: unknown, prefix = ""): Map<string, string> {
  if (error instanceof WrongField) return new Map([[error.field, error.message]]);
  if (!(error instanceof ProblemError)) return new Map();
  return new Map(
    error.fields.map(({ field, detail }) => [
      prefix && field.startsWith(`${prefix}.`) ? field.slice(prefix.length + 1) : field,
      detail,
    ]),
  );
}

/** The words for one field of a hand-made form; undefined where nothing is wrong with it. */
export function errorAt(error: unknown, field: string): string | undefined {
  return error instanceof ProblemError ? error.fields.find((each) => each.field === field)?.detail : undefined;
}

/** Whether an error is about none of the fields that a form shows, so that it must be shown by itself. */
export function isAboutNone(error: unknown, fields: string[]): boolean {
  return error != null && !fields.some((each) => errorAt(error, each) !== undefined);
}
