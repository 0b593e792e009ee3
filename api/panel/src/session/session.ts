/** Who is signed in. */
import { type QueryClient, type QueryFunctionContext, useQuery } from "@tanstack/react-query";

import { api, expect, type Shape } from "@/api/client";
import { ProblemError } from "@/api/problem";
import { csrfToken } from "@/api/transport";
import { store } from "@/format/store";

export type Session = Shape<"SessionNow">;
export type Step = Session["step"];

export const SESSION_KEY = ["session"] as const;

/** Why the last session of this browser is over, in the server's words; null where none was, or its user left. */
export const endedBecause = store<string | null>(null);

/** By how much the server's clock is ahead of this machine's, in milliseconds; small differences are none. */
export const serverAhead = store(0);

/** Differences up to this, in milliseconds, are the way of the answer and the full seconds of its header. */
const SAME_CLOCK = 3_000;

/** The session, null where there is none. */
async function readSession({ client }: QueryFunctionContext): Promise<Session | null> {
  const before = client.getQueryData<Session | null>(SESSION_KEY);
  const session = await askSession();
  if (before && before.id !== session?.id) forgetRead(client);
  return session;
}

async function askSession(): Promise<Session | null> {
  const asked = api.GET("/v1/auth/session");
  try {
    const session = await expect(asked);
    const ahead = Date.parse((await asked).response.headers.get("Date") ?? "") - Date.now();
    const known = Math.abs(ahead) > SAME_CLOCK ? ahead : 0;
    if (Math.abs(known - serverAhead.get()) > SAME_CLOCK) serverAhead.set(known);
    endedBecause.set(null);
    return session;
  } catch (error) {
    if (!(error instanceof ProblemError && error.status === 401)) throw error;
    noteEnd(error.body.detail);
    return null;
  }
}

/** A cookie that is still there tells that a session was: who signs out has none any more. */
function noteEnd(why: string): void {
  endedBecause.set(csrfToken() === null ? null : why);
}

export function useSession() {
  return useQuery({ queryKey: SESSION_KEY, queryFn: readSession, staleTime: 20_000, refetchInterval: 60_000, retry: 2 });
}

/** The session of somebody who is signed in; only inside the signed-in part. */
export function useMe(): Session {
  const { data } = useSession();
  if (!data) throw new Error("nobody is signed in");
  return data;
}

export function useIsOperator(): boolean {
  return useMe().roles.includes("operator");
}

/** The session is over: show the sign-in, which says why. */
export function forgetSession(client: QueryClient, why = ""): void {
  noteEnd(why);
  client.setQueryData(SESSION_KEY, null);
  forgetRead(client);
}

/** Forget what was read: who signs in next may be somebody else. */
function forgetRead(client: QueryClient): void {
  client.removeQueries({ predicate: (query) => query.queryKey[0] !== SESSION_KEY[0] });
}
