/** A feed as its pages speak of it. */
import type { Shape } from "@/api/client";

export type Feed = Omit<Shape<"FeedShown">, "passed_over">;

export const MANAGES = "manage feeds and instruments";

export function stateOf(feed: Feed): string {
  if (!feed.enabled) return "disabled";
  if (feed.trouble || feed.gone?.length || feed.stranded?.length) return "degraded";
  if (feed.silent?.length) return "silent";
  return feed.settled ? "live" : "moving";
}

export function whyOf(feed: Feed): string {
  const said = [feed.trouble, feed.note];
  if (feed.gone?.length) said.push(`workers gone: ${feed.gone.join(", ")}`);
  if (feed.silent?.length) said.push(`workers silent: ${feed.silent.join(", ")}`);
  if (feed.stranded?.length) said.push(`${String(feed.stranded.length)} instruments fit on no worker`);
  if (feed.uncarried?.length) said.push(`${String(feed.uncarried.length)} instruments not carried yet`);
  return said.filter(Boolean).join("; ");
}
