/** An account as its pages speak of it. */
import type { Shape } from "@/api/client";

export type Account = Shape<"AccountShown">;
export type Glance = Shape<"AccountGlance">;
