import { Alert, Button, Group, List } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useState } from "react";

import { Cancelled, OutcomeUnknown, outcomeOf, ProblemError, wordsOf } from "@/api/problem";

/** An error in words, with what can be done about it. Nothing for what a person cancelled. */
export function ErrorNote(given: {
  error: unknown;
  title?: string;
  retry?: (() => void) | undefined;
  /** The form around has its own way of asking whether it happened. */
  asksItself?: boolean;
}) {
  const { error } = given;
  const [asked, setAsked] = useState<{ about: unknown; busy: boolean; told: string | null; isKnown: boolean } | null>(null);
  if (error == null || error instanceof Cancelled) return null;
  const problem = error instanceof ProblemError ? error.body : null;
  const ask = error instanceof OutcomeUnknown && !given.asksItself ? error : null;
  // What was learnt is of one action; another that fails is asked for anew.
  const learnt = asked?.about === error ? asked : null;
  const learn = async (about: OutcomeUnknown) => {
    setAsked({ about, busy: true, told: null, isKnown: false });
    try {
      const { happened, said } = await outcomeOf(await about.again());
      const told =
        happened === null
          ? `It is still not known whether it happened. The server says: ${said}`
          : happened
            ? `It happened: the server has done it. ${said}`.trim()
            : `It did not happen: the server refused it. ${said}`;
      setAsked({ about, busy: false, told, isKnown: happened !== null });
    } catch (other) {
      const told = other instanceof Cancelled ? "Nobody was asked: it is still not known whether it happened." : wordsOf(other);
      setAsked({ about, busy: false, told, isKnown: false });
    }
  };
  return (
    <Alert
      color={error instanceof OutcomeUnknown ? "yellow" : "red"}
      variant="light"
      icon={<IconAlertTriangle size={18} aria-hidden />}
      title={given.title ?? problem?.title ?? (error instanceof OutcomeUnknown ? "Outcome unknown" : "It did not work")}
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
      {learnt?.told ? <strong className="wrap">{learnt.told}</strong> : null}
      <Group gap="xs" mt={given.retry || ask ? 6 : 0}>
        {ask && !learnt?.isKnown ? (
          <Button loading={learnt?.busy ?? false} onClick={() => void learn(ask)}>
            Ask again whether it happened
          </Button>
        ) : null}
        {given.retry ? (
          <Button variant="default" onClick={given.retry}>
            Try again
          </Button>
        ) : null}
      </Group>
    </Alert>
  );
}
