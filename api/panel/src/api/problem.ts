/** Errors of the API: problem+json, and what can go wrong on the way. */

export interface FieldError {
  field: string;
  detail: string;
}

/** The members of a problem that the panel knows; others are kept in `body`. */
export interface ProblemBody {
  status: number;
  code: string;
  title: string;
  detail: string;
  field?: string;
  errors?: FieldError[];
  violations?: string[];
  limits?: { kind: string; scope: string; instrument: string | null; value: string | null; limit: string | null }[];
  retry_after?: number;
  action?: string;
  ask?: string;
  id?: string;
  [other: string]: unknown;
}

/** The API refused, and said why. */
export class ProblemError extends Error {
  readonly code: string;
  readonly status: number;

  constructor(readonly body: ProblemBody) {
    super(body.detail);
    this.name = "ProblemError";
    this.code = body.code;
    this.status = body.status;
  }

  /** What is wrong at which field; empty where it is about no field. */
  get fields(): FieldError[] {
    if (this.body.errors?.length) return this.body.errors;
    return this.body.field ? [{ field: this.body.field, detail: this.body.detail }] : [];
  }
}

/** The API could not be reached; a read, so nothing can have happened. */
export class NetworkLost extends Error {
  constructor() {
    super("The server cannot be reached. Nothing was changed; it is tried again by itself.");
    this.name = "NetworkLost";
  }
}

/**
 * The connection went in the middle of an action, and stayed away: whether it happened is not known.
 * `again` sends the very same request with the same idempotency key, which never acts twice.
 */
export class OutcomeUnknown extends Error {
  constructor(
    readonly what: string,
    readonly again: () => Promise<Response>,
    /** The server's last words, which tell nothing of the outcome. */
    said?: string,
  ) {
    super(
      `The connection was lost before the answer to “${what}” came: whether it happened is not known yet.` +
        (said === undefined ? "" : ` The server says now: ${said}`),
    );
    this.name = "OutcomeUnknown";
  }
}

/** A person closed the dialog that asked for a code. */
export class Cancelled extends Error {
  constructor() {
    super("Cancelled: nothing was done.");
    this.name = "Cancelled";
  }
}

/** What an answer to a repeated request tells of the request. */
export type Outcome = { happened: boolean | null; said: string };

/** Refusals that the server keeps: nothing was done, then or now. */
const REFUSED = new Set([400, 404, 409, 422]);
const SAYS_NOTHING = new Set(["in_progress", "outcome_unknown", "idempotency_mismatch"]);

/** Whether a request happened, by the answer to its repetition; null where that tells nothing of it. */
export async function outcomeOf(answer: Response): Promise<Outcome> {
  if (answer.ok) return { happened: true, said: await leftOver(answer) };
  const problem = await problemOf(answer);
  const isKept = answer.headers.get("Idempotency-Kept") !== "no";
  return { happened: isKept && isRefusal(problem) ? false : null, said: problem.message };
}

/** What a success says was not done: of a flattening, a batch or a kill parts may be refused, or not there yet. */
async function leftOver(answer: Response): Promise<string> {
  let found: unknown;
  try {
    found = await answer.clone().json();
  } catch {
    return "";
  }
  if (typeof found !== "object" || found === null) return "";
  const { refused, waiting, results } = found as { refused?: unknown; waiting?: unknown; results?: unknown };
  const detailOf = (each: unknown): string[] => {
    if (typeof each === "string") return [each];
    if (typeof each !== "object" || each === null) return [];
    const { detail, problem, left } = each as { detail?: unknown; problem?: unknown; left?: unknown };
    return typeof detail === "string" ? [detail] : [problem, ...(Array.isArray(left) ? left : [])].flatMap(detailOf);
  };
  const parts = [refused, waiting, results].flatMap((list) => (Array.isArray(list) ? list.flatMap(detailOf) : []));
  return parts.length ? `But not all of it: ${parts.join("; ")}` : "";
}

/** Whether the server looked at the request itself, and said no. */
export function isRefusal(error: unknown): boolean {
  return error instanceof ProblemError && REFUSED.has(error.status) && !SAYS_NOTHING.has(error.code);
}

/** Whether an action that failed so may have been carried out all the same. */
export function isUnsettled(error: unknown): boolean {
  if (error instanceof OutcomeUnknown) return true;
  return error instanceof ProblemError && (error.status === 424 || (error.status >= 500 && error.status !== 503));
}

/** The problem in an answer that is not a success. */
export async function problemOf(response: Response): Promise<ProblemError> {
  let found: unknown;
  try {
    found = await response.clone().json();
  } catch {
    found = null;
  }
  const body = typeof found === "object" && found !== null ? (found as Partial<ProblemBody>) : {};
  return new ProblemError({
    ...body,
    status: response.status,
    code: typeof body.code === "string" ? body.code : `http_${String(response.status)}`,
    title: typeof body.title === "string" ? body.title : response.statusText || "Error",
    detail:
      typeof body.detail === "string"
        ? body.detail
        : `the server answered ${String(response.status)} without saying why`,
  });
}

/** What to show of any error, in words. */
export function wordsOf(error: unknown): string {
  if (error instanceof ProblemError) {
    const { violations, detail } = error.body;
    return violations && violations.length > 1 ? violations.join("; ") : detail;
  }
  return error instanceof Error ? error.message : String(error);
}
