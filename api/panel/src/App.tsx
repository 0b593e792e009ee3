import { Button, Center, Loader } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { useQueryClient } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useEffect, useState } from "react";
import { BrowserRouter, Route, Routes } from "react-router";

import { ErrorNote } from "@/components/ErrorNote";
import { Page } from "@/components/Page";
import { Frame } from "@/layout/Frame";
import { type PageEntry, pages } from "@/pages";
import { FreshCodeDialog } from "@/session/FreshCode";
import { SessionEnd } from "@/session/SessionEnd";
import { SESSION_KEY, useIsOperator, useSession } from "@/session/session";
import { Connection } from "@/stream/connection";
import { StreamContext } from "@/stream/hooks";

const SignIn = lazy(() => import("@/session/SignIn").then(({ SignIn: page }) => ({ default: page })));

/** The panel: the sign-in until it is done, then the pages. */
export function App() {
  const session = useSession();
  return (
    <>
      <Notifications position="bottom-right" autoClose={6_000} limit={4} />
      <FreshCodeDialog />
      {session.isPending ? (
        <Center h="100dvh">
          <Loader aria-label="Loading" />
        </Center>
      ) : session.isError && !session.data ? (
        <div className="gate">
          <main>
            <h1 className="hidden-label">Quarterdeck</h1>
            <ErrorNote error={session.error} title="The server cannot be asked" />
            <Button mt="sm" onClick={() => void session.refetch()} loading={session.isFetching}>
              Try again
            </Button>
          </main>
        </div>
      ) : session.data?.step === "done" ? (
        <SignedIn key={session.data.id}>
          <BrowserRouter>
            <Routes>
              <Route element={<Frame />}>
                {pages.flatMap((each) =>
                  [each.path, ...(each.more ?? [])].map((path) => (
                    <Route key={path} path={path} element={<Guarded entry={each} />} />
                  )),
                )}
                <Route path="*" element={<Nowhere />} />
              </Route>
            </Routes>
          </BrowserRouter>
        </SignedIn>
      ) : (
        <Suspense fallback={null}>
          <SignIn />
        </Suspense>
      )}
    </>
  );
}

/** What lives as long as a session: its stream. */
function SignedIn(given: { children: ReactNode }) {
  const client = useQueryClient();
  const [stream] = useState(
    () => new Connection({ topics: ["orders", "portfolio", "algos", "feeds", "alerts"], perSecond: 20 }),
  );
  useEffect(() => {
    stream.onSignedOut = () => void client.invalidateQueries({ queryKey: SESSION_KEY });
    const forget = stream.onReset(() => void client.invalidateQueries());
    stream.start();
    return () => {
      forget();
      stream.stop();
    };
  }, [stream, client]);
  return (
    <StreamContext value={stream}>
      <SessionEnd />
      {given.children}
    </StreamContext>
  );
}

/** A page, for those whom it is for. */
function Guarded({ entry }: { entry: PageEntry }) {
  const operator = useIsOperator();
  if (!entry.operator || operator) return <entry.page />;
  return (
    <Page title={entry.title}>
      <p className="muted">This page is for operators. Ask one of them if you need what is here.</p>
    </Page>
  );
}

function Nowhere() {
  return (
    <Page title="Nothing is here">
      <p className="muted">There is no page at this address.</p>
    </Page>
  );
}
