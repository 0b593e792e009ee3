import { Badge, Group } from "@mantine/core";

/** Labels as `key=value`. */
export function Labels(given: { labels: Record<string, string> }) {
  const all = Object.entries(given.labels).sort(([a], [b]) => a.localeCompare(b));
  if (!all.length) return <span className="muted">none</span>;
  return (
    <Group gap={4}>
      {all.map(([key, value]) => (
        <Badge key={key} tt="none" color="gray">
          {key}={value}
        </Badge>
      ))}
    </Group>
  );
}

/** `key=value, key=value` as labels; null where that is not what the text says. */
export function readLabels(text: string): Record<string, string> | null {
  const labels: Record<string, string> = {};
  for (const part of text.split(/[,\n]/)) {
    if (!part.trim()) continue;
    const [key = "", ...rest] = part.split("=");
    if (!key.trim() || rest.length !== 1) return null;
    labels[key.trim()] = (rest[0] ?? "").trim();
  }
  return labels;
}

export function labelsText(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}
