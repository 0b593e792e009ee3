/** A strategy as its pages speak of it. */
import type { Shape } from "@/api/client";

export type Strategy = Shape<"StrategyShown">;

/** Versions are digests: their beginning is enough to tell them apart. */
export const shortVersion = (version: string): string => (/^[0-9a-f]{16,}$/.test(version) ? version.slice(0, 12) : version);
