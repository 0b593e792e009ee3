import { describe, expect, it } from "vitest";

import { type Bar, barAt, Bars, secondOf, underWay } from "./bars";

const bar = (minute: number, close: number, closed = true): Bar => ({
  opened_at: `2026-01-31T09:${String(minute).padStart(2, "0")}:00.000000000+00:00`,
  open: 1, high: 9, low: 1, close, volume: 1, closed,
});
const at = (minute: number) => secondOf(bar(minute, 0));
const closes = (bars: Bars) => bars.all().map((each) => each.close);

describe("bars", () => {
  it("goes on from history without a seam, whichever came first", () => {
    const bars = new Bars();
    expect(bars.put(bar(2, 3, false))).toBe("newest");
    bars.history([bar(0, 1), bar(1, 2)], at(2));
    expect(closes(bars)).toEqual([1, 2, 3]);
    expect(bars.put(bar(2, 4))).toBe("newest");
    expect(bars.put(bar(3, 5, false))).toBe("newest");
    expect(bars.put(bar(1, 2.5))).toBe("older");
    expect(closes(bars)).toEqual([1, 2.5, 4, 5]);
  });

  it("believes history where the stream says that it missed something", () => {
    const bars = new Bars();
    bars.put(bar(1, 7));
    bars.put(bar(2, 8));
    bars.distrust("2026-01-31T09:01:00Z", "2026-01-31T09:02:00Z");
    bars.history([bar(1, 1), bar(2, 2)], at(3));
    expect(closes(bars)).toEqual([1, 8]);
  });

  it("takes the whole bar of history for one whose close the stream never told", () => {
    const bars = new Bars();
    bars.history([bar(0, 1)], at(1));
    bars.put(bar(1, 2, false));
    expect(bars.isOpenBefore(at(2))).toBe(true);
    expect(bars.put(bar(2, 3, false))).toBe("newest");
    bars.history([bar(0, 1), bar(1, 2.5)], at(2));
    expect(closes(bars)).toEqual([1, 2.5, 3]);
    expect(bars.isOpenBefore(at(2))).toBe(false);
    // What is late does not take its place again.
    expect(bars.put(bar(1, 2, false))).toBe("known");
    expect(closes(bars)).toEqual([1, 2.5, 3]);
  });

  it("makes the bar under way of narrower ones", () => {
    const inside = [
      { ...bar(4, 50), high: 100 }, { ...bar(5, 5), open: 4, high: 6 }, { ...bar(6, 7, false), low: 0.5, volume: 2 }, bar(10, 60),
    ];
    expect(underWay(inside, at(5), 300)).toEqual({
      opened_at: "2026-01-31T09:05:00.000Z", open: 4, high: 9, low: 0.5, close: 7, volume: 3, closed: false,
    });
    expect(underWay(inside, at(15), 300)).toBeNull();
  });

  it("finds the bar in which something fell, and none where there is none", () => {
    const starts = [at(0), at(1), at(5)];
    expect(barAt(starts, at(1) + 59, 60)).toBe(at(1));
    expect(barAt(starts, at(1) + 60, 60)).toBeUndefined();
    expect(barAt(starts, at(0) - 1, 60)).toBeUndefined();
    expect(barAt(starts, at(9), 60)).toBeUndefined();
  });
});
