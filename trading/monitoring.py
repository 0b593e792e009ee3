"""Transaction monitoring: what in an account's orders and executions is unlike what was usual there.

Events in, alarms out; the state is plain data that is kept between two events.  What is usual is learnt from the
account itself, by measures that a few odd values do not move, and fades, so that a new habit becomes usual in time.

* `large_order`: far above the sizes that are usual for this instrument here, or a large part of the account's equity.
* `unusual_hour`: whoever it comes from (an algo, a person) was never seen at this hour on many days.
* `position_flips`: long to short and back, many times in a few minutes, and more often than is usual.
* `cancel_burst`: many orders taken back within a minute, and more than is usual.

Orders that only close (reduce-only, a kill's, a flattening's) are neither judged nor learnt from by their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, TypeVar

import msgspec

from trading.closing import PREFIXES, is_closing_key
from trading.ids import AccountId, ClientOrderId, InstrumentId, Nanos
from trading.orders import ZERO, EventKind, OrderType, Side
from trading.surveillance_terms import Terms
from trading.usual import Rate, Sizes, bucket_of, size_of

LARGE_ORDER: Final = "large_order"
UNUSUAL_HOUR: Final = "unusual_hour"
POSITION_FLIPS: Final = "position_flips"
CANCEL_BURST: Final = "cancel_burst"

#: Kinds of alerts about how somebody trades.
KINDS_OF_TRADING: Final = frozenset({LARGE_ORDER, UNUSUAL_HOUR, POSITION_FLIPS, CANCEL_BURST})

_SECOND: Final = 1_000_000_000
_HOUR: Final = 3_600 * _SECOND
_DAY: Final = 24 * _HOUR
#: Most instruments and actors that are remembered of an account, and orders that wait for a price.
_MOST: Final = 500
_PLACED: Final = (EventKind.PENDING, EventKind.ADOPTED)
#: Types whose price is a limit.
_LIMITED: Final = (OrderType.LIMIT, OrderType.STOP_LIMIT)
_ENDED: Final = (EventKind.CANCELLED, EventKind.REJECTED, EventKind.EXPIRED, EventKind.DENIED)


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One journaled event with what it takes of its order."""

    number: int
    kind: EventKind
    at: Nanos
    account: AccountId
    client_order_id: ClientOrderId
    instrument: InstrumentId
    side: Side
    algo: str | None
    reduce_only: bool
    cause: str
    #: The order's quantity, as it is asked for with this event, and its limit or stop price.
    quantity: Decimal
    price: Decimal | None
    type: OrderType = OrderType.LIMIT
    fill_quantity: Decimal | None = None
    fill_price: Decimal | None = None

    @property
    def is_capped(self) -> bool:
        """Whether it can never trade at more than its price."""
        return self.side is Side.BUY and self.price is not None and self.type in _LIMITED

    @property
    def person(self) -> str:
        """Whose request it was; "" where it was no person's."""
        kind, _, rest = self.cause.partition("/")
        return rest.partition("/")[0] if kind == "api" else ""

    @property
    def who(self) -> str:
        """The person whose request it was, else the algo; "" where neither is told."""
        if self.person:
            return f"user {self.person}"
        return f"algo {self.algo}" if self.algo else ""


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What an order is measured by: of its instrument, and of its account where it is known."""

    multiplier: Decimal = Decimal(1)
    currency: str = ""
    equity: Decimal | None = None
    equity_currency: str = ""


#: How grave.
_RANK: Final[Mapping[str, int]] = {"": 0, "info": 1, "warning": 2, "critical": 3}


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something unusual.  ``subject`` is the same for what belongs together, ``persons`` are those who did it."""

    kind: str
    severity: Literal["info", "warning", "critical"]
    account: AccountId
    algo: str | None
    subject: str
    text: str
    at: Nanos
    persons: tuple[str, ...] = ()


class Traded(msgspec.Struct, kw_only=True):
    """What is remembered of one instrument."""

    sizes: Sizes = msgspec.field(default_factory=Sizes)
    flips: Rate = msgspec.field(default_factory=Rate)
    #: Person -> when their orders last did that.
    flipped_by: dict[str, int] = {}
    #: Last price paid or asked for; 0: none is known.
    price: Decimal = ZERO
    position: Decimal = ZERO
    #: Of the last position that was not flat.
    sign: int = 0
    at: int = 0


class Acting(msgspec.Struct, kw_only=True):
    """What is remembered of one algo or person."""

    cancels: Rate = msgspec.field(default_factory=Rate)
    #: When and why the last order was taken back: all that one command takes back counts once.
    last_cancel: tuple[int, str] = (-1, "")
    #: Hour of the day (UTC) -> days on which it was seen then; the last of them.
    hours: dict[int, int] = {}
    last_days: dict[int, int] = {}
    #: Days on which it was seen at all, and the last of them.
    days: int = 0
    last_day: int = -1
    at: int = 0


class Judged(msgspec.Struct, frozen=True):
    """At which price an order was judged last, by which event, as how grave at most ("": as usual); whose it is."""

    price: Decimal
    severity: str
    number: int
    persons: tuple[str, ...]


class Account(msgspec.Struct, kw_only=True):
    """What is remembered of an account."""

    instruments: dict[InstrumentId, Traded] = {}
    actors: dict[str, Acting] = {}
    #: Orders without a price, judged by that of their first execution; they are in ``judged`` too, for whose they are.
    unpriced: list[ClientOrderId] = []
    #: Orders that may yet trade at more than they were judged by: judged again by their first execution.
    judged: dict[ClientOrderId, Judged] = {}


K = TypeVar("K", bound=str)
M = TypeVar("M", Traded, Acting)


def observe(state: Account, event: Watched, means: Means, terms: Terms) -> list[Alarm]:
    """Take one event, in the order of the journal; brings ``state`` up to date and says what is unusual."""
    traded = _of(state.instruments, event.instrument, Traded, event.at)
    acting = _of(state.actors, event.who, Acting, event.at)
    found: list[Alarm] = []
    if event.kind in _PLACED:
        found += _hour(acting, event, terms)
        if event.price is None and not traded.price:
            state.unpriced = [*state.unpriced, event.client_order_id][-_MOST:]
        found += _judge(state, traded, event, means, terms, learn=True)
    elif event.kind is EventKind.MODIFY_REQUESTED:
        found += _judge(state, traded, event, means, terms, learn=False)
    elif event.kind is EventKind.CANCEL_REQUESTED:
        found += _cancel(acting, event, terms)
    elif event.kind is EventKind.FILLED and event.fill_quantity is not None and event.fill_price is not None:
        traded.price = event.fill_price
        found += _judge_again(state, event, event.fill_price, means, terms)
        found += _flip(traded, event, event.fill_quantity, terms)
    elif event.kind in _ENDED:
        state.judged.pop(event.client_order_id, None)
        if event.client_order_id in state.unpriced:
            state.unpriced.remove(event.client_order_id)
    if event.price is not None and event.kind in _PLACED and not traded.price:
        traded.price = event.price
    return found


def _judge(state: Account, traded: Traded, event: Watched, means: Means, terms: Terms, *, learn: bool) -> list[Alarm]:
    """By its size, when it is placed or changed.

    Its own price says little of what it is worth, but for a buy with a limit: a sell far below the market trades near
    the market.
    """
    if event.price is not None and event.is_capped:
        return _size(traded.sizes, event, event.price, means, terms, _with((), event.person), learn=learn)
    price = max(event.price or ZERO, traded.price)
    before = state.judged.pop(event.client_order_id, None)
    persons = _with(before.persons if before is not None else (), event.person)
    found = _size(traded.sizes, event, price, means, terms, persons, learn=learn)
    if not _reduces(event):
        severities = [before.severity if before is not None else "", *(alarm.severity for alarm in found)]
        if len(state.judged) >= _MOST:
            del state.judged[min(state.judged, key=lambda each: state.judged[each].number)]
        gravest = max(severities, key=_RANK.__getitem__)
        state.judged[event.client_order_id] = Judged(price, gravest, event.number, persons)
    return found


def _judge_again(state: Account, event: Watched, price: Decimal, means: Means, terms: Terms) -> list[Alarm]:
    """By the price of its first execution, where that makes it worth more; told where it is graver so."""
    sizes = state.instruments[event.instrument].sizes
    before = state.judged.pop(event.client_order_id, None)
    persons = _with(before.persons if before is not None else (), event.person)
    if event.client_order_id in state.unpriced:
        state.unpriced.remove(event.client_order_id)
        return _size(sizes, event, price, means, terms, persons, learn=True)
    if before is None or price <= before.price:
        return []
    found = _size(sizes, event, price, means, terms, persons, learn=False)
    return [alarm for alarm in found if _RANK[alarm.severity] > _RANK[before.severity]]


def _size(
    sizes: Sizes,
    event: Watched,
    price: Decimal,
    means: Means,
    terms: Terms,
    persons: tuple[str, ...],
    *,
    learn: bool,
) -> list[Alarm]:
    worth = abs(event.quantity * price * means.multiplier)
    if not worth or _reduces(event):
        return []
    reasons: list[str] = []
    severity: Literal["warning", "critical"] = "warning"
    if sizes.total >= terms.enough_orders:
        middle = sizes.middle()
        usual = size_of(middle)
        above = (bucket_of(float(worth)) - middle) / sizes.spread()
        if above > terms.spreads and float(worth) > terms.times * usual:
            reasons.append(f"{float(worth) / usual:.0f} times what is usual for {event.instrument} here")
    if means.equity is not None and means.equity > 0 and means.equity_currency == means.currency:
        share = float(worth / means.equity)
        if share >= terms.share:
            reasons.append(f"{100 * share:.0f} % of the account's equity")
            severity = "critical" if share >= terms.critical_share else severity
    if learn:
        sizes.add(float(worth), terms.memory)
    if not reasons:
        return []
    money = f"{worth:.2f} {means.currency}".rstrip()
    text = f"order {event.client_order_id} {_from(event)} is worth {money}: {' and '.join(reasons)}"
    return [_alarm(LARGE_ORDER, event, event.instrument, text, persons, severity=severity)]


def _hour(acting: Acting, event: Watched, terms: Terms) -> list[Alarm]:
    if not event.who or _stops(event):
        return []
    hour, day = event.at // _HOUR % 24, event.at // _DAY
    near = sum(acting.hours.get(each % 24, 0) for each in (hour - 1, hour, hour + 1))
    known = acting.days
    is_new = acting.last_days.get(hour) != day
    unusual = is_new and not near and known >= terms.enough_days
    if is_new:
        acting.hours[hour] = acting.hours.get(hour, 0) + 1
        acting.last_days[hour] = day
    if acting.last_day != day:
        acting.last_day = day
        acting.days += 1
        if acting.days >= 2 * terms.memory_days:
            acting.days //= 2
            acting.hours = {each: count // 2 for each, count in acting.hours.items() if count > 1}
    if not unusual:
        return []
    text = f"{event.who} trades between {hour:02d}:00 and {hour + 1:02d}:00 UTC: never seen then on {known} days"
    return [_alarm(UNUSUAL_HOUR, event, f"{event.who} {hour:02d}:00", text, _with((), event.person))]


def _flip(traded: Traded, event: Watched, quantity: Decimal, terms: Terms) -> list[Alarm]:
    traded.position += quantity if event.side is Side.BUY else -quantity
    sign = (traded.position > 0) - (traded.position < 0)
    if not sign or sign == traded.sign:
        return []
    is_flip, traded.sign = traded.sign != 0, sign
    if not is_flip:
        return []
    usual = traded.flips.usual
    within = terms.flips_s * _SECOND
    count = traded.flips.add(event.at, within)
    traded.flipped_by = {each: at for each, at in traded.flipped_by.items() if event.at - at < within}
    if event.person:
        traded.flipped_by[event.person] = event.at
    if count < max(terms.flips, terms.above_usual * usual):
        return []
    text = (
        f"the position in {event.instrument} has gone from one side to the other {count} times within "
        f"{terms.flips_s / 60:g} minutes, last by order {event.client_order_id} {_from(event)}"
    )
    return [_alarm(POSITION_FLIPS, event, event.instrument, text, tuple(sorted(traded.flipped_by)))]


def _cancel(acting: Acting, event: Watched, terms: Terms) -> list[Alarm]:
    if _stops(event) or acting.last_cancel == (event.at, event.cause):
        return []
    acting.last_cancel = (event.at, event.cause)
    usual = acting.cancels.usual
    count = acting.cancels.add(event.at, terms.cancels_s * _SECOND)
    if count < max(terms.cancels, terms.above_usual * usual):
        return []
    text = f"{event.who or 'somebody'} has taken back orders {count} times within {terms.cancels_s} s"
    return [_alarm(CANCEL_BURST, event, event.who or event.account, text, _with((), event.person))]


def _reduces(event: Watched) -> bool:
    """Whether it only closes: its size is what was held."""
    return event.reduce_only or _stops(event)


def _stops(event: Watched) -> bool:
    """Whether a kill, or flattening by hand, did it: that is to be done at any hour, and in any size."""
    return event.cause.startswith(PREFIXES) or (event.reduce_only and is_closing_key(event.client_order_id))


def _alarm(
    kind: str,
    event: Watched,
    subject: str,
    text: str,
    persons: tuple[str, ...],
    *,
    severity: Literal["warning", "critical"] = "warning",
) -> Alarm:
    return Alarm(
        kind=kind,
        severity=severity,
        account=event.account,
        algo=event.algo,
        subject=subject,
        text=text,
        at=event.at,
        persons=persons,
    )


def _with(persons: tuple[str, ...], person: str) -> tuple[str, ...]:
    return tuple(sorted({*persons, person} - {""}))


def _from(event: Watched) -> str:
    return f"of {event.who}" if event.who else "of the account"


def _of(known: dict[K, M], key: K, kind: type[M], at: int) -> M:
    found = known.get(key)
    if found is None:
        if len(known) >= _MOST:
            del known[min(known, key=lambda each: known[each].at)]
        found = known[key] = kind()
    found.at = at
    return found
