import { describe, expect, it } from "vitest";

import { bollinger, ema, rsi, sma } from "./indicators";

describe("indicators", () => {
  it("means the last values only", () => {
    expect(sma([1, 2, 3, 4, 10], 3)).toEqual([null, null, 2, 3, 17 / 3]);
  });

  it("begins the exponential mean with a plain one", () => {
    // (1+2+3)/3 = 2, then 2 + 0.5·(5-2) = 3.5, then 3.5 + 0.5·(1.5-3.5) = 2.5
    expect(ema([1, 2, 3, 5, 1.5], 3)).toEqual([null, null, 2, 3.5, 2.5]);
  });

  it("spreads the bands by the population's deviation", () => {
    const { upper, lower } = bollinger([2, 4, 4, 4, 5, 5, 7, 9], 8, 2);
    expect(upper.at(-1)).toBeCloseTo(5 + 2 * 2, 12);
    expect(lower.at(-1)).toBeCloseTo(5 - 2 * 2, 12);
    expect(upper.slice(0, 7).every((each) => each === null)).toBe(true);
  });

  it("keeps the strength within its bounds", () => {
    expect(rsi([1, 2, 3, 4], 3).at(-1)).toBe(100);
    expect(rsi([4, 3, 2, 1], 3).at(-1)).toBe(0);
    expect(rsi([2, 2, 2, 2], 3).at(-1)).toBe(50);
    // Up 1, down 1, up 2: mean gain 1, mean loss 1/3.
    expect(rsi([1, 2, 1, 3], 3).at(-1)).toBeCloseTo(75, 12);
  });
});
