/** How all charts look. */
import { ColorType } from "lightweight-charts";

/** Colours of a chart in the theme that is on, read from the page's own variables. */
export function chartColors(): { text: string; grid: string; up: string; down: string; line: string[] } {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(name).trim();
  return {
    text: read("--qd-muted"),
    grid: read("--qd-line"),
    up: read("--qd-up"),
    down: read("--qd-down"),
    line: [read("--qd-info"), read("--qd-warn"), read("--qd-good"), read("--qd-bad")],
  };
}

export function chartOptions(colors: ReturnType<typeof chartColors>) {
  return {
    autoSize: true,
    layout: {
      background: { type: ColorType.Solid, color: "transparent" },
      textColor: colors.text,
      fontSize: 11,
      // Its logo would bring an inline style, which the page's policy refuses; the panel names the library in About.
      attributionLogo: false,
    },
    grid: { vertLines: { color: colors.grid }, horzLines: { color: colors.grid } },
    rightPriceScale: { borderColor: colors.grid },
    timeScale: { borderColor: colors.grid, timeVisible: true, secondsVisible: false },
  } as const;
}
