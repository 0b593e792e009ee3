import { describe, expect, it } from "vitest";

import { type Bar, Bars } from "./bars";

const bar = (minute: number, close: number, closed = true): Bar => ({
  opened_at: `2026-01-31T09:${String(minute).padStart(2, "0")}:00.000000000+00:00`,
  open: 1, high: 9, low: 1, close, volume: 1, closed,
});

describe("bars", () => {
  it("goes on from history without a seam, whichever came first", () => {
    const bars = new Bars();
    expect(bars.put(bar(2, 3, false))).toBe("newest");
    bars.history([bar(0, 1), bar(1, 2), bar(2, 99)]);
    expect(bars.all().map((each) => each.close)).toEqual([1, 2, 3]);
    expect(bars.put(bar(2, 4))).toBe("newest");
    expect(bars.put(bar(3, 5, false))).toBe("newest");
    expect(bars.put(bar(1, 2.5))).toBe("older");
    expect(bars.all().map((each) => each.close)).toEqual([1, 2.5, 4, 5]);
  });

  it("believes history where the stream says that it missed something", () => {
    const bars = new Bars();
    bars.put(bar(1, 7));
    bars.put(bar(2, 8));
    bars.distrust("2026-01-31T09:01:00Z", "2026-01-31T09:02:00Z");
    bars.history([bar(1, 1), bar(2, 2)]);
    expect(bars.all().map((each) => each.close)).toEqual([1, 8]);
  });
});
