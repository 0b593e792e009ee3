import { IconCloudOff, IconPlugConnected, IconPlugConnectedX, IconRefresh } from "@tabler/icons-react";

import { useNow } from "@/components/values";
import { formatSpan } from "@/format/time";
import { useLink } from "@/stream/hooks";

const WORDS = {
  connected: ["good", IconPlugConnected, "Live"],
  connecting: ["info", IconRefresh, "Connecting"],
  reconnecting: ["warn", IconRefresh, "Reconnecting"],
  lost: ["bad", IconCloudOff, "Connection lost"],
  refused: ["bad", IconPlugConnectedX, "Refused"],
} as const;

/** How the connection is, for eyes and for screen readers. */
export function LinkSign() {
  const link = useLink();
  const now = useNow();
  const [tone, Sign, words] = WORDS[link.state];
  const since = link.state === "connected" ? "" : ` ${formatSpan(now - link.since)}`;
  return (
    <>
      <span className="state" data-tone={tone} title={link.detail || undefined}>
        <Sign size={15} aria-hidden />
        <span className={link.state === "connected" ? "wide-only" : ""}>
          {words}
          {since}
        </span>
      </span>
      <span className="hidden-label" aria-live="polite">
        {link.state === "connected" ? "Live" : `${words}: what is shown may be old`}
      </span>
    </>
  );
}
