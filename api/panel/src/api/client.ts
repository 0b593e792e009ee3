/** The typed client. Use `expect(api.GET(…))`: it gives the body or throws the problem. */
import createClient from "openapi-fetch";

import type { ContractPaths } from "./contract";
import type { components, paths } from "./schema";
import { send } from "./transport";

/** Everything there is: what the server's document says, and what it is about to say. */
export type Paths = paths & Omit<ContractPaths, keyof paths>;
/** A shape of the API by its name: `Shape<"AlgoShown">`. */
export type Shape<Name extends keyof components["schemas"]> = components["schemas"][Name];

export const api = createClient<Paths>({
  baseUrl: globalThis.location?.origin ?? "",
  fetch: send,
  headers: { Accept: "application/json" },
  // FastAPI takes lists as repeated names.
  querySerializer: { array: { style: "form", explode: true } },
});

export { expect } from "./transport";
export { Cancelled, NetworkLost, OutcomeUnknown, ProblemError, wordsOf } from "./problem";
