/** One feed: workers with their shares, instruments, and what was kept out or missed. */
import { Button, Group, NumberInput, Tabs } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useNavigate } from "react-router";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { StateBadge } from "@/components/StateBadge";
import { useLateFailure } from "@/components/useAct";
import { useMe } from "@/session/session";
import { useStale } from "@/stream/hooks";
import { useView } from "@/stream/views";

import { type Feed, MANAGES, stateOf, whyOf } from "./feed";
import { Gaps, Quarantine } from "./Missed";
import { Instruments } from "./Instruments";
import { Tuning } from "./Tuning";
import { Workers } from "./Workers";

export function FeedDetail(given: { id: string }) {
  const { rights } = useMe();
  const mayManage = rights.includes(MANAGES);
  const query = useView({
    path: `feeds/${given.id}?instruments=false`,
    queryKey: ["feed", given.id],
    read: () => expect(api.GET("/v1/feeds/{id}", { params: { path: { id: given.id }, query: { instruments: false } } })),
  });
  const isStale = useStale() || query.isError;
  const feed = query.data;
  if (query.isPending) return <p className="muted">Reading…</p>;
  if (!feed) return <ErrorNote error={query.error} title={`Feed ${given.id} cannot be shown`} retry={() => void query.refetch()} />;
  return (
    <>
      <Panel
        title={`Workers of ${feed.id}`}
        stale={isStale}
        actions={<StateBadge state={stateOf(feed)} reason={whyOf(feed)} />}
      >
        {whyOf(feed) ? <p className="wrap">{whyOf(feed)}</p> : null}
        {mayManage ? <Steer feed={feed} /> : null}
        <Workers feed={feed} />
      </Panel>
      <Tabs defaultValue="instruments" keepMounted={false} className="fill">
        <Tabs.List>
          <Tabs.Tab value="instruments">Instruments</Tabs.Tab>
          <Tabs.Tab value="quarantine">Quarantine</Tabs.Tab>
          <Tabs.Tab value="gaps">Gaps</Tabs.Tab>
          <Tabs.Tab value="tuning">Tuning and standby</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="instruments" className="fill">
          <Instruments feed={feed} mayManage={mayManage} />
        </Tabs.Panel>
        <Tabs.Panel value="quarantine" className="fill">
          <Quarantine id={feed.id} />
        </Tabs.Panel>
        <Tabs.Panel value="gaps" className="fill">
          <Gaps id={feed.id} />
        </Tabs.Panel>
        <Tabs.Panel value="tuning">
          <Tuning feed={feed} mayManage={mayManage} />
        </Tabs.Panel>
      </Tabs>
    </>
  );
}

/** The worker count, the switch, the end. */
function Steer(given: { feed: Feed }) {
  const { feed } = given;
  const client = useQueryClient();
  const navigate = useNavigate();
  const [dialog, confirm] = useConfirm();
  const [workers, setWorkers] = useState<number | string>(feed.workers);
  useEffect(() => {
    setWorkers(feed.workers);
  }, [feed.workers]);
  const params = { path: { id: feed.id } };
  const change = useMutation({
    mutationFn: (body: { workers?: number; enabled?: boolean }) => expect(api.PATCH("/v1/feeds/{id}", { params, body })),
    onError: useLateFailure(`Change ${feed.id}`),
    onSettled: () => client.invalidateQueries({ queryKey: ["feed", feed.id] }),
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        change.mutate({ workers: Number(workers) });
      }}
    >
      {dialog}
      <Group align="end" gap="xs" mb="sm">
        <NumberInput
          label="Workers"
          w={110}
          min={1}
          max={feed.capacity?.max_workers ?? 1000}
          clampBehavior="none"
          value={workers}
          error={errorAt(change.error, "workers")}
          onChange={setWorkers}
        />
        <Button type="submit" loading={change.isPending} disabled={Number(workers) === feed.workers || !Number(workers)}>
          Change workers
        </Button>
        <Button
          variant="default"
          onClick={() => {
            if (!feed.enabled) change.mutate({ enabled: true });
            else
              confirm({
                title: `Switch ${feed.id} off`,
                children: "Its workers end. Algos on it are told that their prices are stale, paper accounts get none.",
                verb: `Switch ${feed.id} off`,
                danger: true,
                act: () => change.mutateAsync({ enabled: false }),
              });
          }}
        >
          {feed.enabled ? "Switch off" : "Switch on"}
        </Button>
        <Button
          variant="default"
          c="var(--qd-bad)"
          onClick={() => {
            confirm({
              title: `Delete ${feed.id}`,
              children: "The feed and what its clients asked for are forgotten. History stays.",
              verb: `Delete ${feed.id}`,
              danger: true,
              typed: feed.id,
              act: async () => {
                await expect(api.DELETE("/v1/feeds/{id}", { params: { ...params, query: {} } }));
                await client.invalidateQueries({ queryKey: ["feeds"] });
                void navigate("/feeds");
              },
            });
          }}
        >
          Delete
        </Button>
        {feed.capacity ? (
          <span className="muted">
            {String(feed.capacity.wanted)} wanted; room for {String(feed.capacity.spare)} more, for{" "}
            {String(feed.capacity.spare_at_most)} with {String(feed.capacity.max_workers)} workers
          </span>
        ) : null}
      </Group>
      {isAboutNone(change.error, ["workers"]) ? <ErrorNote error={change.error} /> : null}
    </form>
  );
}
