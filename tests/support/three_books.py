"""The books a run is judged by, as plain data: the broker's ledger, the journal, the sessions' memory.

With them come what callers were told, what happened at the broker step by step, and who acted under which epoch.
Times (``at``) are only compared with each other: nanoseconds of one clock in a real run, a counter of the
world's steps in a simulated one.  Amounts are exact.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Final

ZERO: Final = Decimal(0)
#: States in which an order may still fill, in our words.
OPEN_STATES: Final = frozenset({"pending", "submitted", "partially_filled", "unknown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedOrder:
    """An order as one of the three books has it.

    A broker that replaces an order by a new one when it is modified still has *one* order here: the chain,
    with the size of its newest link and the fills of all.
    """

    account: str
    #: What the broker is told to echo; "" at the broker for an order placed by hand.
    tag: str
    instrument: str
    #: +1 buy, -1 sell.
    sign: int
    quantity: Decimal
    filled_quantity: Decimal
    #: Quantity-weighted; 0 without fills.
    average_price: Decimal
    state: str
    broker_order_id: str = ""
    #: "" in the broker's ledger.
    client_order_id: str = ""
    algo: str = ""
    #: Ledger: when it arrived.  Journal: when the row was committed.  Memory: not used.
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedFill:
    """One execution as the ledger or the journal has it; ``tag`` is its order's."""

    account: str
    execution_id: str
    tag: str
    instrument: str
    sign: int
    quantity: Decimal
    price: Decimal


@dataclass(slots=True, kw_only=True)
class Book:
    """One of the three books.  ``positions`` may leave out what is flat; ``cash`` what is not known."""

    orders: Sequence[BookedOrder] = ()
    #: None: this book does not keep executions one by one.
    fills: Sequence[BookedFill] | None = None
    #: (account, instrument) -> signed quantity.
    positions: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)
    #: account -> cash.
    cash: Mapping[str, Decimal] = field(default_factory=dict)


class Outcome(StrEnum):
    """What a caller was told of an intent."""

    #: An order came back.
    ACKNOWLEDGED = "acknowledged"
    #: A definite no: nothing was done and nothing will be.
    REFUSED = "refused"
    #: No answer, or one that says nobody knows: at most one order.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer to one caller about one intent; an intent that was repeated has several."""

    account: str
    client_order_id: str
    outcome: Outcome
    #: Content of the intent (an acknowledged order's own).
    instrument: str = ""
    sign: int = 0
    quantity: Decimal = ZERO
    #: Tag and state of the order that came back ("" without one).
    tag: str = ""
    state: str = ""


class Deed(StrEnum):
    """What happened to an order at the broker, or to a price."""

    ARRIVED = "arrived"
    RESIZED = "resized"
    FILLED = "filled"
    ENDED = "ended"
    MARKED = "marked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One step of the ledger's history.  ``quantity``: total when arrived or resized, executed when filled."""

    at: int
    deed: Deed
    instrument: str
    account: str = ""
    tag: str = ""
    sign: int = 0
    quantity: Decimal = ZERO
    #: MARKED: what one unit is worth from now on, multiplier included.
    price: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """A limit that held from ``since`` to ``until``.

    Scopes: ``cluster``, ``user:<id>``, ``account:<id>``, ``algo:<id>``.  Kinds: ``position`` (of
    ``instrument``, or of each where ""), ``gross_exposure``, ``open_orders``, ``order_quantity``.
    """

    scope: str
    kind: str
    value: Decimal
    instrument: str = ""
    since: int = 0
    until: int | None = None
    #: Share by which money may differ because two observers see a price move at different instants.
    tolerance: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that an owner did under an epoch, in the order in which it took effect.

    ``where`` is what it acted on: a broker's account or the journal.  ``owner`` is the lease's name.
    """

    where: str
    owner: str
    epoch: int
    at: int
    what: str = ""


@dataclass(slots=True, kw_only=True)
class Run:
    """All that is known of a run once it has come to rest."""

    ledger: Book
    journal: Book
    #: None: sessions' memory was not asked.
    memory: Book | None = None
    told: Sequence[Told] = ()
    #: (account, key) of everything callers asked for, answered or not; None: not known.
    intents: Collection[tuple[str, str]] | None = None
    movements: Sequence[Movement] = ()
    limits: Sequence[LimitRule] = ()
    acts: Sequence[Act] = ()
    #: account -> user, for limits of users.
    users: Mapping[str, str] = field(default_factory=dict)
    #: (account, instrument) -> position held before the first movement.
    opening: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)
    #: What verifying the audit chain found.
    audit: Sequence[str] = ()
