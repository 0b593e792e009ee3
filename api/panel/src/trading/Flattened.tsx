import { List, Stack, Text } from "@mantine/core";

import type { Shape } from "@/api/client";
import { StateBadge } from "@/components/StateBadge";
import type { Told } from "@/components/useAct";

/** What must be told of it where nobody sees it below: null where nothing stood in the way. */
export function notClosed(account: string, { refused }: Shape<"FlattenShown">): Told | null {
  if (!refused.length) return null;
  return { title: `Flattening ${account}: not all of it was closed`, message: refused.map((each) => each.detail).join("\n"), isBad: true };
}

/** What came of flattening an account: what closes it, or what stands in the way and what to do about it. */
export function Flattened({ account, done }: { account: string; done: Shape<"FlattenShown"> }) {
  const { cancelled, closing, refused } = done;
  const orders = (count: number) => `${String(count)} ${count === 1 ? "order" : "orders"}`;
  const isOpen = refused.some((each) => each.code === "orders_are_open");
  return (
    <Stack gap="xs">
      <StateBadge
        state={refused.length ? "warning" : "ok"}
        label={`${orders(cancelled)} of ${account} ${cancelled === 1 ? "is" : "are"} being taken back`}
      />
      {closing.length ? <Text>{orders(closing.length)} to close its positions:</Text> : null}
      {!closing.length && !refused.length ? <Text>It holds nothing that must be closed.</Text> : null}
      <List size="sm">
        {closing.map((each) => (
          <List.Item key={each.client_order_id}>
            {each.instrument} <StateBadge state={each.state} />
          </List.Item>
        ))}
      </List>
      {refused.length ? (
        <>
          <Text fw={600} c="var(--qd-bad)">
            {isOpen || !closing.length ? "Not closed" : "Not all of it was closed"}
          </Text>
          <List size="sm">
            {refused.map((each, index) => (
              <List.Item key={`${each.code}-${String(index)}`} className="wrap">
                {each.detail}
              </List.Item>
            ))}
          </List>
          <Text>
            {isOpen
              ? "Flatten it again once its orders have ended. Where an algo goes on placing them, pause or stop that first."
              : "Look at its orders and positions, and flatten it again."}
          </Text>
        </>
      ) : null}
    </Stack>
  );
}
