/** The typed client. Use `expect(api.GET(…))`: it gives the body or throws the problem. */
import createClient from "openapi-fetch";

import type { components, paths } from "./schema";
import { send } from "./transport";

/** A shape of the API by its name: `Shape<"AlgoShown">`. */
export type Shape<Name extends keyof components["schemas"]> = components["schemas"][Name];

export const api = createClient<paths>({
  baseUrl: globalThis.location?.origin ?? "",
  fetch: send,
  headers: { Accept: "application/json" },
  // FastAPI takes lists as repeated names.
  querySerializer: { array: { style: "form", explode: true } },
});

export { expect } from "./transport";
export { Cancelled, NetworkLost, OutcomeUnknown, ProblemError, wordsOf } from "./problem";
