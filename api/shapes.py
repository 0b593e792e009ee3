"""What orders, fills, holdings and algos look like in answers and on the stream."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec
from pydantic import ConfigDict, Field, model_validator

from api.formats import Amount, Instant, InstantOrNone, NameOrNone, Shown
from storage.alerts import Severity
from storage.records import Apart, OverCpu, Packing
from trading.histogram import Histogram
from trading.journal import Break, BreakKind, Settlement
from trading.orders import EventKind, OrderState, OrderType, Side, TimeInForce

#: States in which something of an algo may still run.
ALIVE: Final = frozenset({"starting", "running", "paused", "stopping"})


class OrderShown(Shown):
    """An order as it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "paper-1",
                    "client_order_id": "api-5f0c1a9be2d34870",
                    "instrument": "BINANCE-USDM:BTCUSDT",
                    "side": "buy",
                    "type": "limit",
                    "quantity": "0.010",
                    "limit_price": "60000.0",
                    "stop_price": None,
                    "trail_price": None,
                    "trail_percent": None,
                    "time_in_force": "gtc",
                    "reduce_only": False,
                    "algo": None,
                    "state": "submitted",
                    "reason": "",
                    "cancelling": False,
                    "broker_order_id": "17",
                    "filled_quantity": "0",
                    "open_quantity": "0.010",
                    "average_price": "0",
                    "created_at": "2026-01-31T09:15:00.000000000+00:00",
                    "updated_at": "2026-01-31T09:15:00.004000000+00:00",
                }
            ]
        }
    )

    account: str
    client_order_id: str
    instrument: str
    side: Side
    type: OrderType
    quantity: Amount
    limit_price: Amount | None
    stop_price: Amount | None
    #: How far a trailing stop stays behind the best price: in money, or in percent of it.
    trail_price: Amount | None
    trail_percent: Amount | None
    time_in_force: TimeInForce
    reduce_only: bool
    algo: str | None
    state: OrderState
    #: Why it is where it is, where somebody said so.
    reason: str
    cancelling: bool
    broker_order_id: str | None
    filled_quantity: Amount
    open_quantity: Amount
    average_price: Amount
    created_at: Instant
    updated_at: Instant


class FillShown(Shown):
    """One execution."""

    execution_id: str
    quantity: Amount
    price: Amount
    at: Instant
    fee: Amount
    fee_currency: str


class EventShown(Shown):
    """One change of an order: what, when, by whom, why, and the broker's own words."""

    kind: EventKind
    at: Instant
    actor: str
    reason: str
    cause: str
    broker_order_id: str | None
    fill: FillShown | None
    quantity: Amount | None
    limit_price: Amount | None
    stop_price: Amount | None
    trail_price: Amount | None
    trail_percent: Amount | None
    raw: str


class OrderWithEvents(OrderShown):
    """An order and its story, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    events: list[EventShown]


class FillOfOrder(Shown):
    """An execution with the order it belongs to."""

    account: str
    client_order_id: str
    instrument: str
    side: Side
    algo: str | None
    fill: FillShown


class PositionShown(Shown):
    """What is held of an instrument, from the journal."""

    account: str
    instrument: str
    #: Signed: above 0 long, below 0 short.
    quantity: Amount
    average_cost: Amount
    #: Profit taken, before fees.
    realised: Amount
    fees: Amount
    #: Sum of what was bought and sold.
    traded: Amount
    multiplier: Amount
    #: Of the instrument's price, and so of all amounts; "" where it is not known.
    currency: str = ""
    updated_at: InstantOrNone


class ValuedPosition(Shown):
    """A position at the last price."""

    account: str
    instrument: str
    #: Of the instrument's price, and so of all amounts; "" where it is not known.
    currency: str = ""
    quantity: Amount
    average_cost: Amount
    mark: Amount | None
    #: When the market told it; null: it is that of an execution.
    mark_at: InstantOrNone = 0
    realised: Amount
    unrealised: Amount
    fees: Amount
    exposure: Amount


class ValuedAccount(Shown):
    """An account's sums; ``profit`` is realised + unrealised - fees.

    ``currency`` is that of the cash; ``currencies`` are those of what was ever held.  Where there are several sums are
    null; where it is one, that is theirs.
    """

    account: str
    connected: bool
    reconciled: bool
    cash: Amount | None
    currency: str
    currencies: list[str] = Field(default_factory=list)
    realised: Amount | None
    unrealised: Amount | None
    fees: Amount | None
    profit: Amount | None
    gross_exposure: Amount | None
    open_orders: int
    open_breaks: int

    @model_validator(mode="before")
    @classmethod
    def _no_sum_of_several(cls, told: Any) -> Any:
        if isinstance(told, dict) and len(told.get("currencies", ())) > 1:
            return {**told, **dict.fromkeys(("realised", "unrealised", "fees", "profit", "gross_exposure"))}
        return told


class PortfolioShown(Shown):
    """Everything a user holds, as the session last told it."""

    user: str
    at: Instant
    accounts: list[ValuedAccount]
    positions: list[ValuedPosition]


class BreakShown(Shown):
    """A difference between our book and the broker's; ``resolved_at`` null while it is open."""

    id: str
    account: str
    #: "" where it is about the whole account.
    instrument: str
    kind: BreakKind
    ours: str
    theirs: str
    opened_at: Instant
    resolved_at: InstantOrNone
    resolution: str
    #: The order that it is about, where it is about one.
    client_order_id: str | None
    #: How it was resolved: agreed (by itself), accepted or explained; null while it is open.
    settlement: Settlement | None
    #: Who resolved it; "" where nobody had to.
    resolved_by: str
    #: It was explained, and the difference is still there.
    tolerated: bool
    #: Seconds from its opening to its resolution, or to now.
    age_s: float


def break_shown(item: Break, now: int) -> BreakShown:
    """A break with its age at ``now``."""
    age = ((item.resolved_at or now) - item.opened_at) / 1e9
    return BreakShown.model_validate({**msgspec.structs.asdict(item), "age_s": round(age, 3)})


class AlertShown(Shown):
    """What somebody should look at; ``acknowledged_at`` null while it is open."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "alert-5f0c1a9be2d3",
                    "kind": "large_order",
                    "severity": "warning",
                    "user": "asha",
                    "account": "paper-1",
                    "algo": None,
                    "subject": "BINANCE-USDM:BTCUSDT",
                    "text": "order momo-1-7 is worth 48000 USDT: 9 times what is usual for it",
                    "at": "2026-01-31T09:15:00.000000000+00:00",
                    "last_at": "2026-01-31T09:15:00.000000000+00:00",
                    "times": 1,
                    "acknowledged_at": None,
                    "acknowledged_by": None,
                }
            ]
        }
    )

    id: str
    #: Such as ``session`` or ``large_order``; docs/risk.md lists those of trading.
    kind: str
    severity: Severity
    #: Whom it is about; null: the deck as a whole.
    user: NameOrNone
    account: str | None
    algo: str | None
    #: What it is about: with kind and whom, what makes two alerts the same one.
    subject: str
    text: str
    #: When it was raised first and last, and how often.
    at: Instant
    last_at: Instant
    times: int
    acknowledged_at: InstantOrNone
    acknowledged_by: NameOrNone


class Latency(Shown):
    """Quantiles in milliseconds; null before the first."""

    count: int
    p50: float | None
    p99: float | None


class AlgoLive(Shown):
    """How the running incarnation goes, a moment ago."""

    node: str
    at: Instant
    state: str
    reason: str
    ticks: int
    batches_lost: int
    #: Ticks left out while it was behind, for newer ones; only where the strategy says `conflate`.
    conflated: int = 0
    intents: int
    orders_acked: int
    fills: int
    denied: int
    open_orders: int
    #: Seconds since its last tick.
    tick_age_s: float | None
    positions: dict[str, str]
    #: Profit taken less fees; null where its instruments are priced in several currencies.
    realised: Amount | None
    #: Of ``realised``; "" where it is not known, or there are several.
    currency: str = ""
    tick_to_strategy_ms: Latency
    intent_to_ack_ms: Latency
    #: Cores that its process took over the last seconds; null before that.
    cpu_share: float | None = None


class PlacementShown(Shown):
    """Where an algo may run, beyond a machine's name; docs/nodes.md explains each."""

    selector: str
    packing: Packing
    apart: Apart
    cpus: float
    memory_mb: int
    cpu_limit: float
    over_cpu: OverCpu


class AlgoShown(Shown):
    """One instance of a strategy: what should run, and how it goes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "momo-1",
                    "user": "asha",
                    "account": "paper-1",
                    "strategy": "ma-cross",
                    "strategy_version": "",
                    "previous_version": None,
                    "deprecated": None,
                    "parameters": {"interval": "1s", "fast": 5, "slow": 20},
                    "instruments": ["BINANCE-USDM:BTCUSDT"],
                    "feed": "crypto",
                    "node": "",
                    "placement": {
                        "selector": "region=eu",
                        "packing": "spread",
                        "apart": "no",
                        "cpus": 0.05,
                        "memory_mb": 512,
                        "cpu_limit": 0.9,
                        "over_cpu": "nice",
                    },
                    "placed": "edge",
                    "labels": {"desk": "alpha"},
                    "want": "running",
                    "stop_orders": "cancel",
                    "stop_position": "keep",
                    "paused_by": "",
                    "paused_at": None,
                    "paused_because": "",
                    "state": "running",
                    "reason": "",
                    "epoch": 3,
                    "generation": 4,
                    "created_at": "2026-01-31T09:15:00.000000000+00:00",
                    "updated_at": "2026-01-31T09:15:02.000000000+00:00",
                    "live": None,
                }
            ]
        }
    )

    id: str
    user: str
    account: str
    strategy: str
    #: The version that it runs, until it is upgraded; "" of a built-in strategy, which comes with the release.
    strategy_version: str
    #: What `rollback` goes back to.
    previous_version: str | None = None
    #: Why its version is deprecated; it runs on all the same.
    deprecated: str | None = None
    parameters: dict[str, Any]
    instruments: list[str]
    feed: str
    #: The node it is pinned to; "" = anywhere.
    node: str
    placement: PlacementShown
    #: The node that the present incarnation was started on; "" before the first.
    placed: str
    labels: dict[str, str]
    want: str
    #: How it was last asked to stop: what becomes of open orders (cancel, leave) and of the position (keep, flatten).
    stop_orders: str
    stop_position: str
    #: Who paused it, "" where nobody has: its orders that do not reduce are refused.
    paused_by: str
    paused_at: InstantOrNone
    paused_because: str
    state: str
    #: The state in words.
    reason: str
    epoch: int
    generation: int
    created_at: Instant
    updated_at: Instant
    #: Null where no incarnation has told anything lately.
    live: AlgoLive | None = None


def algo_live(hot: dict[str, Any] | None, epoch: int) -> AlgoLive | None:
    """The live part from the hot store, if it is of this incarnation."""
    if hot is None or hot.get("epoch") != epoch:
        return None
    latencies = {f"{name}_ms": _latency(hot[name]) for name in ("tick_to_strategy", "intent_to_ack")}
    currencies = hot.get("currencies", ())
    values = {
        **hot,
        **latencies,
        "realised": None if len(currencies) > 1 else Decimal(hot["realised"]),
        "currency": currencies[0] if len(currencies) == 1 else "",
    }
    return AlgoLive.model_validate(values)


def _latency(counts: dict[str, int]) -> Latency:
    histogram = Histogram({int(bucket): count for bucket, count in counts.items()})
    return Latency(count=histogram.total, p50=histogram.quantile(0.5), p99=histogram.quantile(0.99))
