import { Alert, Loader } from "@mantine/core";

import { store, useStore } from "@/format/store";

/** Actions whose answer has not come because the connection went; they are asked for again. */
const uncertain = store<readonly { what: string }[]>([]);

/** Tell of one of them, until what this gives back is called. */
export function tellUncertain(what: string): () => void {
  const act = { what };
  uncertain.set([...uncertain.get(), act]);
  return () => {
    uncertain.set(uncertain.get().filter((each) => each !== act));
  };
}

export function UncertainNote() {
  const acts = useStore(uncertain);
  const one = acts.length === 1;
  return (
    <div role="status">
      {acts.length === 0 ? null : (
        <Alert
          color="yellow"
          icon={<Loader size={16} color="yellow" />}
          p="xs"
          m="xs"
          title={one ? "Asking whether it happened" : `Asking whether ${String(acts.length)} actions happened`}
        >
          The connection went in the middle of {acts.map(({ what }) => `“${what}”`).join(", ")}.{" "}
          {one ? "It is asked for again with the same key, so it" : "Each is asked for again with its own key, so none"}{" "}
          {one ? "cannot act twice." : "can act twice."}
        </Alert>
      )}
    </div>
  );
}

/** The message about an action whose answer the end of the session cut off; it stays until it is closed. */
export const lostSight = (what: string) => ({
  color: "yellow",
  autoClose: false,
  title: "Outcome unknown",
  message: `The session ended before the answer to “${what}” came: whether it happened is not known. Sign in and look what is there before you do it again.`,
});
