import { useNow } from "@/components/values";

const here = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false, timeZoneName: "shortOffset",
});

/** The time by which pages tell theirs, and its zone. */
export function Clock() {
  const now = useNow();
  return (
    <time
      className="number muted wide-only"
      dateTime={new Date(now).toISOString()}
      title="Times on these pages are of this zone, unless they say otherwise"
    >
      {here.format(now)}
    </time>
  );
}
