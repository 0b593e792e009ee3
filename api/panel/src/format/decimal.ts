/**
 * Decimal amounts as the API writes them. They are never made floats: what is shown is what the book says.
 */

const SHAPE = /^([+-]?)(?=\.?\d)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/;

interface Parts {
  negative: boolean;
  whole: string;
  fraction: string;
}

function parts(text: string): Parts | null {
  const found = SHAPE.exec(text.trim());
  if (!found) return null;
  let whole = found[2] || "0";
  let fraction = found[3] ?? "";
  const shift = Number(found[4] ?? 0);
  if (shift > 0) {
    const moved = fraction.padEnd(shift, "0");
    whole += moved.slice(0, shift);
    fraction = moved.slice(shift);
  } else if (shift < 0) {
    const moved = whole.padStart(1 - shift, "0");
    fraction = moved.slice(moved.length + shift) + fraction;
    whole = moved.slice(0, moved.length + shift);
  }
  whole = whole.replace(/^0+(?=\d)/, "");
  return { negative: found[1] === "-" && /[1-9]/.test(whole + fraction), whole, fraction };
}

export const isDecimal = (text: string): boolean => parts(text) !== null;

/** -1, 0 or 1; what is no decimal comes last. */
export function compareDecimals(a: string | null | undefined, b: string | null | undefined): number {
  // Rounding keeps the order: where two floats differ, so do the amounts, the same way. Else only digits tell.
  const x = a == null || a === "" ? Number.NaN : Number(a);
  const y = b == null || b === "" ? Number.NaN : Number(b);
  if (Number.isFinite(x) && Number.isFinite(y) && x !== y) return x < y ? -1 : 1;
  return compareDigits(a, b);
}

function compareDigits(a: string | null | undefined, b: string | null | undefined): number {
  const left = a == null ? null : parts(a);
  const right = b == null ? null : parts(b);
  if (!left || !right) return left ? -1 : right ? 1 : 0;
  if (left.negative !== right.negative) return left.negative ? -1 : 1;
  const places = Math.max(left.fraction.length, right.fraction.length);
  const first = BigInt(left.whole + left.fraction.padEnd(places, "0"));
  const second = BigInt(right.whole + right.fraction.padEnd(places, "0"));
  const size = first < second ? -1 : first > second ? 1 : 0;
  return left.negative ? (0 - size) : size;
}

export function signOf(text: string | null | undefined): -1 | 0 | 1 {
  const found = text == null ? null : parts(text);
  if (!found || !/[1-9]/.test(found.whole + found.fraction)) return 0;
  return found.negative ? -1 : 1;
}

/** The exact sum. */
export function addDecimals(...given: string[]): string {
  const all = given.map(parts).filter((each): each is Parts => each !== null);
  const places = Math.max(0, ...all.map((each) => each.fraction.length));
  let sum = 0n;
  for (const each of all) {
    const size = BigInt(each.whole + each.fraction.padEnd(places, "0"));
    sum += each.negative ? -size : size;
  }
  const digits = (sum < 0n ? -sum : sum).toString().padStart(places + 1, "0");
  const text = places ? `${digits.slice(0, -places)}.${digits.slice(-places)}` : digits;
  return sum < 0n ? `-${text}` : text;
}

export interface Shape {
  /** Places after the point: cut (half up) or filled to this many; left out, as it is. */
  places?: number;
  /** Show a plus in front of what is above nothing. */
  sign?: boolean;
}

/** With thousands apart, a real minus, and as many places as asked for. */
export function formatDecimal(text: string | null | undefined, shape: Shape = {}): string {
  if (text == null || text === "") return "–";
  const found = parts(text);
  if (!found) return text;
  let { whole, fraction, negative } = found;
  if (shape.places !== undefined) {
    if (fraction.length > shape.places) {
      const up = (fraction[shape.places] ?? "0") >= "5" ? 1n : 0n;
      const digits = (BigInt(whole + fraction.slice(0, shape.places)) + up).toString().padStart(shape.places + 1, "0");
      whole = shape.places ? digits.slice(0, -shape.places) : digits;
      fraction = shape.places ? digits.slice(-shape.places) : "";
    } else {
      fraction = fraction.padEnd(shape.places, "0");
    }
    negative = negative && /[1-9]/.test(whole + fraction);
  }
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const shown = fraction ? `${grouped}.${fraction}` : grouped;
  const above = shape.sign && !negative && /[1-9]/.test(whole + fraction);
  return `${negative ? "−" : above ? "+" : ""}${shown}`;
}

/** Without zeros at the end of the fraction. */
export function trimDecimal(text: string): string {
  return text.includes(".") && !/[eE]/.test(text) ? text.replace(/\.?0+$/, "") : text;
}

/** A rough number for the place of a point in a chart or the length of a bar, never for what is written. */
export const roughly = (text: string | null | undefined): number => (text == null ? Number.NaN : Number(text));
