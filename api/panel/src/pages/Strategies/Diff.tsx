import "./diff.css";

export type LineKind = "added" | "removed" | "place" | "same";

/** What a line of a unified diff says. */
export function kindOf(line: string): LineKind {
  if (line.startsWith("@@") || line.startsWith("+++") || line.startsWith("---")) return "place";
  if (line.startsWith("+")) return "added";
  return line.startsWith("-") ? "removed" : "same";
}

/** A unified diff; the signs in front tell what the colours do. */
export function Diff(given: { text: string }) {
  return (
    // Scrolled by the keyboard too.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <pre className="diff" tabIndex={0} aria-label="Differences">
      {given.text.split("\n").map((line, index) => (
        <div key={index} data-kind={kindOf(line)}>
          {line || " "}
        </div>
      ))}
    </pre>
  );
}
