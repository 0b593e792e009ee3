import {
  IconAlertTriangle,
  IconCircleCheck,
  IconCircleDashed,
  IconCircleX,
  IconClock,
  IconInfoCircle,
  IconLoader2,
  IconPlayerPause,
  IconPlayerStop,
} from "@tabler/icons-react";
import type { ComponentType } from "react";

export type Tone = "good" | "warn" | "bad" | "info" | "off";

type Sign = ComponentType<{ size?: number; "aria-hidden"?: boolean }>;

const good: [Tone, Sign] = ["good", IconCircleCheck];
const bad: [Tone, Sign] = ["bad", IconCircleX];
const warn: [Tone, Sign] = ["warn", IconAlertTriangle];
const busy: [Tone, Sign] = ["info", IconLoader2];
const waits: [Tone, Sign] = ["warn", IconClock];
const off: [Tone, Sign] = ["off", IconPlayerStop];

const LOOKS: Record<string, [Tone, Sign]> = {
  running: good, live: good, ok: good, healthy: good, alive: good, connected: good, up: good, ready: good, filled: good,
  accepted: good, enabled: good, holds: good, agreed: good, active: good, logged_in: good,
  starting: busy, stopping: busy, connecting: busy, reconnecting: busy, recovering: busy, submitted: busy, new: busy,
  pending: busy, partially_filled: busy, partial: busy, moving: busy, draining: busy, restarting: busy, working: busy,
  cancelling: busy, synchronising: busy, syncing: busy,
  waiting: waits, idle: ["off", IconClock], closed: ["off", IconClock],
  stale: warn, degraded: warn, blocked: warn, cordoned: warn, warning: warn, late: warn, unknown: warn, behind: warn,
  suspect: warn, needs_login: warn, needs_operator: warn, expired: ["warn", IconClock],
  paused: ["warn", IconPlayerPause],
  failed: bad, rejected: bad, denied: bad, dead: bad, lost: bad, down: bad, error: bad, critical: bad, away: bad,
  breached: bad, halted: bad, removed: off, refused: bad, silent: bad, disconnected: bad, gone: bad, breaks: warn, off, reconciling: busy,
  stopped: off, disabled: off, cancelled: ["off", IconCircleDashed], revoked: off, deprecated: warn,
  info: ["info", IconInfoCircle],
};

/** The tone of a state; what is not known is told neutrally. */
export function toneOf(state: string): Tone {
  return LOOKS[state.toLowerCase()]?.[0] ?? "info";
}

/** A state: a sign and its word, so never colour alone. `reason` is its title. */
export function StateBadge(given: { state: string; label?: string; reason?: string | null | undefined; tone?: Tone }) {
  const [tone, Sign] = LOOKS[given.state.toLowerCase()] ?? (["info", IconInfoCircle] as const);
  return (
    <span className="state" data-tone={given.tone ?? tone} title={given.reason || undefined}>
      <Sign size={14} aria-hidden />
      {given.label ?? given.state.replaceAll("_", " ")}
    </span>
  );
}
