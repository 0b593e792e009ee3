/**
 * How a request goes out: CSRF header, idempotency key, repetition after a lost connection, sign-in and fresh codes.
 *
 * A mutating request that loses its connection is sent again with the same key until there is an answer: the server
 * keeps the first answer under the key, so the repetition tells whether it happened and never acts twice.
 */
import { Cancelled, NetworkLost, OutcomeUnknown, problemOf, ProblemError } from "./problem";

const MUTATING = new Set(["POST", "PUT", "PATCH", "DELETE"]);
/** Waits before the repetitions, in milliseconds. */
const WAITS = [400, 1_000, 2_000, 4_000, 8_000];
/** Reads without input of a person for so long do not keep a session alive. */
const ACTIVE_MS = 10_000;

export interface Hooks {
  /** There is no session, or not any more; and why, in the server's words. */
  onSignedOut: (why: string) => void;
  /** Ask for a code and give it to the server; false where the person closes the dialog. */
  askFreshCode: () => Promise<boolean>;
  /** The connection went in the middle of an action; `null` when its outcome is known. */
  onUncertain: (what: string | null) => void;
}

const hooks: Hooks = {
  onSignedOut: () => undefined,
  askFreshCode: () => Promise.resolve(false),
  onUncertain: () => undefined,
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

export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `panel-${Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("")}`;
}

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** Send a request; the answer may be a problem. Throws `NetworkLost`, `OutcomeUnknown`, `Cancelled`. */
export async function send(request: Request): Promise<Response> {
  const mutates = MUTATING.has(request.method);
  const path = new URL(request.url).pathname;
  const signsIn = path.startsWith("/v1/auth/");
  if (!mutates) return sendRead(request);

  const body = await request.clone().arrayBuffer();
  const what = `${request.method} ${path}`;
  let key = request.headers.get("Idempotency-Key") ?? newKey();
  let fresh = false;
  for (;;) {
    const answer = await sendOnce(request, body, signsIn ? null : key, what);
    if (answer.status === 401 && !signsIn) hooks.onSignedOut((await problemOf(answer)).message);
    if (answer.status !== 403 || fresh) return answer;
    const problem = await problemOf(answer);
    if (problem.code !== "fresh_code_needed") return answer;
    if (!(await hooks.askFreshCode())) throw new Cancelled();
    // It was refused, so nothing happened: with the code it is another request.
    fresh = true;
    key = newKey();
  }
}

async function sendRead(request: Request): Promise<Response> {
  const headers = new Headers(request.headers);
  if (Date.now() - lastInput > ACTIVE_MS) headers.set("X-Background", "1");
  let answer: Response;
  try {
    answer = await globalThis.fetch(new Request(request, { headers, credentials: "same-origin" }));
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw new NetworkLost();
  }
  if (answer.status === 401 && new URL(request.url).pathname !== "/v1/auth/session") {
    const { code, message } = await problemOf(answer);
    if (code === "unauthorized") hooks.onSignedOut(message);
  }
  return answer;
}

async function sendOnce(request: Request, body: ArrayBuffer, key: string | null, what: string): Promise<Response> {
  const once = () => {
    const headers = new Headers(request.headers);
    const csrf = cookie("qd_csrf");
    if (csrf !== null) headers.set("X-CSRF-Token", csrf);
    if (key !== null) headers.set("Idempotency-Key", key);
    // Not the request's own signal: leaving a page must not leave an action half known.
    return globalThis.fetch(request.url, {
      method: request.method,
      headers,
      credentials: "same-origin",
      ...(body.byteLength ? { body } : {}),
    });
  };
  const asked = async (): Promise<Response> => {
    let uncertain = false;
    try {
      for (const wait of [...WAITS, null]) {
        let answer: Response | null = null;
        try {
          answer = await once();
        } catch (error) {
          if (!(error instanceof TypeError)) throw error;
          if (key === null) throw new NetworkLost();
        }
        if (answer && !(await isUnderWay(answer)) && !isLostOnTheWay(answer, uncertain)) return answer;
        if (wait === null) break;
        if (!uncertain) hooks.onUncertain(what);
        uncertain = true;
        await pause(wait);
      }
      throw new OutcomeUnknown(what, asked);
    } finally {
      if (uncertain) hooks.onUncertain(null);
    }
  };
  return asked();
}

/** The first of two equal requests is still being worked on. */
async function isUnderWay(answer: Response): Promise<boolean> {
  return answer.status === 409 && (await problemOf(answer)).code === "in_progress";
}

/** A proxy answered for a server that is away: it says nothing about the action. */
function isLostOnTheWay(answer: Response, uncertain: boolean): boolean {
  const told = answer.headers.get("Content-Type")?.includes("json") ?? false;
  return !told && (answer.status === 502 || answer.status === 503 || (answer.status === 504 && uncertain));
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
