/** Whether a limit that is to be set allows more than the one in force, and what becomes possible then. */
import { addDecimals, compareDecimals, formatDecimal, isDecimal, trimDecimal } from "@/format/decimal";

export interface Asked {
  scope: string;
  kind: string;
  instrument: string;
  value: string;
}

export interface Kind {
  kind: string;
  unit: string;
  bounds: string;
}

/** On or off, or how far something is shut: there it is the smaller number that allows more. */
const isState = (kind: Kind): boolean => /^0[ ,]/.test(kind.unit);
export const NO_NUMBER = "Write a number such as 2500.50";
const HOLDS_NOTHING = new Set(["day_start"]);

/**
 * In words what becomes possible; null where nothing does: no limit was in force, or none that was tighter. It throws where
 * the value cannot be read: the server reads more than a person would take for a number.
 */
export function whatBecomesPossible(asked: Asked, kind: Kind, inForce: string | null, unit: string): string[] | null {
  if (!isDecimal(asked.value)) throw new Error(`${asked.value}: ${NO_NUMBER}`);
  if (inForce === null || HOLDS_NOTHING.has(kind.kind)) return null;
  const more = compareDecimals(asked.value, inForce) * (isState(kind) ? -1 : 1);
  if (more <= 0) return null;
  const where = `${asked.instrument ? `${asked.instrument} on ` : ""}${asked.scope}`;
  const above = "Other limits on its way still hold.";
  const name = kind.kind.replaceAll("_", " ");
  if (isState(kind)) {
    const opens = compareDecimals(asked.value, "0") > 0 ? "Some" : "All";
    return [`${where}: ${name} goes from ${inForce} to ${asked.value}.`, `It shuts out: ${kind.bounds}. ${opens} of these orders pass then.`, above];
  }
  const said = (value: string) => `${formatDecimal(trimDecimal(value))} ${unit}`;
  return [
    `${where}: ${name} goes from ${said(inForce)} to ${said(asked.value)}.`,
    `It bounds ${kind.bounds}: that may be ${said(addDecimals(asked.value, inForce.startsWith("-") ? inForce.slice(1) : `-${inForce}`))} more than now, and orders that were refused for it pass.`,
    above,
  ];
}
