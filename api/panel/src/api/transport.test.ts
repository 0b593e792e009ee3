import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { NetworkLost, OutcomeUnknown, outcomeOf, problemOf, ProblemError } from "./problem";
import { cookie, csrfToken, expect as body, install, limitOf, noteInput, send } from "./transport";

const answer = (status: number, content: unknown = {}, headers: Record<string, string> = {}) =>
  new Response(status === 204 ? null : JSON.stringify(content), {
    status,
    headers: { "Content-Type": status < 400 ? "application/json" : "application/problem+json", ...headers },
  });
const lost = () => Promise.reject(new TypeError("Failed to fetch"));

type Sent = { url: string; method: string; headers: Headers };
/** A connection that stands and brings nothing. */
const stalled = (_: unknown, signal: AbortSignal | null | undefined) =>
  new Promise<Response>((_, fail) => {
    signal?.addEventListener("abort", () => { fail(new DOMException("aborted", "AbortError")); });
  });
/** The head of an answer, and no body. */
const half = (_: unknown, signal: AbortSignal | null | undefined) =>
  Promise.resolve(
    new Response(new ReadableStream({ start: (out) => { signal?.addEventListener("abort", () => { out.error(new DOMException("aborted", "AbortError")); }); } })),
  );
let sent: Sent[];
let answers: ((input: unknown, signal: AbortSignal | null | undefined) => Promise<Response>)[];
const signedOut = vi.fn();
const askFreshCode = vi.fn<() => Promise<boolean>>();
const lostSight = vi.fn();
const settled = vi.fn();
const uncertain = vi.fn<(what: string) => () => void>();

const post = (path = "/v1/orders", headers: Record<string, string> = {}) =>
  send(new Request(`http://deck${path}`, { method: "POST", body: '{"a":1}', headers }));
const get = (path = "/v1/orders") => send(new Request(`http://deck${path}`));
const keys = () => sent.map((each) => each.headers.get("Idempotency-Key"));

beforeEach(() => {
  sent = [];
  answers = [];
  signedOut.mockReset();
  askFreshCode.mockReset();
  lostSight.mockReset();
  settled.mockReset();
  uncertain.mockReset().mockReturnValue(settled);
  install({ onSignedOut: signedOut, onLostSight: lostSight, askFreshCode, onUncertain: uncertain });
  vi.useFakeTimers();
  vi.spyOn(document, "cookie", "get").mockReturnValue("other=1; qd_csrf=to%3Dken; last=2");
  vi.stubGlobal("fetch", (input: Request | string, init?: RequestInit) => {
    const request = input instanceof Request ? input : null;
    sent.push({
      url: request?.url ?? String(input),
      method: init?.method ?? request?.method ?? "GET",
      headers: new Headers(init?.headers ?? request?.headers),
    });
    const next = answers.shift();
    if (!next) throw new Error("one request too many");
    return next(input, init?.signal ?? request?.signal);
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** What comes of it once all waits are over. */
async function inTime<T>(asked: Promise<T>): Promise<T> {
  asked.catch(() => undefined);
  await vi.advanceTimersByTimeAsync(60_000);
  return asked;
}

/** What it fails with once all waits are over. */
const failure = (asked: Promise<unknown>) => inTime(asked).then(() => null, (error: unknown) => error);

const refused = (code: string) => () => Promise.resolve(answer(403, { code, detail: "no" }));

describe("a mutating request", () => {
  it("bears the CSRF token of the cookie and a key of its own", async () => {
    answers = [() => Promise.resolve(answer(201)), () => Promise.resolve(answer(201))];
    await post();
    await post();
    expect(sent.map((each) => each.headers.get("X-CSRF-Token"))).toEqual(["to=ken", "to=ken"]);
    expect(keys()[0]).toMatch(/^panel-[0-9a-f]{32}$/);
    expect(keys()[0]).not.toBe(keys()[1]);
  });

  it("keeps a key that it was given", async () => {
    answers = [() => Promise.resolve(answer(201))];
    await post("/v1/orders", { "Idempotency-Key": "mine" });
    expect(keys()).toEqual(["mine"]);
  });

  it("is sent again with the same key when the connection goes, and learns that it happened", async () => {
    answers = [lost, lost, () => Promise.resolve(answer(201, { ok: true }, { "Idempotency-Replayed": "true" }))];
    const found = await inTime(post());
    expect(found.status).toBe(201);
    expect(new Set(keys()).size).toBe(1);
    expect(sent).toHaveLength(3);
    expect(uncertain.mock.calls).toEqual([["POST /v1/orders"]]);
    expect(settled).toHaveBeenCalledOnce();
  });

  it.each([["/v1/accounts/a/flatten", 25_000], ["/v1/risk/kill", 15_000], ["/v1/orders", 45_000]])(
    "is not known to have happened where the connection to %s stalls, and is asked for again by the same key",
    async (path, limit) => {
      answers = [stalled, half, () => Promise.resolve(answer(200, { ok: true }, { "Idempotency-Replayed": "true" }))];
      const asked = post(path);
      await vi.advanceTimersByTimeAsync(limit - 1);
      expect(uncertain).not.toHaveBeenCalled();
      await vi.advanceTimersByTimeAsync(1);
      expect(uncertain).toHaveBeenCalledOnce();
      await vi.advanceTimersByTimeAsync(17_000);
      expect((await asked).headers.get("Idempotency-Replayed")).toBe("true");
      expect(sent).toHaveLength(3);
      expect(new Set(keys()).size).toBe(1);
      expect(settled).toHaveBeenCalledOnce();
    },
  );

  it("says in time that its outcome is unknown where every connection stalls", async () => {
    answers = [stalled, stalled, stalled, stalled];
    const failed = post("/v1/risk/kill").then(() => null, (error: unknown) => error);
    await vi.advanceTimersByTimeAsync(64_000);
    expect(await failed).toBeInstanceOf(OutcomeUnknown);
    answers = [() => Promise.resolve(answer(201))];
    expect((await ((await failed) as OutcomeUnknown).again()).status).toBe(201);
    expect(new Set(keys()).size).toBe(1);
  });

  it("gives work that takes long on the server the time that it takes", () => {
    expect(limitOf("POST /v1/strategies/mine/versions")).toBeGreaterThan(300_000);
    expect(limitOf("POST /v1/audit/verify")).toBeGreaterThan(600_000);
    expect(limitOf("POST /v1/accounts/a/flatten")).toBeGreaterThan(20_000);
    expect(limitOf("PUT /v1/risk/limits")).toBeGreaterThan(30_000);
  });

  it("waits while the first of two equal ones is under way", async () => {
    answers = [
      lost,
      () => Promise.resolve(answer(409, { code: "in_progress", detail: "wait" })),
      () => Promise.resolve(answer(200)),
    ];
    expect((await inTime(post())).status).toBe(200);
    expect(new Set(keys()).size).toBe(1);
  });

  it("says that its outcome is unknown where nobody answers, and can be asked again by the same key", async () => {
    answers = [lost, lost, lost, lost, lost, lost];
    const failed = await inTime(post()).then(
      () => null,
      (error: unknown) => error,
    );
    expect(failed).toBeInstanceOf(OutcomeUnknown);
    answers = [() => Promise.resolve(answer(200))];
    expect((await (failed as OutcomeUnknown).again()).ok).toBe(true);
    expect(new Set(keys()).size).toBe(1);
    expect(settled).toHaveBeenCalledTimes(uncertain.mock.calls.length);
  });

  it("is not repeated for another conflict", async () => {
    answers = [() => Promise.resolve(answer(409, { code: "generation_changed", detail: "look" }))];
    expect((await post()).status).toBe(409);
    expect(sent).toHaveLength(1);
  });

  it("asks for a fresh code where one is needed, and goes on under the same key, which was not used up", async () => {
    answers = [
      () => Promise.resolve(answer(403, { code: "fresh_code_needed", detail: "code" })),
      () => Promise.resolve(answer(201)),
    ];
    askFreshCode.mockResolvedValue(true);
    expect((await post("/v1/risk/kill")).status).toBe(201);
    expect(askFreshCode).toHaveBeenCalledOnce();
    expect(new Set(keys()).size).toBe(1);
  });

  it("keeps its key also where a repetition asks for a code: the first try may have acted", async () => {
    answers = [lost, refused("fresh_code_needed"), () => Promise.resolve(answer(201, {}, { "Idempotency-Replayed": "true" }))];
    askFreshCode.mockResolvedValue(true);
    expect((await inTime(post("/v1/risk/kill"))).status).toBe(201);
    expect(new Set(keys()).size).toBe(1);
  });

  it("that may have acted is not called undone where the person closes the dialog", async () => {
    answers = [lost, refused("fresh_code_needed")];
    askFreshCode.mockResolvedValue(false);
    expect(await failure(post("/v1/risk/kill"))).toBeInstanceOf(OutcomeUnknown);
  });

  it("is not done where the person closes the dialog", async () => {
    answers = [() => Promise.resolve(answer(403, { code: "fresh_code_needed", detail: "code" }))];
    askFreshCode.mockResolvedValue(false);
    await expect(post("/v1/risk/kill")).rejects.toThrow("nothing was done");
    expect(sent).toHaveLength(1);
  });

  it("does not ask twice for a code", async () => {
    const refused = () => Promise.resolve(answer(403, { code: "fresh_code_needed", detail: "code" }));
    answers = [refused, refused];
    askFreshCode.mockResolvedValue(true);
    expect((await post("/v1/risk/kill")).status).toBe(403);
    expect(askFreshCode).toHaveBeenCalledOnce();
  });

  it("hands a plain refusal on", async () => {
    answers = [() => Promise.resolve(answer(403, { code: "forbidden", detail: "no" }))];
    expect((await post()).status).toBe(403);
    expect(askFreshCode).not.toHaveBeenCalled();
  });

  it("shows the sign-in when the session has ended", async () => {
    answers = [() => Promise.resolve(answer(401, { code: "unauthorized", detail: "sign in" }))];
    await post();
    expect(signedOut).toHaveBeenCalledOnce();
  });
});

describe("a repetition", () => {
  const away = () => Promise.resolve(answer(503, { code: "not_ready", detail: "the journal is away" }));

  it("goes on where the server is not ready, for the first try may have acted", async () => {
    answers = [lost, away, away, () => Promise.resolve(answer(200, {}, { "Idempotency-Replayed": "true" }))];
    expect((await inTime(post())).status).toBe(200);
    expect(new Set(keys()).size).toBe(1);
  });

  it("ends in doubt, with the server's words, where the server never gets ready", async () => {
    answers = [lost, away, away, away, away, away];
    const failed = await failure(post());
    expect(failed).toBeInstanceOf(OutcomeUnknown);
    expect((failed as Error).message).toContain("the journal is away");
  });

  it("goes on where there were too many requests", async () => {
    answers = [lost, () => Promise.resolve(answer(429, { code: "too_many", detail: "wait" })), () => Promise.resolve(answer(200))];
    expect((await inTime(post())).status).toBe(200);
  });

  it("ends in doubt where the session has ended, or the role was taken", async () => {
    answers = [lost, () => Promise.resolve(answer(401, { code: "unauthorized", detail: "sign in" }))];
    expect(await failure(post())).toBeInstanceOf(OutcomeUnknown);
    expect(signedOut).toHaveBeenCalledOnce();
    expect(lostSight.mock.calls).toEqual([["POST /v1/orders"]]);
    answers = [lost, refused("forbidden")];
    expect(await failure(post())).toBeInstanceOf(OutcomeUnknown);
  });

  it("that is asked for later is in doubt from its start, and asks for a code where one is needed", async () => {
    answers = [lost, lost, lost, lost, lost, lost];
    const failed = (await failure(post())) as OutcomeUnknown;
    answers = [away, refused("fresh_code_needed"), () => Promise.resolve(answer(200))];
    askFreshCode.mockResolvedValue(true);
    expect((await inTime(failed.again())).status).toBe(200);
    expect(askFreshCode).toHaveBeenCalledOnce();
    expect(new Set(keys()).size).toBe(1);
  });
});

describe("an answer", () => {
  it("of which only the beginning came is none", async () => {
    const cut = new ReadableStream({ start: (body) => { body.error(new TypeError("network error")); } });
    answers = [
      () => Promise.resolve(new Response(cut, { status: 201, headers: { "Content-Type": "application/json" } })),
      () => Promise.resolve(answer(201, { ok: true })),
    ];
    const found = await inTime(post());
    expect(await found.json()).toEqual({ ok: true });
    expect(new Set(keys()).size).toBe(1);
  });

  it("of a 503 to a first try says that nothing was done", async () => {
    answers = [() => Promise.resolve(answer(503, { code: "not_ready", detail: "away" }))];
    expect((await post()).status).toBe(503);
  });

  it.each([
    [200, {}, {}, true],
    [409, { code: "orders_are_open" }, {}, false],
    [422, { code: "risk_denied" }, {}, false],
    [404, { code: "not_found" }, {}, false],
    [400, { code: "bad_input" }, {}, false],
    [409, { code: "in_progress" }, {}, null],
    [422, { code: "idempotency_mismatch" }, {}, null],
    [409, { code: "order_final" }, { "Idempotency-Kept": "no" }, null],
    [424, { code: "outcome_unknown" }, {}, null],
    [401, { code: "unauthorized" }, {}, null],
    [403, { code: "forbidden" }, {}, null],
    [500, { code: "internal" }, {}, null],
    [503, { code: "not_ready" }, {}, null],
    [504, { code: "unreachable" }, {}, null],
  ])("%i %o %o: it happened: %s", async (status, body, headers, happened) => {
    expect((await outcomeOf(answer(status, body, headers as Record<string, string>))).happened).toBe(happened);
  });
});

describe("signing in", () => {
  it("has no key, is not repeated, and a wrong password is no lost session", async () => {
    answers = [() => Promise.resolve(answer(401, { code: "wrong_login", detail: "wrong" })), lost];
    expect((await post("/v1/auth/login")).status).toBe(401);
    expect(keys()).toEqual([null]);
    expect(signedOut).not.toHaveBeenCalled();
    await expect(post("/v1/auth/login")).rejects.toBeInstanceOf(NetworkLost);
    expect(sent).toHaveLength(2);
  });
});

describe("a read", () => {
  it("fails where its connection stalls, be it in the middle of the answer", async () => {
    answers = [stalled, half];
    const failed = [get(), get()].map((asked) => asked.then(() => null, (error: unknown) => error));
    await vi.advanceTimersByTimeAsync(60_000);
    for (const each of failed) expect(await each).toBeInstanceOf(NetworkLost);
  });

  it("is ended by whoever asked for it, and that is no lost connection", async () => {
    answers = [stalled];
    const leaving = new AbortController();
    const failed = send(new Request("http://deck/v1/orders", { signal: leaving.signal })).then(() => null, (error: unknown) => error);
    await vi.advanceTimersByTimeAsync(1_000);
    leaving.abort();
    expect(await failed).toMatchObject({ name: "AbortError" });
  });

  it("is in the background unless a person has just done something", async () => {
    answers = [() => Promise.resolve(answer(200)), () => Promise.resolve(answer(200))];
    noteInput();
    await get();
    vi.setSystemTime(Date.now() + 60_000);
    await get();
    expect(sent.map((each) => each.headers.get("X-Background"))).toEqual([null, "1"]);
  });

  it("tells that the server is away, and changes nothing", async () => {
    answers = [lost];
    await expect(get()).rejects.toBeInstanceOf(NetworkLost);
  });

  it("shows the sign-in when the session has ended, but for the question whether there is one", async () => {
    const out = () => Promise.resolve(answer(401, { code: "unauthorized", detail: "sign in" }));
    answers = [out, out];
    await get("/v1/auth/session");
    expect(signedOut).not.toHaveBeenCalled();
    await get("/v1/deck");
    expect(signedOut).toHaveBeenCalledOnce();
  });
});

describe("problems", () => {
  it("name their fields", async () => {
    const found = await problemOf(answer(422, { code: "bad_input", detail: "too few", field: "workers", status: 422 }));
    expect([found.code, found.message, found.fields]).toEqual(["bad_input", "too few", [{ field: "workers", detail: "too few" }]]);
  });

  it("are made of answers that are none", async () => {
    const found = await problemOf(new Response("<html>", { status: 502, statusText: "Bad Gateway" }));
    expect([found.code, found.status]).toEqual(["http_502", 502]);
  });

  it("are thrown in place of a body", async () => {
    const asked = Promise.resolve({ error: { code: "not_found", detail: "no such" }, response: answer(404) });
    await expect(body(asked)).rejects.toBeInstanceOf(ProblemError);
    await expect(body(Promise.resolve({ data: { id: 1 }, response: answer(200) }))).resolves.toEqual({ id: 1 });
  });
});

it("shows what the cookie says that is bound to this host, where there is one", () => {
  expect(csrfToken()).toBe("to=ken");
  vi.spyOn(document, "cookie", "get").mockReturnValue("qd_csrf=left; __Host-qd_csrf=bound");
  expect(csrfToken()).toBe("bound");
  vi.spyOn(document, "cookie", "get").mockReturnValue("");
  expect(csrfToken()).toBeNull();
});

it("finds a cookie by its whole name", () => {
  expect(cookie("csrf", "qd_csrf=1; csrf=a=b")).toBe("a=b");
  expect(cookie("absent", "a=1")).toBeNull();
});
