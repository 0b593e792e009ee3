/** Who is signed in. */
import { type QueryClient, useQuery } from "@tanstack/react-query";

import { api, expect, type Shape } from "@/api/client";
import { ProblemError } from "@/api/problem";

export type Session = Shape<"SessionNow">;
export type Step = Session["step"];

export const SESSION_KEY = ["session"] as const;

/** The session, null where there is none. */
export async function readSession(): Promise<Session | null> {
  try {
    return await expect(api.GET("/v1/auth/session"));
  } catch (error) {
    if (error instanceof ProblemError && error.status === 401) return null;
    throw error;
  }
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

/** The session is over: show the sign-in, forget what was read. */
export function forgetSession(client: QueryClient): void {
  client.setQueryData(SESSION_KEY, null);
  client.removeQueries({ predicate: (query) => query.queryKey[0] !== SESSION_KEY[0] });
}
