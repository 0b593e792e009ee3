/** An act of a form or a dialog: whether it is under way, and how it failed. */
import { notifications } from "@mantine/notifications";
import { useCallback, useEffect, useRef, useState } from "react";

import { Cancelled, wordsOf } from "@/api/problem";

export interface Act {
  busy: boolean;
  error: unknown;
  /** Do it, and then `done` if the form is still there; what goes wrong is in `error`. Nothing while one is under way. */
  run: (act: () => Promise<unknown>, done?: () => void) => Promise<void>;
  forget: () => void;
}

/** A dialog may be closed while its act is under way; a failure after that is told, as `what`, at the page's edge. */
export function useAct(what: string): Act {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const isShown = useRef(false);
  const isBusy = useRef(false);
  useEffect(() => {
    isShown.current = true;
    return () => {
      isShown.current = false;
    };
  }, []);
  const run = useCallback(
    async (act: () => Promise<unknown>, done?: () => void) => {
      if (isBusy.current) return;
      isBusy.current = true;
      setBusy(true);
      setError(null);
      try {
        await act();
        // By now another form may stand where this one was closed.
        if (isShown.current) done?.();
      } catch (wrong) {
        if (wrong instanceof Cancelled) return;
        if (isShown.current) setError(wrong);
        else notifications.show({ color: "red", autoClose: false, title: `${what}: it did not end well`, message: wordsOf(wrong) });
      } finally {
        isBusy.current = false;
        setBusy(false);
      }
    },
    [what],
  );
  const forget = useCallback(() => {
    setError(null);
  }, []);
  return { busy, error, run, forget };
}
