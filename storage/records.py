"""The rows that say what should be: users, accounts, feeds, algos, nodes, limits.

``generation`` rises with every change of the row; whoever acts on a row remembers the generation it acted on.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import msgspec

from trading.ids import (
    AccountId,
    AlgoId,
    ClientOrderId,
    Epoch,
    FeedId,
    InstrumentId,
    Nanos,
    NodeName,
    UserId,
)
from trading.journal import BreakKind
from trading.orders import Fill, OrderState, Side
from trading.seconds import SecondSource

#: SQL list of the states in which an order may still fill; as in the partial index ``orders_open``.
OPEN_STATES: Final = "('pending', 'submitted', 'partially_filled', 'unknown')"


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A person who owns accounts.  One who is not ``enabled`` is let in by no password, session or key."""

    id: UserId
    roles: tuple[str, ...]
    created_at: Nanos
    enabled: bool = True
    generation: int = 1


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A trading account at a broker.  ``settings`` hold no secrets; those are in the secrets store."""

    id: AccountId
    user: UserId
    connector: str
    settings: dict[str, Any]
    enabled: bool
    created_at: Nanos
    #: Labels of the machine that its connection runs on, in the words of `cluster.selectors`; "": the head.
    selector: str = ""
    generation: int = 1


class FeedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Instruments to stream from one provider by ``workers`` shards."""

    id: FeedId
    provider: str
    #: Where the provider is reached; {} means its public servers.
    settings: dict[str, Any]
    channels: tuple[str, ...]
    workers: int
    instruments: tuple[InstrumentId, ...]
    created_at: Nanos
    enabled: bool = True
    generation: int = 1
    #: Machines that its workers run on, in turn; none: where the Supervisor is.
    nodes: tuple[NodeName, ...] = ()
    #: Instruments that have a second provider, each with its place in another feed.
    seconds: dict[InstrumentId, SecondSource] = msgspec.field(default_factory=dict)


class FeedGap(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which ticks of an instrument may be missing, by receipt of the last tick before and the first after.

    ``state``: ``waiting`` to be filled; ``filled``; ``partly``, as far as the provider told; ``failed``.
    """

    feed: FeedId
    shard: int
    instrument: InstrumentId
    since: Nanos
    until: Nanos
    reason: str
    state: str = "waiting"
    #: What was filled in: trades, or the provider's bars that lie in it.
    trades: int = 0
    bars: int = 0
    detail: str = ""
    #: Given by the store.
    number: int = 0


class Packing(StrEnum):
    """Which of several possible machines is taken: the emptiest or the fullest."""

    SPREAD = "spread"
    PACK = "pack"


class Apart(StrEnum):
    """Whether algos of one account share a machine."""

    NO = "no"
    PREFER = "prefer"
    REQUIRE = "require"


class OverCpu(StrEnum):
    """What becomes of an algo that takes more CPU than allowed: it gets what others leave, or it is ended."""

    NICE = "nice"
    END = "end"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where an algo may run, if no machine is named; see `cluster.placement`."""

    #: Labels, in the words of `cluster.selectors`; "" for any.
    selector: str = ""
    packing: Packing = Packing.SPREAD
    apart: Apart = Apart.NO
    #: What it needs of a machine, in cores and MiB; it may take no more memory.
    cpus: float = 0.05
    memory_mb: int = 512
    #: The most CPU that it may take for long, in cores, and what becomes of it where it takes more.
    cpu_limit: float = 0.9
    over_cpu: OverCpu = OverCpu.NICE


class AlgoRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a strategy: what should run, and what is known of how it goes.

    ``want`` is ``running`` or ``stopped``.  ``state`` (waiting, starting, running, paused, stopping, stopped,
    failed) and ``reason`` are the Supervisor's findings.  ``epoch`` numbers the incarnations: a new one is
    written here before it is spawned.  ``node`` pins it to a machine ("" = wherever ``placement`` allows).
    """

    id: AlgoId
    user: UserId
    account: AccountId
    #: Name of a registered strategy.
    strategy: str
    parameters: dict[str, Any]
    instruments: tuple[InstrumentId, ...]
    feed: FeedId
    node: NodeName
    want: str
    state: str
    reason: str
    epoch: Epoch
    created_at: Nanos
    updated_at: Nanos
    placement: Placement = Placement()
    #: The machine that the incarnation ``epoch`` was started on.
    placed: NodeName = NodeName("")
    generation: int = 1
    #: The version that it runs, and goes on running; "" of a built-in strategy, which comes with the release.
    strategy_version: str = ""
    #: ``version`` and ``parameters`` that it had before it was last upgraded; {} where it was not.
    previous: dict[str, Any] = {}
    labels: dict[str, str] = {}
    #: The last generation that takes a new incarnation: one that runs an older one is replaced, one that runs this or
    #: a newer one takes up itself what has changed since.
    restart_generation: int = 1
    #: Who paused it, "" where nobody has; what refuses its entries meanwhile is the limit `trading.limits.PAUSED`.
    paused_by: str = ""
    paused_at: Nanos = Nanos(0)
    paused_because: str = ""
    #: How it was last asked to stop: what becomes of its open orders (``cancel`` or ``leave``) and of its position
    #: (``keep`` or ``flatten``).  Of one that should run: ``cancel`` and ``keep``.
    stop_orders: str = "cancel"
    stop_position: str = "keep"
    #: The kill that flattens it, "" where none does.
    flatten: str = ""


class AlgoEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an algo, written with it.  ``what`` names the parts that changed.

    ``node`` is where the incarnation was started, ``by`` who changed it.
    """

    number: int
    algo: AlgoId
    user: UserId
    at: Nanos
    what: list[str]
    epoch: Epoch
    generation: int
    want: str
    state: str
    reason: str
    node: str
    by: str


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A registered machine.  Live facts are in the hot store.

    ``cordoned``: it takes no new algos.  ``draining``: nor does it keep those that it has.
    """

    name: NodeName
    labels: dict[str, str]
    registered_at: Nanos
    cordoned: bool = False
    draining: bool = False
    generation: int = 1


class StrategyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy's name stands for now: the version that a new algo takes, "" where all are deprecated.

    A built-in one comes with the release and has no versions of its own to choose from.
    """

    name: str
    version: str
    #: ``module:Class``, or the class in a lone module.
    entry: str
    builtin: bool
    schema: dict[str, Any]
    created_at: Nanos


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A package that a version's requirements were resolved to: this very wheel and no other."""

    name: str
    version: str
    file_name: str
    sha256: str
    size: int


class StrategyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a strategy as it was submitted.  Nothing of it changes but whether it is deprecated."""

    strategy: str
    #: By content, see `strategies.versions.version_of`.
    version: str
    #: ``file``, ``zip`` or ``wheel``.
    kind: str
    file_name: str
    #: SHA-256 of the file in the store, and its bytes.
    artefact: str
    size: int
    #: As it was asked for, "" where it was left to be found, and as it was found.
    asked_entry: str
    entry: str
    schema: dict[str, Any]
    #: As they were asked for.
    requirements: tuple[str, ...]
    pins: tuple[Pin, ...]
    #: What the check found out (`cluster.strategy_check.Report`); {} for what was there before there were checks.
    checked: dict[str, Any]
    submitted_by: str
    submitted_at: Nanos
    deprecated_at: Nanos = Nanos(0)
    deprecated_by: str = ""
    deprecated_because: str = ""


class MaximaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The highest of each measure that was sampled in a day, of one level of the limit tree.

    ``day``: when it began.  ``instrument`` "": of the level as a whole.  Each is the highest by itself: they need not
    have been so high at the same moment.
    """

    day: Nanos
    scope: str
    instrument: str
    gross: Decimal
    long: Decimal
    short: Decimal
    money_at_risk: Decimal
    loss: Decimal
    drawdown: Decimal
    open_orders: int
    sampled_at: Nanos


class KillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A kill switch that was thrown.  ``lifted_at`` 0: in force."""

    id: str
    scope: str
    flatten: bool
    reason: str
    at: Nanos
    by: str
    #: When the limit was set that halts the scope.
    halted_at: Nanos
    #: Whether this kill set it: a halt that stood before is not the kill's to lift.
    sets_halt: bool
    #: It is part of stopping an algo: nobody threw the switch.
    of_stop: bool = False
    #: Sessions that did not answer when it was thrown.
    silent: list[str] = []
    lifted_at: Nanos = Nanos(0)
    lifted_by: str = ""


class KilledOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that a kill took back, or placed to close a position."""

    client_order_id: ClientOrderId
    instrument: InstrumentId
    state: OrderState
    filled_quantity: Decimal
    reason: str
    asked_at: Nanos
    #: None: it has not ended.
    ended_at: Nanos | None


class KilledAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What a kill has done in one account, and what is left."""

    account: AccountId
    cancelled: list[KilledOrder]
    closing: list[KilledOrder]
    open_orders: int
    #: What is held still.
    positions: dict[str, Decimal]
    #: Instrument and key of each open order, of anybody, that would close some of it: that part is left to it.
    exits: list[tuple[str, str]] = []


class LimitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One limit.  ``scope`` is a level and ``kind`` a kind as in `trading.limits`.

    ``instrument`` "" means every instrument.  ``value`` None means no limit.
    """

    scope: str
    kind: str
    instrument: str
    value: Decimal | None
    version: int
    changed_at: Nanos
    changed_by: str


class LoanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What central risk has lent to one session of one shared limit, used part included."""

    session: str
    session_epoch: Epoch
    resource: str
    amount: Decimal


class FillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An execution with the order it belongs to."""

    account: AccountId
    client_order_id: ClientOrderId
    instrument: InstrumentId
    side: Side
    algo: AlgoId | None
    fill: Fill


class OrderFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders (or fills) to list; None does not filter.  Times: of creation, of execution."""

    account: AccountId | None = None
    #: Of these accounts only.
    accounts: tuple[AccountId, ...] | None = None
    user: UserId | None = None
    instrument: InstrumentId | None = None
    algo: AlgoId | None = None
    #: Orders only.
    states: tuple[OrderState, ...] | None = None
    since: Nanos | None = None
    until: Nanos | None = None


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what, from what to what."""

    number: int
    at: Nanos
    actor: str
    action: str
    subject: str
    before: Any
    after: Any


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which audit entries to list; None does not filter.  ``since`` at or after, ``until`` before."""

    subject: str | None = None
    actor: str | None = None
    action: str | None = None
    since: Nanos | None = None
    until: Nanos | None = None


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of an algo's log; None does not filter."""

    #: Above this number.
    after: int = 0
    #: Of this level or a graver one.
    level: str | None = None
    since: Nanos | None = None
    #: Somewhere in the line, whatever its case.
    text: str | None = None
    #: Written while the algo was this user's.
    user: UserId | None = None
    #: By this incarnation or a later one.
    first_epoch: int = 0


class BreakFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which breaks; None leaves a field out."""

    account: AccountId | None = None
    #: Of these accounts only.
    accounts: tuple[AccountId, ...] | None = None
    #: Only accounts of this user.
    user: UserId | None = None
    instrument: InstrumentId | None = None
    kind: BreakKind | None = None
    #: Resolved ones too.
    resolved: bool = False
    #: Still open, or resolved at or after this.
    open_after: Nanos | None = None
    #: Opened at or after, and before.
    since: Nanos | None = None
    until: Nanos | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is stored: the key itself is not.  None: never; ``rights``, ``accounts``: all there are."""

    id: str
    user: UserId
    roles: tuple[str, ...]
    label: str
    created_at: Nanos
    expires_at: Nanos | None = None
    revoked_at: Nanos | None = None
    rights: tuple[str, ...] | None = None
    accounts: tuple[AccountId, ...] | None = None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an algo's log.  ``number`` rises over all logs.  ``fields`` are what the strategy gave by name."""

    number: int
    epoch: Epoch
    at: Nanos
    level: str
    text: str
    fields: dict[str, Any] = {}
