import { useCallback, useEffect, useRef } from "react";

/**
 * A function that asks for `run`: it runs a while after, so that what comes together is done together, and not more
 * often than `everyMs`. Whenever it is asked for, it runs once more after that.
 */
export function useSpaced(run: () => void, afterMs: number, everyMs: number): () => void {
  const latest = useRef(run);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  const next = useRef(0);
  useEffect(() => {
    latest.current = run;
  });
  useEffect(
    () => () => {
      if (timer.current) clearTimeout(timer.current);
      timer.current = null;
    },
    [],
  );
  return useCallback(() => {
    timer.current ??= setTimeout(
      () => {
        timer.current = null;
        next.current = Date.now() + everyMs;
        latest.current();
      },
      Math.max(afterMs, next.current - Date.now()),
    );
  }, [afterMs, everyMs]);
}
