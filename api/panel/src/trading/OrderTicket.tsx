/** The ticket: an order by hand, to any account that one may trade. */
import { Autocomplete, Button, Checkbox, Fieldset, Group, Loader, Modal, SegmentedControl, Select, Stack, Text, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect, type Shape } from "@/api/client";
import { isRefusal, isUnsettled, ProblemError } from "@/api/problem";
import { newKey } from "@/api/transport";
import { ErrorNote } from "@/components/ErrorNote";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useAct } from "@/components/useAct";
import { Price, Quantity } from "@/components/values";

import { LastPrice } from "./LastPrice";
import { useAccounts, useFeedOf } from "./read";

type NewOrder = Shape<"NewOrder">;

export interface TicketStart {
  account?: string;
  instrument?: string;
  side?: "buy" | "sell";
  type?: NewOrder["type"];
  quantity?: string;
  reduceOnly?: boolean;
}

const TYPES = [
  { value: "market", label: "Market" },
  { value: "limit", label: "Limit" },
  { value: "stop", label: "Stop" },
  { value: "stop_limit", label: "Stop limit" },
  { value: "trailing_stop", label: "Trailing stop" },
];
const STANDS = [
  { value: "day", label: "Day" },
  { value: "gtc", label: "Until cancelled" },
  { value: "ioc", label: "At once or not (IOC)" },
  { value: "fok", label: "All or nothing (FOK)" },
  { value: "opg", label: "At the open" },
  { value: "cls", label: "At the close" },
];
const FIELDS = ["account", "instrument", "side", "type", "quantity", "limit_price", "stop_price", "trail_price", "trail_percent", "time_in_force"];

export function OrderTicket(given: { opened: boolean; onClose: () => void; start?: TicketStart }) {
  return (
    <Modal opened={given.opened} onClose={given.onClose} title={<strong>Place an order</strong>} size="md">
      {given.opened ? <Ticket onClose={given.onClose} start={given.start ?? {}} /> : null}
    </Modal>
  );
}

function Ticket(given: { onClose: () => void; start: TicketStart }) {
  const { start } = given;
  const client = useQueryClient();
  const { accounts, error: unread, retry } = useAccounts();
  const feedOf = useFeedOf();
  const [account, setAccount] = useState<string | null>(start.account ?? null);
  const [instrument, setInstrument] = useState(start.instrument ?? "");
  const [side, setSide] = useState<"buy" | "sell">(start.side ?? "buy");
  const [type, setType] = useState<NewOrder["type"]>(start.type ?? "limit");
  const [quantity, setQuantity] = useState(start.quantity ?? "");
  const [limit, setLimit] = useState("");
  const [stop, setStop] = useState("");
  const [trail, setTrail] = useState("");
  const [trailBy, setTrailBy] = useState<"percent" | "price">("percent");
  const [stands, setStands] = useState<NonNullable<NewOrder["time_in_force"]>>("day");
  const [reduceOnly, setReduceOnly] = useState(start.reduceOnly ?? false);
  const [asked] = useDebouncedValue(instrument.trim(), 200);
  // The order's own key: whatever happens on the way, it is placed once.
  const [key, setKey] = useState(newKey);
  const { busy, error, run, forget } = useAct("Placing an order");
  // It may have been placed: until that is known, or somebody chooses to place another, it stays this very order.
  const [inDoubt, setInDoubt] = useState(false);
  // The deck was looked through for it, and knows of no such order.
  const [isAbsent, setIsAbsent] = useState(false);
  const looking = useAct("Looking for an order");
  const isFixed = busy || looking.busy || inDoubt;

  const found = useQuery({
    queryKey: ["instruments", asked],
    queryFn: () => expect(api.GET("/v1/instruments", { params: { query: { query: asked, limit: 12 } } })),
    placeholderData: keepPreviousData,
    staleTime: 60_000,
  });
  const chosen = found.data?.items.find((each) => each.id === instrument);
  const hasLimit = type === "limit" || type === "stop_limit";
  const hasStop = type === "stop" || type === "stop_limit";
  // What is about to be sent, in the words of the button.
  const how = type === "market" ? "at the market" : type === "limit" ? (limit.trim() ? `at ${limit.trim()}` : "") : `(${type.replaceAll("_", " ")})`;
  const at = (field: string) => errorAt(error, field);
  const edit = <Value,>(set: (value: Value) => void) => (value: Value) => {
    if (isFixed) return;
    set(value);
    // Other content is another order: the old key would be refused.
    setKey(newKey());
  };
  const another = () => {
    setInDoubt(false);
    setIsAbsent(false);
    forget();
    looking.forget();
    setKey(newKey());
  };
  const tell = (order: Pick<Shape<"OrderShown">, "state" | "side" | "quantity" | "instrument" | "account">) => {
    notifications.show({
      title: `Order ${order.state.replaceAll("_", " ")}`,
      message: `${order.side} ${order.quantity} ${order.instrument} on ${order.account}`,
    });
    void client.invalidateQueries({ queryKey: ["orders"] });
  };
  /** What became of it; true where it is there. Sends nothing. */
  const look = async () => {
    forget();
    setIsAbsent(false);
    try {
      const path = { account: account ?? "", client_order_id: key };
      tell(await expect(api.GET("/v1/orders/{account}/{client_order_id}", { params: { path } })));
      return true;
    } catch (wrong) {
      if (!(wrong instanceof ProblemError) || wrong.status !== 404) throw wrong;
      setIsAbsent(true);
      return false;
    }
  };
  const place = async () => {
    try {
      const order = await expect(
        api.POST("/v1/orders", {
          body: {
            account: account ?? "",
            client_order_id: key,
            instrument: instrument.trim(),
            side,
            type,
            quantity: quantity.trim(),
            limit_price: hasLimit ? limit.trim() : null,
            stop_price: hasStop ? stop.trim() : null,
            trail_price: type === "trailing_stop" && trailBy === "price" ? trail.trim() : null,
            trail_percent: type === "trailing_stop" && trailBy === "percent" ? trail.trim() : null,
            time_in_force: stands,
            reduce_only: reduceOnly,
          },
        }),
      );
      tell(order);
    } catch (wrong) {
      setIsAbsent(false);
      setInDoubt(isUnsettled(wrong) || (inDoubt && !isRefusal(wrong)));
      throw wrong;
    }
  };
  const amount = (label: string, value: string, set: (value: string) => void, field: string, note?: string) => (
    <TextInput
      label={label}
      required
      inputMode="decimal"
      autoComplete="off"
      value={value}
      description={note}
      error={at(field)}
      onChange={(event) => {
        edit(set)(event.currentTarget.value);
      }}
    />
  );
  return (
    <form
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (inDoubt && !isAbsent) return;
        void run(place, given.onClose);
      }}
    >
      <Fieldset variant="unstyled" disabled={isFixed}>
        <Stack gap="sm">
          <SegmentedControl
            fullWidth
            aria-label="Side"
            color={side === "buy" ? "teal.9" : "red.9"}
            value={side}
            onChange={(value) => {
              edit(setSide)(value as "buy" | "sell");
            }}
            data={[
              { value: "buy", label: "▲ Buy" },
              { value: "sell", label: "▼ Sell" },
            ]}
          />
          <ErrorNote error={unread} retry={retry} />
          <Select
            label="Account"
            required
            data-autofocus
            searchable
            data={accounts.filter((each) => each.enabled).map(({ id, user }) => ({ value: id, label: `${id} (${user})` }))}
            value={account}
            error={at("account")}
            onChange={edit(setAccount)}
          />
          <Autocomplete
            size="xs"
            label="Instrument"
            required
            placeholder="VENUE:SYMBOL, or a part of its name"
            value={instrument}
            error={at("instrument")}
            onChange={edit(setInstrument)}
            data={(found.data?.items ?? []).map((each) => each.id)}
            filter={({ options }) => options}
            rightSection={found.isFetching ? <Loader size={12} /> : null}
          />
          {chosen ? (
            <Text size="sm" c="dimmed">
              Last <LastPrice feed={feedOf(chosen.id)} instrument={chosen.id} /> {chosen.currency} · price steps of{" "}
              <Price value={chosen.tick_size} /> · quantity steps of <Quantity value={chosen.lot_size} />
              {chosen.description ? ` · ${chosen.description}` : ""}
            </Text>
          ) : null}
          <Group grow align="flex-start">
            <Select
              label="Type"
              data={TYPES}
              value={type}
              error={at("type")}
              onChange={(value) => {
                edit(setType)((value ?? "limit") as NewOrder["type"]);
              }}
            />
            {amount("Quantity", quantity, setQuantity, "quantity")}
          </Group>
          {hasLimit || hasStop ? (
            <Group grow align="flex-start">
              {hasStop ? amount("Stop price", stop, setStop, "stop_price") : null}
              {hasLimit ? amount("Limit price", limit, setLimit, "limit_price") : null}
            </Group>
          ) : null}
          {type === "trailing_stop" ? (
            <Group grow align="flex-start">
              <Select
                label="Stays behind by"
                data={[
                  { value: "percent", label: "Percent of the price" },
                  { value: "price", label: "Money" },
                ]}
                value={trailBy}
                onChange={(value) => {
                  edit(setTrailBy)(value === "price" ? "price" : "percent");
                }}
              />
              {amount("Distance", trail, setTrail, trailBy === "price" ? "trail_price" : "trail_percent")}
            </Group>
          ) : null}
          <Group grow align="flex-end">
            <Select
              label="Stands"
              data={STANDS}
              value={stands}
              error={at("time_in_force")}
              onChange={(value) => {
                edit(setStands)((value ?? "day") as NonNullable<NewOrder["time_in_force"]>);
              }}
            />
            <Checkbox
              mb={6}
              label="May only make the position smaller"
              checked={reduceOnly}
              onChange={(event) => {
                edit(setReduceOnly)(event.currentTarget.checked);
              }}
            />
          </Group>
        </Stack>
      </Fieldset>
      <Stack gap="sm" mt="sm">
        {isAboutNone(error, FIELDS) || inDoubt ? <ErrorNote error={error} asksItself={inDoubt} /> : null}
        <ErrorNote error={looking.error} />
        {inDoubt && !isAbsent ? (
          <Text>
            This order may have been placed. Looking for it sends nothing. If you place another order there may be two.
          </Text>
        ) : null}
        {isAbsent ? (
          <Text role="status">
            The deck knows of no such order: it was not placed. Sent now, at the prices of now, it is still this very order
            and placed once at most.
          </Text>
        ) : null}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={given.onClose}>
            {inDoubt ? "Close" : "Cancel"}
          </Button>
          {inDoubt ? (
            <Button variant="default" disabled={busy} onClick={another}>
              Place another order
            </Button>
          ) : null}
          {inDoubt ? (
            <Button
              loading={looking.busy}
              disabled={busy}
              onClick={() => {
                let isThere = false;
                void looking.run(
                  async () => {
                    isThere = await look();
                  },
                  () => {
                    if (isThere) given.onClose();
                  },
                );
              }}
            >
              Look what became of it
            </Button>
          ) : null}
          {inDoubt && !isAbsent ? null : (
            <Button
              type="submit"
              color={side === "buy" ? "teal.9" : "red.9"}
              loading={busy}
              disabled={looking.busy || !account || !instrument.trim() || !quantity.trim()}
            >
              {`${inDoubt ? "Send now: " : ""}${side === "buy" ? "Buy" : "Sell"} ${quantity.trim()} ${instrument.trim()} ${how}`.trim()}
            </Button>
          )}
        </Group>
      </Stack>
    </form>
  );
}
