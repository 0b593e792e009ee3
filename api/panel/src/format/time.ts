/** Instants as the API writes them: ISO-8601 with nanoseconds and an offset. */

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

/** Milliseconds since the epoch; NaN where there is none. */
export function instant(text: string | null | undefined): number {
  if (!text) return Number.NaN;
  // Browsers read three places of a second at most.
  return Date.parse(text.replace(/(\.\d{3})\d+/, "$1"));
}

/** The second as a chart counts that knows no zones: what the reader's clock shows then, with the offset of that day. */
export function localSecond(ms: number): number {
  return Math.floor(ms / 1000) - new Date(ms).getTimezoneOffset() * 60;
}

/** The clock time, with the day in front unless it is today; local to the reader. */
export function formatTime(text: string | null | undefined, now: number = Date.now()): string {
  const at = instant(text);
  if (Number.isNaN(at)) return "–";
  const shown = clock.format(at);
  return day.format(at) === day.format(now) ? shown : `${day.format(at)} ${shown}`;
}

/** All there is to know of an instant, for titles. */
export function fullTime(text: string | null | undefined): string {
  return text ? `${text} (UTC offset as sent)` : "";
}

/** What is left, as minutes and seconds: 1:05. */
export function formatCountdown(ms: number): string {
  const s = Math.max(0, Math.ceil(ms / 1000));
  return `${String(Math.floor(s / 60))}:${String(s % 60).padStart(2, "0")}`;
}

/** A span in words: 4 s, 3 min, 2 h, 5 d. */
export function formatSpan(ms: number): string {
  if (Number.isNaN(ms)) return "–";
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${String(s)} s`;
  if (s < 3_600) return `${String(Math.floor(s / 60))} min`;
  if (s < 86_400) return `${String(Math.floor(s / 3_600))} h ${String(Math.floor((s % 3_600) / 60))} min`;
  return `${String(Math.floor(s / 86_400))} d`;
}
