import { Alert, Button, Group, List } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useState } from "react";

import { Cancelled, OutcomeUnknown, ProblemError, wordsOf } from "@/api/problem";

/** An error in words, with what can be done about it. Nothing for what a person cancelled. */
export function ErrorNote(given: { error: unknown; title?: string; retry?: (() => void) | undefined }) {
  const [told, setTold] = useState<string | null>(null);
  const { error } = given;
  if (error == null || error instanceof Cancelled) return null;
  const problem = error instanceof ProblemError ? error.body : null;
  const ask = error instanceof OutcomeUnknown ? error : null;
  const learn = () => {
    ask?.again().then(
      (answer) => {
        setTold(answer.ok ? "It happened: the server has done it." : "It did not happen: the server refused it.");
      },
      (other: unknown) => {
        setTold(wordsOf(other));
      },
    );
  };
  return (
    <Alert
      color={ask ? "yellow" : "red"}
      variant="light"
      icon={<IconAlertTriangle size={18} aria-hidden />}
      title={given.title ?? problem?.title ?? (ask ? "Outcome unknown" : "It did not work")}
      role="alert"
      p="xs"
    >
      {problem?.violations && problem.violations.length > 1 ? (
        <List size="sm">
          {problem.violations.map((each) => (
            <List.Item key={each}>{each}</List.Item>
          ))}
        </List>
      ) : (
        <div className="wrap">{wordsOf(error)}</div>
      )}
      {problem?.action ? <div className="wrap">What to do: {problem.action}</div> : null}
      {told !== null && <strong>{told}</strong>}
      <Group gap="xs" mt={given.retry || ask ? 6 : 0}>
        {ask && told === null ? <Button onClick={learn}>Ask again whether it happened</Button> : null}
        {given.retry ? (
          <Button variant="default" onClick={given.retry}>
            Try again
          </Button>
        ) : null}
      </Group>
    </Alert>
  );
}
