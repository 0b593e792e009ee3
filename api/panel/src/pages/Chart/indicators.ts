/** Indicators over closing prices; null where there are not yet enough of them. */

export type Series = (number | null)[];

/** Mean of the last `period` values. */
export function sma(values: number[], period: number): Series {
  let sum = 0;
  return values.map((value, index) => {
    sum += value;
    if (index >= period) sum -= values[index - period] ?? 0;
    return index >= period - 1 ? sum / period : null;
  });
}

/** Exponential mean with weight 2 / (period + 1), begun with the mean of the first `period` values. */
export function ema(values: number[], period: number): Series {
  const weight = 2 / (period + 1);
  let last: number | null = null;
  let sum = 0;
  return values.map((value, index) => {
    if (index < period) sum += value;
    if (index === period - 1) last = sum / period;
    else if (last !== null) last += weight * (value - last);
    return last;
  });
}

/** Mean and `width` standard deviations (of the population) above and below it. */
export function bollinger(values: number[], period: number, width: number): { upper: Series; lower: Series } {
  const middle = sma(values, period);
  const spread = values.map((_, index) => {
    const mean = middle[index];
    if (mean == null) return null;
    const part = values.slice(index - period + 1, index + 1);
    return width * Math.sqrt(part.reduce((all, each) => all + (each - mean) ** 2, 0) / period);
  });
  const at = (sign: number): Series =>
    middle.map((mean, index) => {
      const half = spread[index];
      return mean == null || half == null ? null : mean + sign * half;
    });
  return { upper: at(1), lower: at(-1) };
}

/** Wilder's relative strength index, 0 to 100; 50 where nothing moved. */
export function rsi(values: number[], period: number): Series {
  let up = 0;
  let down = 0;
  return values.map((value, index) => {
    if (index === 0) return null;
    const change = value - (values[index - 1] ?? value);
    const gain = Math.max(0, change);
    const loss = Math.max(0, -change);
    if (index <= period) {
      up += gain / period;
      down += loss / period;
    } else {
      up = (up * (period - 1) + gain) / period;
      down = (down * (period - 1) + loss) / period;
    }
    if (index < period) return null;
    if (up + down === 0) return 50;
    return (100 * up) / (up + down);
  });
}
