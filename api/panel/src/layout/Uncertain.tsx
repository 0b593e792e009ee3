import { Alert, Loader } from "@mantine/core";

import { store, useStore } from "@/format/store";

/** Actions whose answer has not come because the connection went; they are asked for again. */
export const uncertain = store<string | null>(null);

export function UncertainNote() {
  const what = useStore(uncertain);
  return (
    <div role="status">
      {what === null ? null : (
        <Alert color="yellow" icon={<Loader size={16} color="yellow" />} p="xs" m="xs" title="Asking whether it happened">
          The connection went in the middle of “{what}”. It is asked for again with the same key, so it cannot act twice.
        </Alert>
      )}
    </div>
  );
}
