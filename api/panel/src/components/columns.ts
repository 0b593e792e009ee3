/** What a table's column is, and how its values are ordered and filtered. */
import type { ReactNode } from "react";

import { compareDecimals, isDecimal } from "@/format/decimal";
import { instant } from "@/format/time";

export type CellValue = string | number | boolean | null | undefined;

/** `decimal`: an amount of the API, a string; `number`: a count or a measure; `time`: ISO-8601. */
export type Kind = "text" | "decimal" | "number" | "time" | "flag";

export interface Column<Row> {
  id: string;
  header: string;
  /** What is sorted, filtered and exported. */
  value: (row: Row) => CellValue;
  /** What is shown, where that is more than the value. */
  cell?: (row: Row) => ReactNode;
  kind?: Kind;
  width?: number;
  hidden?: boolean;
  /** Explains the header. */
  title?: string;
}

export const isNumeric = (kind: Kind | undefined): boolean => kind === "decimal" || kind === "number";

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** The order of two instants; those of one form and offset, as the server sends them, are ordered as they are written. */
function orderOfTimes(a: string, b: string): number {
  if (a.length === b.length && a.slice(-6) === b.slice(-6)) return a < b ? -1 : a > b ? 1 : 0;
  return instant(a) - instant(b);
}

/** The order of two values; what is not there comes last. */
export function orderOf(kind: Kind | undefined, a: CellValue, b: CellValue): number {
  if (a == null || b == null) return a == null ? (b == null ? 0 : 1) : -1;
  if (kind === "decimal") return compareDecimals(String(a), String(b));
  if (kind === "time") return orderOfTimes(String(a), String(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return collator.compare(String(a), String(b));
}

/** Whether a value passes a filter: a part of the text, or for numbers also `<5`, `>=5`, `=5`. */
export function filterOf(kind: Kind | undefined, value: CellValue, wanted: string): boolean {
  const text = wanted.trim();
  if (!text) return true;
  if (value == null) return false;
  const bound = /^(<=|>=|<|>|=)\s*(\S+)$/.exec(text);
  if (bound && isNumeric(kind) && isDecimal(bound[2] ?? "")) {
    const order = compareDecimals(String(value), bound[2]);
    const passes = { "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "=": order === 0 };
    return passes[bound[1] as keyof typeof passes];
  }
  return String(value).toLowerCase().includes(text.toLowerCase());
}
