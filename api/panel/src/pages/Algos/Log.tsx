import { Checkbox, Group, Select, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { memo, useEffect, useRef, useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { StateBadge } from "@/components/StateBadge";
import { Connection } from "@/stream/connection";
import { formatTime } from "@/format/time";

type Line = Shape<"LogLineShown">;
type Level = "debug" | "info" | "warning" | "error";

const MOST = 2_000;
const RANK: Record<string, number> = { debug: 0, info: 1, warning: 2, error: 3, critical: 4 };
const TONES: Record<string, string> = { warning: "warn", error: "bad", critical: "bad", info: "info" };

/** An algo's log: the newest lines, and each that is written from then on. */
export function Log({ id }: { id: string }) {
  const [level, setLevel] = useState<Level>("debug");
  const [wanted, setWanted] = useState("");
  const [text] = useDebouncedValue(wanted.trim(), 250);
  const [lines, setLines] = useState<Line[]>([]);
  const [state, setState] = useState("connecting");
  const [error, setError] = useState<unknown>(null);
  const [again, setAgain] = useState(0);
  const [follows, setFollows] = useState(true);
  const box = useRef<HTMLDivElement>(null);

  useEffect(() => {
    let gone = false;
    let link: Connection | null = null;
    const topic = `algo-log:${id}`;
    const fits = (line: Line) =>
      (RANK[line.level] ?? 1) >= (RANK[level] ?? 0) && (!text || line.text.toLowerCase().includes(text.toLowerCase()));
    const begin = async () => {
      setError(null);
      try {
        // The place first: what is written after it comes by the stream, and twice at worst, which the numbers tell.
        const newest = await expect(api.GET("/v1/algos/{id}/logs", { params: { path: { id }, query: { limit: 1 } } }));
        const page = await expect(
          api.GET("/v1/algos/{id}/logs", {
            params: { path: { id }, query: { limit: 500, level, ...(text ? { text } : {}) } },
          }),
        );
        if (gone) return;
        setLines(page.items);
        // A connection of its own: logs can be asked for in a first message only.
        const own = new Connection({ topics: [topic], places: { [topic]: Number(newest.next ?? 0) } });
        link = own;
        own.onStatus(() => {
          setState(own.status.state);
        });
        own.onChanges(topic, (changes) => {
          const fresh = changes.map((each) => each.body as Line).filter(fits);
          if (!fresh.length) return;
          setLines((known) => {
            const after = known.at(-1)?.number ?? 0;
            return [...known, ...fresh.filter((each) => each.number > after)].slice(-MOST);
          });
        });
        own.start();
      } catch (wrong) {
        if (!gone) setError(wrong);
      }
    };
    void begin();
    return () => {
      gone = true;
      link?.stop();
    };
  }, [id, level, text, again]);

  useEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follows]);

  return (
    <Panel
      title="Log"
      flush
      fill
      actions={<StateBadge state={state} label={state === "connected" ? "live" : state} />}
    >
      <Group gap="xs" p={6} style={{ borderBottom: "1px solid var(--qd-line)" }}>
        <Select
          aria-label="Level"
          w={130}
          value={level}
          onChange={(value) => {
            setLevel((value ?? "debug") as Level);
          }}
          data={[
            { value: "debug", label: "everything" },
            { value: "info", label: "info and graver" },
            { value: "warning", label: "warnings" },
            { value: "error", label: "errors" },
          ]}
        />
        <TextInput aria-label="Only lines with" placeholder="Only lines with…" maxLength={200} value={wanted} onChange={(event) => { setWanted(event.currentTarget.value); }} />
        <Checkbox size="xs" label="Follow" checked={follows} onChange={(event) => { setFollows(event.currentTarget.checked); }} />
        <span className="muted">{lines.length} lines</span>
      </Group>
      <ErrorNote error={error} retry={() => { setAgain(again + 1); }} />
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a scrolled part must be reachable by keys */}
      <div className={`log${state === "connected" ? "" : " stale"}`} ref={box} role="log" aria-label={`Log of ${id}`} tabIndex={0}>
        {lines.length ? null : <span className="muted">{error ? "" : "No line yet"}</span>}
        {lines.map((line) => (
          <LogLine key={line.number} line={line} />
        ))}
      </div>
    </Panel>
  );
}

const LogLine = memo(function LogLine({ line }: { line: Line }) {
  const fields = Object.entries(line.fields);
  return (
    <div>
      <time dateTime={line.at} title={line.at} className="muted">
        {formatTime(line.at)}
      </time>
      <span className="state" data-tone={TONES[line.level] ?? "off"}>
        {line.level}
      </span>
      <span>
        {line.text}
        {fields.map(([name, value]) => (
          <span key={name} className="muted">
            {" "}
            {name}={typeof value === "string" ? value : JSON.stringify(value)}
          </span>
        ))}
      </span>
    </div>
  );
});
