/** The server's clock, as far as its answers tell: this computer's may be wrong. */

/** Answers tell their second only, and take a while to come: less than this is no difference. */
const NOTHING_MS = 3_000;

let ahead = 0;

/** Note the `Date` of an answer that has just come. */
export function noteServerDate(date: string | null): void {
  const at = date === null ? Number.NaN : Date.parse(date);
  if (Number.isNaN(at)) return;
  const by = at - Date.now();
  ahead = Math.abs(by) > NOTHING_MS ? by : 0;
}

/** What the server's clock shows when this computer's shows `now`, in milliseconds since the epoch. */
export const serverTime = (now: number): number => now + ahead;
