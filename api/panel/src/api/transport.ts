/**
 * How a request goes out: CSRF header, idempotency key, repetition after a lost connection, sign-in and fresh codes.
 *
 * A mutating request that loses its connection, or whose connection stalls, is sent again with the same key until there is an answer: the server
 * keeps the first answer under the key, so the repetition tells whether it happened and never acts twice.
 */
import { noteServerDate } from "@/format/clock";

import { Cancelled, NetworkLost, OutcomeUnknown, problemOf, ProblemError } from "./problem";

const MUTATING = new Set(["POST", "PUT", "PATCH", "DELETE"]);
/** Waits before the repetitions, in milliseconds. */
const WAITS = [400, 1_000, 2_000, 4_000, 8_000];
/**
 * How long one try may take before its connection counts as lost, in milliseconds; each is above what the server's own
 * route takes at most, so a try that is given up is a connection that stalled. Of a list of them the first that fits.
 */
const LIMITS: [RegExp, number][] = [
  // Central risk and the sessions are waited for 3 s each, the proof for 2 s.
  [/^POST \/v1\/risk\/kill$/, 15_000],
  // The session takes up to 20 s.
  [/^POST \/v1\/accounts\/[^/]+\/flatten$/, 25_000],
  // Requirements are resolved (120 s) and installed (120 s), and the code is tried (60 s); the file has to get there.
  [/^POST \/v1\/strategies(\/|$)/, 420_000],
  [/^POST \/v1\/audit\/verify$/, 630_000],
  [/^GET /, 60_000],
  // A provider's list of instruments may take 30 s, a comparison with a broker 20 s.
  [/./, 45_000],
];
/** The first try of an act that the server is still at is told of to the next ones, so these need not wait as long. */
const AGAIN_MS = 15_000;
/** Past the limit of the first try, it is asked for so long again what became of it. */
const ASK_MS = 45_000;
/** Reads without input of a person for so long do not keep a session alive. */
const ACTIVE_MS = 10_000;

export interface Hooks {
  /** There is no session, or not any more; and why, in the server's words. */
  onSignedOut: (why: string) => void;
  /** The session ended while it was asked whether an action happened. */
  onLostSight: (what: string) => void;
  /** Ask for a code and give it to the server; false where the person closes the dialog. */
  askFreshCode: () => Promise<boolean>;
  /** The connection went in the middle of an action; what it gives back is called when it is asked for no more. */
  onUncertain: (what: string) => () => void;
}

const hooks: Hooks = {
  onSignedOut: () => undefined,
  onLostSight: () => undefined,
  askFreshCode: () => Promise.resolve(false),
  onUncertain: () => () => undefined,
};

export function install(given: Partial<Hooks>): void {
  Object.assign(hooks, given);
}

let lastInput = 0;

/** Note that a person did something; background requests do not renew the session. */
export function noteInput(): void {
  lastInput = Date.now();
}

/** When a person last did something here, in milliseconds since the epoch. */
export const lastInputAt = (): number => lastInput;

export function watchInput(target: Window): () => void {
  const names = ["pointerdown", "keydown", "wheel", "touchstart"] as const;
  noteInput();
  for (const name of names) target.addEventListener(name, noteInput, { passive: true, capture: true });
  return () => {
    for (const name of names) target.removeEventListener(name, noteInput, { capture: true });
  };
}

export function cookie(name: string, all: string = document.cookie): string | null {
  for (const part of all.split(";")) {
    const [key, ...rest] = part.trim().split("=");
    if (key === name) return decodeURIComponent(rest.join("="));
  }
  return null;
}

/** What the session's second cookie says; over https its name has the prefix, whatever else lies there. */
export function csrfToken(): string | null {
  return cookie("__Host-qd_csrf") ?? cookie("qd_csrf");
}

export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `panel-${Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("")}`;
}

export const limitOf = (what: string): number => LIMITS.find(([pattern]) => pattern.test(what))?.[1] ?? 45_000;

/** Ends a try that takes longer than it may, and one that `given` ends. */
function timeLimit(ms: number, given?: AbortSignal): { signal: AbortSignal; isPast: () => boolean; end: () => void } {
  const controller = new AbortController();
  let past = false;
  const cut = () => { controller.abort(given?.reason); };
  const timer = setTimeout(() => {
    past = true;
    controller.abort();
  }, ms);
  if (given?.aborted) cut();
  given?.addEventListener("abort", cut);
  return {
    signal: controller.signal,
    isPast: () => past,
    end: () => {
      clearTimeout(timer);
      given?.removeEventListener("abort", cut);
    },
  };
}

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** A request that changes something, over all its tries. */
interface Act {
  request: Request;
  body: ArrayBuffer;
  /** The same for every try; null where the server keeps no answers. */
  key: string | null;
  what: string;
  /** A try went out that nobody answered: it may have acted. */
  uncertain: boolean;
}

/** Send a request; the answer may be a problem. Throws `NetworkLost`, `OutcomeUnknown`, `Cancelled`. */
export async function send(request: Request): Promise<Response> {
  if (!MUTATING.has(request.method)) return sendRead(request);
  const path = new URL(request.url).pathname;
  const body = await request.clone().arrayBuffer();
  const signsIn = path.startsWith("/v1/auth/");
  const key = signsIn ? null : (request.headers.get("Idempotency-Key") ?? newKey());
  return carryOut({ request, body, key, what: `${request.method} ${path}`, uncertain: false });
}

async function carryOut(act: Act): Promise<Response> {
  for (let fresh = false; ; ) {
    const answer = await repeat(act);
    if (answer.status !== 401 && answer.status !== 403) return answer;
    const problem = await problemOf(answer);
    if (answer.status === 401 && act.key !== null) hooks.onSignedOut(problem.message);
    // The server keeps no such refusal: the same key goes on, so a try that did act is not done again.
    if (problem.code === "fresh_code_needed" && !fresh) {
      fresh = await hooks.askFreshCode();
      if (fresh) continue;
      if (!act.uncertain) throw new Cancelled();
    }
    if (!act.uncertain) return answer;
    // Who may not (any more) is not told what became of the first try.
    if (answer.status === 401) hooks.onLostSight(act.what);
    throw unknown(act, problem.message);
  }
}

function unknown(act: Act, said?: string): OutcomeUnknown {
  return new OutcomeUnknown(act.what, () => carryOut(act), said);
}

async function sendRead(request: Request): Promise<Response> {
  const headers = new Headers(request.headers);
  if (Date.now() - lastInput > ACTIVE_MS) headers.set("X-Background", "1");
  let answer: Response;
  const limit = timeLimit(limitOf(`GET ${new URL(request.url).pathname}`), request.signal);
  try {
    answer = await globalThis.fetch(new Request(request, { headers, credentials: "same-origin", signal: limit.signal }));
    // It may stall in the middle of the body too.
    await answer.clone().arrayBuffer();
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw new NetworkLost();
  } finally {
    limit.end();
  }
  noteServerDate(answer.headers.get("Date"));
  if (answer.status === 401 && new URL(request.url).pathname !== "/v1/auth/session") {
    const { code, message } = await problemOf(answer);
    if (code === "unauthorized") hooks.onSignedOut(message);
  }
  return answer;
}

/** Send it until there is an answer that tells what became of it. */
async function repeat(act: Act): Promise<Response> {
  let settle: (() => void) | null = null;
  let said: string | undefined;
  const until = Date.now() + limitOf(act.what) + ASK_MS;
  try {
    for (const wait of [...WAITS, null]) {
      const answer = await sendOnce(act);
      if (answer && (act.key === null || (await tells(answer, act.uncertain)))) return answer;
      said = answer ? (await problemOf(answer)).message : said;
      act.uncertain = true;
      if (wait === null || Date.now() >= until) break;
      settle ??= hooks.onUncertain(act.what);
      await pause(wait);
    }
    throw unknown(act, said);
  } finally {
    settle?.();
  }
}

/** The whole answer; null where the connection went, or stalled, before it was there. */
async function sendOnce({ request, body, key, what, uncertain }: Act): Promise<Response | null> {
  const headers = new Headers(request.headers);
  const csrf = csrfToken();
  if (csrf !== null) headers.set("X-CSRF-Token", csrf);
  if (key !== null) headers.set("Idempotency-Key", key);
  const limit = timeLimit(uncertain ? Math.min(AGAIN_MS, limitOf(what)) : limitOf(what));
  try {
    // Not the request's own signal: leaving a page must not leave an action half known.
    const answer = await globalThis.fetch(request.url, {
      method: request.method,
      headers,
      credentials: "same-origin",
      signal: limit.signal,
      ...(body.byteLength ? { body } : {}),
    });
    await answer.clone().arrayBuffer();
    return answer;
  } catch (error) {
    if (!limit.isPast() && !(error instanceof TypeError)) throw error;
    if (key === null) throw new NetworkLost();
    return null;
  } finally {
    limit.end();
  }
}

/** Whether an answer is the last word on the request. */
async function tells(answer: Response, uncertain: boolean): Promise<boolean> {
  const { status } = answer;
  // The first of two equal requests is still being worked on.
  if (status === 409) return (await problemOf(answer)).code !== "in_progress";
  // "Not now" to a repetition is said before anybody has looked what became of the first try.
  if (uncertain && (status === 429 || status === 503)) return false;
  // A proxy answered for a server that is away.
  const isOurs = answer.headers.get("Content-Type")?.includes("json") ?? false;
  return isOurs || (status !== 502 && status !== 503 && status !== 504);
}

/** The answer's body, or the problem thrown. */
export async function expect<T>(
  asked: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<NonNullable<T>> {
  const { data, error, response } = await asked;
  if (!response.ok) {
    // The body is read by now; openapi-fetch hands it over parsed.
    const body = typeof error === "object" && error !== null ? error : {};
    throw await problemOf(new Response(JSON.stringify(body), { status: response.status, statusText: response.statusText }));
  }
  return data as NonNullable<T>;
}

export { ProblemError };
