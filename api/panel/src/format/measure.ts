/** Measures of machines and feeds, which are floats: never for money. */

/** Megabytes as MB, GB or TB. */
export function formatMegabytes(mb: number | null | undefined): string {
  if (mb == null) return "–";
  if (mb < 1_000) return `${mb.toFixed(0)} MB`;
  if (mb < 1_000_000) return `${(mb / 1_000).toFixed(1)} GB`;
  return `${(mb / 1_000_000).toFixed(2)} TB`;
}

/** Bytes a second. */
export function formatRate(bytes: number | null | undefined): string {
  if (bytes == null) return "–";
  if (bytes < 1_000) return `${bytes.toFixed(0)} B/s`;
  if (bytes < 1_000_000) return `${(bytes / 1_000).toFixed(1)} kB/s`;
  return `${(bytes / 1_000_000).toFixed(1)} MB/s`;
}

export function formatPercent(percent: number | null | undefined, places = 0): string {
  return percent == null ? "–" : `${percent.toFixed(places)} %`;
}

export function formatNumber(value: number | null | undefined, places = 0): string {
  return value == null ? "–" : value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}
