/** Says before a session ends that it will, and keeps it while a person is at it. */
import { Alert, Button, Group } from "@mantine/core";
import { IconClock } from "@tabler/icons-react";
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";

import { api, expect, wordsOf } from "@/api/client";
import { lastInputAt, noteInput } from "@/api/transport";
import { useNow } from "@/components/values";
import { useStore } from "@/format/store";
import { formatCountdown, formatTime, instant } from "@/format/time";

import { serverAhead, SESSION_KEY, useSession } from "./session";

/** It is said so long before the end, in milliseconds. */
const WARN = 120_000;
/** While the end is near it is asked so often whether another tab or another page has put it off. */
const LOOK_EVERY = 10_000;
/** What a person does puts the end off once in so long at most. */
const RENEW_EVERY = 60_000;
/** To other tabs of this browser, which have the same session. */
const CHANNEL = "quarterdeck-session";

/** Put the idle end off, on behalf of a person. */
async function renew(client: QueryClient): Promise<void> {
  await expect(api.GET("/v1/me"));
  await client.invalidateQueries({ queryKey: SESSION_KEY });
}

/** The notice; nothing is drawn while the end is far. Once for all pages. */
export function SessionEnd() {
  const client = useQueryClient();
  const session = useSession();
  const now = useNow();
  const ahead = useStore(serverAhead);
  const [hidden, setHidden] = useState<number | null>(null);
  const [kept, setKept] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const channel = useRef<BroadcastChannel | null>(null);
  // Of the input that put the end off last.
  const renewedAt = useRef(lastInputAt());
  const { data, isFetching } = session;
  const idleEnd = instant(data?.idle_ends_at) - ahead;
  const end = instant(data?.ends_at) - ahead;
  const ends = Math.min(idleEnd, end);
  const isIdle = idleEnd < end;
  const left = ends - now;
  const lookedAt = Math.max(session.dataUpdatedAt, session.errorUpdatedAt);
  // What was read before may be old: a page or a tab that was used since has put it off.
  const warns = left <= WARN && lookedAt >= ends - WARN && hidden !== ends;

  useEffect(() => {
    const opened = new BroadcastChannel(CHANNEL);
    opened.onmessage = () => void client.invalidateQueries({ queryKey: SESSION_KEY });
    channel.current = opened;
    return () => {
      channel.current = null;
      opened.close();
    };
  }, [client]);

  useEffect(() => {
    const isDue = lookedAt < ends - WARN || now - lookedAt >= LOOK_EVERY || (left < 0 && lookedAt < ends);
    if (left <= WARN && isDue && !isFetching) void client.invalidateQueries({ queryKey: SESSION_KEY });
  }, [client, ends, isFetching, left, lookedAt, now]);

  const stay = async () => {
    // A click by a screen reader, or by a program for one, comes without a key or a pointer.
    noteInput();
    renewedAt.current = lastInputAt();
    setBusy(true);
    setError(null);
    try {
      await renew(client);
      setKept(true);
      channel.current?.postMessage("renewed");
    } catch (wrong) {
      setError(wrong);
    } finally {
      setBusy(false);
    }
  };

  // Pages that only listen ask for nothing: what a person does there must put the end off as well.
  useEffect(() => {
    const input = lastInputAt();
    if (!isIdle || input - renewedAt.current < RENEW_EVERY) return;
    renewedAt.current = input;
    renew(client).then(
      () => channel.current?.postMessage("renewed"),
      // Shown where the end is near; what is done later tries again.
      setError,
    );
  }, [client, isIdle, now]);

  const isNear = left <= WARN;
  useEffect(() => {
    setError(null);
    if (isNear) setKept(false);
  }, [isNear]);

  return (
    <div className="session-end">
      <div role="status" className="hidden-label">
        {kept ? "You stay signed in." : ""}
      </div>
      {warns ? (
        <Alert color="yellow" p="xs" icon={<IconClock size={18} aria-hidden />} title={`You will be signed out at ${formatTime(new Date(ends).toISOString())}`}>
          <div>
            {isIdle
              ? "Nobody has used this session for a while."
              : "A session has a longest time, and this one has reached it: sign in again afterwards."}{" "}
            What is typed into a form and not sent is lost then. Algos and orders are not touched.
          </div>
          {error === null ? null : <div>It could not be put off: {wordsOf(error)}</div>}
          <Group gap="sm" mt={6}>
            {isIdle ? (
              <Button
                loading={busy}
                onClick={() => {
                  void stay();
                }}
              >
                Stay signed in
              </Button>
            ) : (
              <Button
                variant="default"
                onClick={() => {
                  setHidden(ends);
                }}
              >
                I have seen it
              </Button>
            )}
            {/* Not told each second. */}
            <span className="number" aria-hidden>
              in {formatCountdown(left)}
            </span>
          </Group>
        </Alert>
      ) : null}
    </div>
  );
}
