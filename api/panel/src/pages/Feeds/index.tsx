/** Feeds: providers, workers and how they share the instruments, and how each instrument does. */
import { Button } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { useNavigate, useParams } from "react-router";

import { readAll } from "@/api/all";
import { api, expect } from "@/api/client";
import { type Column, DataTable } from "@/components/DataTable";
import { Page, Panel } from "@/components/Page";
import { Stat } from "@/components/Stat";
import { StateBadge } from "@/components/StateBadge";
import { formatNumber } from "@/format/measure";
import { useMe } from "@/session/session";
import { useChanges, useStale } from "@/stream/hooks";
import { useView, wholeList } from "@/stream/views";

import { type Feed, MANAGES, stateOf, whyOf } from "./feed";
import { FeedDetail } from "./FeedDetail";
import { NewFeed } from "./NewFeed";

/** Which instruments they have is not shown here, and may be much. */
const countFeeds = () => readAll((cursor) => expect(api.GET("/v1/feeds", { params: { query: { limit: 1_000, instruments: false, cursor } } })));

const columns: Column<Feed>[] = [
  { id: "id", header: "Feed", value: (feed) => feed.id, width: 130 },
  { id: "provider", header: "Provider", value: (feed) => feed.provider, width: 120 },
  {
    id: "state", header: "State", value: stateOf, width: 110,
    cell: (feed) => <StateBadge state={stateOf(feed)} reason={whyOf(feed)} />,
  },
  { id: "instruments", header: "Instruments", value: (feed) => Object.values(feed.assigned).reduce((all, each) => all + each, 0), kind: "number", width: 100 },
  {
    id: "workers", header: "Workers", value: (feed) => feed.live.filter((each) => each.connected).length, kind: "number", width: 100,
    cell: (feed) => `${String(feed.live.filter((each) => each.connected).length)} of ${String(feed.workers)}`,
  },
  { id: "rate", header: "Ticks/s", value: (feed) => feed.rate, kind: "number", width: 90, cell: (feed) => formatNumber(feed.rate) },
  { id: "ticks", header: "Ticks", value: (feed) => feed.ticks, kind: "number", width: 110, cell: (feed) => formatNumber(feed.ticks) },
  {
    id: "reconnects", header: "Reconnects", value: (feed) => feed.live.reduce((all, each) => all + each.reconnects, 0),
    kind: "number", width: 90, hidden: true,
  },
  { id: "channels", header: "Channels", value: (feed) => feed.channels.join(", "), width: 140 },
  { id: "why", header: "Why", value: whyOf, width: 260 },
];

export default function Feeds() {
  const { rights } = useMe();
  const { id: open = null } = useParams();
  const navigate = useNavigate();
  const [adding, setAdding] = useState(false);
  const query = useView({ path: "feeds?instruments=false", queryKey: ["feeds", "counted"], read: countFeeds, from: wholeList<Feed> });
  // A feed that somebody adds or changes shows at once.
  useChanges("feeds", () => void query.refetch());
  const feeds = useMemo(() => query.data?.items ?? [], [query.data]);
  const isStale = useStale() || query.isError;
  const count = (states: string[]) => feeds.filter((feed) => states.includes(stateOf(feed))).length;
  return (
    <Page
      title="Feeds"
      actions={
        rights.includes(MANAGES) ? (
          <Button
            leftSection={<IconPlus size={14} aria-hidden />}
            onClick={() => {
              setAdding(true);
            }}
          >
            Add a feed
          </Button>
        ) : undefined
      }
    >
      <div className="stats">
        <Stat label="Feeds live" value={`${String(count(["live", "moving"]))} / ${String(feeds.length)}`} loading={query.isLoading} stale={isStale} />
        <Stat
          label="Workers connected"
          value={feeds.reduce((all, feed) => all + feed.live.filter((each) => each.connected).length, 0)}
          hint={`of ${String(feeds.reduce((all, feed) => all + (feed.enabled ? feed.workers : 0), 0))} wanted`}
          loading={query.isLoading}
          stale={isStale}
        />
        <Stat label="Ticks a second" value={formatNumber(feeds.reduce((all, feed) => all + feed.rate, 0))} loading={query.isLoading} stale={isStale} />
        <Stat
          label="In quarantine"
          value={formatNumber(feeds.reduce((all, feed) => all + feed.live.reduce((sum, each) => sum + (each.quarantined ?? 0), 0), 0))}
          hint="ticks since the workers began"
          loading={query.isLoading}
          stale={isStale}
        />
      </div>
      <Panel title="Feeds" flush fill={open === null}>
        <DataTable
          name="feeds"
          label="Feeds"
          rows={feeds}
          columns={columns}
          rowId={(feed) => feed.id}
          sort="id"
          {...(open === null ? {} : { height: 150 })}
          loading={query.isLoading}
          error={query.error}
          retry={() => void query.refetch()}
          stale={isStale}
          openId={open}
          onOpen={(feed) => {
            void navigate(`/feeds/${encodeURIComponent(feed.id)}`);
          }}
          empty={{ title: "There is no feed yet", hint: "Add one: algos and paper accounts need prices." }}
        />
      </Panel>
      {open === null ? null : <FeedDetail key={open} id={open} />}
      {adding ? (
        <NewFeed
          onClose={() => {
            setAdding(false);
          }}
        />
      ) : null}
    </Page>
  );
}
