/** A feed's instruments: state, age, rate, last prices; add and remove while watching. */
import { Button, Group, Skeleton } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { api, expect } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentsInput } from "@/components/InstrumentInput";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useLateFailure } from "@/components/useAct";

import type { Feed } from "./feed";
import { AllRows, MOST_PUSHED, WindowOfRows } from "./rows";

export function Instruments(given: { feed: Feed; mayManage: boolean }) {
  const { feed } = given;
  const client = useQueryClient();
  const navigate = useNavigate();
  const [dialog, confirm] = useConfirm();
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [wanted, setWanted] = useState<string[]>([]);
  const count = useQuery({
    queryKey: ["feed-instruments", feed.id, "count"],
    queryFn: () => expect(api.GET("/v1/feeds/{id}/instruments/window", { params: { path: { id: feed.id }, query: { limit: 1 } } })),
    refetchInterval: 30_000,
  });
  const Rows = (count.data?.total ?? 0) > MOST_PUSHED ? WindowOfRows : AllRows;
  const again = async () => {
    await client.invalidateQueries({ queryKey: ["feed", feed.id] });
    await client.invalidateQueries({ queryKey: ["feed-instruments", feed.id] });
  };
  const add = useMutation({
    mutationFn: () =>
      expect(api.POST("/v1/feeds/{id}/instruments", { params: { path: { id: feed.id } }, body: { instruments: wanted } })),
    onSuccess: () => {
      setWanted([]);
    },
    onError: useLateFailure(`Add instruments to ${feed.id}`),
    onSettled: again,
  });
  return (
    <>
      {dialog}
      {given.mayManage ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            add.mutate();
          }}
        >
          <Group align="end" gap="xs" my="xs" wrap="nowrap">
            <div style={{ flex: 1, maxWidth: 520 }}>
              <InstrumentsInput
                label="Add instruments"
                provider={feed.provider}
                value={wanted}
                onChange={setWanted}
                error={errorAt(add.error, "instruments")}
              />
            </div>
            <Button type="submit" disabled={!wanted.length} loading={add.isPending}>
              Add
            </Button>
          </Group>
          {isAboutNone(add.error, ["instruments"]) ? <ErrorNote error={add.error} /> : null}
        </form>
      ) : null}
      <div className="panel fill">
        {count.data || count.isError ? (
        <Rows
          feed={feed.id}
          onOpen={(each) => {
            void navigate(`/chart/${encodeURIComponent(each.id)}`);
          }}
          {...(given.mayManage ? { selected: chosen, onSelect: setChosen } : {})}
          tools={
            chosen.size ? (
              <Button
                size="compact-xs"
                variant="default"
                c="var(--qd-bad)"
                onClick={() => {
                  const names = [...chosen];
                  const left = new Set(names);
                  confirm({
                    title: names.length === 1 ? "Remove an instrument" : `Remove ${String(names.length)} instruments`,
                    children: (
                      <span className="wrap">{names.join(", ")} leave the feed, unless another client wants them there.</span>
                    ),
                    verb: "Remove",
                    danger: true,
                    act: async () => {
                      try {
                        // What is gone is not asked for again where a later one fails.
                        for (const instrument of [...left]) {
                          await expect(
                            api.DELETE("/v1/feeds/{id}/instruments/{instrument}", { params: { path: { id: feed.id, instrument } } }),
                          );
                          left.delete(instrument);
                        }
                      } finally {
                        setChosen(new Set(left));
                        await again();
                      }
                    },
                  });
                }}
              >
                Remove {String(chosen.size)}
              </Button>
            ) : undefined
          }
        />
        ) : (
          <Skeleton height={200} m="sm" />
        )}
      </div>
    </>
  );
}
