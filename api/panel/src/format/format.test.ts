import { describe, expect, it, vi } from "vitest";

import { csvField, csvText } from "./csv";
import cases from "./csv_marks.json";
import { addDecimals, compareDecimals, formatDecimal, signOf, trimDecimal } from "./decimal";
import { formatSpan, formatTime, instant, localSecond } from "./time";

const marks = cases as [string, string][];

describe("decimals", () => {
  it("are shown with every digit, however many: no float could", () => {
    expect(formatDecimal("12345678901234567890.123456789012345678")).toBe("12,345,678,901,234,567,890.123456789012345678");
    expect(formatDecimal("0.1000000000000000055")).toBe("0.1000000000000000055");
    expect(formatDecimal("9007199254740993")).toBe("9,007,199,254,740,993");
  });

  it.each([
    ["1234.565", { places: 2 }, "1,234.57"],
    ["1.005", { places: 2 }, "1.01"],
    ["999.995", { places: 2 }, "1,000.00"],
    ["-0.004", { places: 2 }, "0.00"],
    ["-1234.5", { places: 2 }, "−1,234.50"],
    ["5", { places: 2, sign: true }, "+5.00"],
    ["0", { places: 2, sign: true }, "0.00"],
    ["-5", { sign: true }, "−5"],
    ["1E+3", {}, "1,000"],
    ["1.5e-7", {}, "0.00000015"],
    ["0E-8", { places: 2 }, "0.00"],
    ["12.5", { places: 0 }, "13"],
    ["", {}, "–"],
    [null, {}, "–"],
    ["Infinity", {}, "Infinity"],
  ])("%s as %o is %s", (text, shape, shown) => {
    expect(formatDecimal(text, shape)).toBe(shown);
  });

  it("are ordered as numbers are, exactly", () => {
    const given = ["10", "-3", "9.99999999999999999", "9.99999999999999998", "-3.0000000000000001", "0", "1e2"];
    expect([...given].sort(compareDecimals)).toEqual([
      "-3.0000000000000001", "-3", "0", "9.99999999999999998", "9.99999999999999999", "10", "1e2",
    ]);
    expect(compareDecimals("1.0", "1")).toBe(0);
    expect(compareDecimals("-0", "0")).toBe(0);
    expect(compareDecimals(null, "1")).toBe(1);
    expect(compareDecimals("1", undefined)).toBe(-1);
  });

  it("add up exactly", () => {
    expect(addDecimals("0.1", "0.2")).toBe("0.3");
    expect(addDecimals("1", "-1.00")).toBe("0.00");
    expect(addDecimals("99999999999999999999", "0.01")).toBe("99999999999999999999.01");
    expect(addDecimals("-5", "2.5")).toBe("-2.5");
    expect(addDecimals()).toBe("0");
  });

  it("have a sign", () => {
    expect(["-0.00", "0.00001", "-2", "x", null].map(signOf)).toEqual([0, 1, -1, 0, 0]);
  });

  it("lose zeros at their end and nothing else", () => {
    expect(["1.500", "100", "2.000", "0.10", "1E+2"].map(trimDecimal)).toEqual(["1.5", "100", "2", "0.1", "1E+2"]);
  });
});

describe("times", () => {
  it("are read with nanoseconds", () => {
    expect(instant("2026-01-31T09:15:00.123456789+00:00")).toBe(Date.UTC(2026, 0, 31, 9, 15, 0, 123));
    expect(instant(null)).toBeNaN();
  });

  it("have their day where it is another", () => {
    const now = new Date(2026, 0, 31, 12).getTime();
    expect(formatTime(new Date(2026, 0, 31, 9, 15, 7).toISOString(), now)).toBe("09:15:07");
    expect(formatTime(new Date(2026, 0, 30, 9, 15, 7).toISOString(), now)).toBe("2026-01-30 09:15:07");
    expect(formatTime(null)).toBe("–");
  });

  it("apart are told in words", () => {
    expect([3_400, 59_000, 61_000, 3_600_000, 5_400_000, 3 * 86_400_000, -1, Number.NaN].map(formatSpan)).toEqual([
      "3 s", "59 s", "1 min", "1 h 0 min", "1 h 30 min", "3 d", "0 s", "–",
    ]);
  });
});

describe("CSV", () => {
  // The server's exports keep the same rule: tests/api/test_exports.py reads these cases too.
  it.each(marks)("makes of %j, which a spreadsheet might run, %j", (text, marked) => {
    const field = csvField(text, false);
    expect(field.startsWith('"') ? field.slice(1, -1) : field).toBe(marked);
  });

  it("leaves amounts alone, and marks what only claims to be one", () => {
    expect(csvField("-12.50", true)).toBe("-12.50");
    expect(csvField("+3", true)).toBe("+3");
    expect(csvField("-1+cmd|' /C calc'!A0", true)).toMatch(/^'-1/);
  });

  it("quotes what would break a line", () => {
    expect(csvField('a "b", c\nd', false)).toBe('"a ""b"", c\nd"');
    expect(csvText(["a", "b"], [[{ value: "x,y", isNumber: false }, { value: null, isNumber: true }]])).toBe('a,b\r\n"x,y",\r\n');
  });
});

it("shows each instant on the reader's clock of that day, before summer time ends and after", () => {
  vi.stubEnv("TZ", "America/New_York");
  const shown = (ms: number) => new Date(localSecond(ms) * 1_000).toISOString().slice(11, 16);
  expect(shown(Date.UTC(2026, 9, 31, 16, 0))).toBe("12:00");
  expect(shown(Date.UTC(2026, 10, 2, 16, 0))).toBe("11:00");
  vi.stubEnv("TZ", "Asia/Kolkata");
  expect(shown(Date.UTC(2026, 9, 31, 12, 30))).toBe("18:00");
  vi.unstubAllEnvs();
});
