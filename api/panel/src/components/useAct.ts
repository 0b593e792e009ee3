/** An act of a form or a dialog: whether it is under way, and how it failed. */
import { notifications } from "@mantine/notifications";
import { useCallback, useEffect, useRef, useState } from "react";

import { Cancelled, wordsOf } from "@/api/problem";

export interface Act {
  busy: boolean;
  error: unknown;
  /**
   * Do it, and then `done` if the form is still there; what goes wrong is in `error`. Nothing while one is under way.
   *
   * Where the form is gone by then, what `left` makes of the result is told: null is nothing.
   */
  run: <Result>(
    act: () => Promise<Result>,
    done?: (result: Result) => void,
    left?: (result: Result) => Told | null,
  ) => Promise<void>;
  forget: () => void;
}

export interface Told {
  title: string;
  message: string;
  /** Somebody has to look at it. */
  isBad: boolean;
}

/**
 * A dialog may be closed while its act is under way; a failure after that is told, as `what`, at the page's edge. So is what
 * was refused of an act that went through otherwise, which only its form can tell (`left`).
 */
export function useAct(what: string): Act {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const isShown = useIsShown();
  const isBusy = useRef(false);
  const run = useCallback(
    async <Result>(act: () => Promise<Result>, done?: (result: Result) => void, left?: (result: Result) => Told | null) => {
      if (isBusy.current) return;
      isBusy.current = true;
      setBusy(true);
      setError(null);
      try {
        const result = await act();
        // By now another form may stand where this one was closed.
        if (isShown.current) done?.(result);
        else tell(left?.(result) ?? null);
      } catch (wrong) {
        if (wrong instanceof Cancelled) return;
        if (isShown.current) setError(wrong);
        else tellFailed(what, wrong);
      } finally {
        isBusy.current = false;
        setBusy(false);
      }
    },
    [what, isShown],
  );
  const forget = useCallback(() => {
    setError(null);
  }, []);
  return { busy, error, run, forget };
}

/** For `onError` of a mutation: a failure after its form is gone is told as that of `what`, at the page's edge. */
export function useLateFailure(what: string): (wrong: unknown) => void {
  const isShown = useIsShown();
  return useCallback(
    (wrong: unknown) => {
      if (!isShown.current && !(wrong instanceof Cancelled)) tellFailed(what, wrong);
    },
    [what, isShown],
  );
}

function useIsShown() {
  const isShown = useRef(false);
  useEffect(() => {
    isShown.current = true;
    return () => {
      isShown.current = false;
    };
  }, []);
  return isShown;
}

/** A mutation in a dialog of a form that is gone too has two that would tell. */
const told = new WeakSet();

function tellFailed(what: string, wrong: unknown): void {
  if (typeof wrong === "object" && wrong !== null) {
    if (told.has(wrong)) return;
    told.add(wrong);
  }
  tell({ title: `${what}: it did not end well`, message: wordsOf(wrong), isBad: true });
}

function tell(what: Told | null): void {
  if (!what) return;
  const { title, message, isBad } = what;
  notifications.show({ title, message, style: { whiteSpace: "pre-line" }, ...(isBad ? { color: "red", autoClose: false } : {}) });
}
