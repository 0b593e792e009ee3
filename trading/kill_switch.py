"""The kill switch: what one kill asks of a session, decided from its core's state.

A kill halts its scope (the limit `HALTED`, told to sessions directly so that nobody waits for central risk), takes back
what was open when it was thrown, and closes what is held if asked, in the names of those who hold it.  All of it may be
asked for again and again: while an instrument is being closed nothing is added.  Keys are made from the kill's id and
the moment, so that no attempt has the key of one that is long forgotten.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import takewhile
from typing import Final

import msgspec

from trading.account_book import AccountBook
from trading.closing import Part, Rules, closes, in_one, parts_of, standing_exits
from trading.ids import AccountId, AlgoId, CauseId, ClientOrderId, InstrumentId, Nanos, UserId
from trading.instruments import Instrument
from trading.limits import CLUSTER, account_scope, user_scope
from trading.orders import ZERO, CancelOrder, Order, OrderType, PlaceOrder, Side

#: Orders that came in while the kill was on its way to the session count as open when it was thrown.
ON_ITS_WAY_NS: Final = 5_000_000_000

#: Closing an instrument waits so long for what was open in it to be gone.
PATIENCE_NS: Final = 10_000_000_000

#: What nothing came of is tried again 1, 2, 4 … seconds after its end, at most so many, while the kill is in force.
MOST_PAUSE_S: Final = 60
#: Sessions remember orders that ended some minutes ago; more of them in a row make no difference.
_MOST_DOUBLINGS: Final = 6
#: After so many attempts in parts of which nothing came, one has all parts in one, and so on.
PARTS_TRIED: Final = 4
#: What the key of such a one ends with.
WHOLE: Final = ".0"

#: A cancel that is refused is asked for again 1, 2, 4 … seconds after it was asked for, at most so many.
MOST_CANCEL_PAUSE_S: Final = 15
#: What was not asked for again for so long has been forgotten.
_FORGOTTEN_NS: Final = 600_000_000_000

#: Keys have 48 characters; the rest is left for ``.<moment>.<part>``.
_STEM: Final = 38
_PLAIN: Final = re.compile(r"[A-Z0-9:_-]+")
_SECOND: Final = 1_000_000_000
#: 2020-01-01; six digits to the base of 36 last for 69 years.
_MOMENTS_BEGIN: Final = 1_577_836_800
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """A kill in force."""

    #: ``kill-<hex>``; the cause of everything that follows from it.
    id: str
    scope: str
    flatten: bool
    reason: str
    at: Nanos
    by: str
    #: When the limit was set that halts the scope.
    halted_at: Nanos

    @property
    def algo(self) -> AlgoId | None:
        """The one algo that it is about."""
        level, _, who = self.scope.partition(":")
        return AlgoId(who) if level == "algo" else None

    def covers(self, user: UserId, account: AccountId) -> bool:
        """Whether it may be about orders of an account; of an algo's it always may."""
        return self.scope in (CLUSTER, user_scope(user), account_scope(account)) or self.algo is not None


def to_cancel(kill: Kill, book: AccountBook) -> list[CancelOrder]:
    """Open orders that the kill takes back and nobody is taking back for good yet."""
    open_ = [order for order in book.open.values() if not order.cancelling]
    # Also of those that have ended already: their successors are about to be placed.
    open_ += [book.orders[key] for key in book.replacing]
    return [
        CancelOrder(account=book.account, client_order_id=order.client_order_id, cause=CauseId(kill.id))
        for order in open_
        if _is_of(kill, order) and (_was_open(kill, order) or (kill.flatten and order.algo is not None))
    ]


class CancelPace:
    """When kills ask again for cancels that brokers refuse: each of them costs a call and two events in the journal."""

    def __init__(self) -> None:
        #: How often each has been asked for, and when it last was.
        self._asked: dict[tuple[AccountId, ClientOrderId], tuple[int, Nanos]] = {}

    def __repr__(self) -> str:
        return f"CancelPace({len(self._asked)} asked for)"

    def due(self, cancels: list[CancelOrder], now: Nanos) -> list[CancelOrder]:
        """Those of ``cancels`` that are to be asked for now; they count as asked for."""
        # A clock that was set back holds up nothing.
        self._asked = {key: each for key, each in self._asked.items() if 0 <= now - each[1] < _FORGOTTEN_NS}
        due = []
        for cancel in cancels:
            times, at = self._asked.get(key := (cancel.account, cancel.client_order_id), (0, Nanos(0)))
            if not times or now >= at + min(2 ** (times - 1), MOST_CANCEL_PAUSE_S) * _SECOND:
                # More of them in a row make no difference.
                self._asked[key] = (min(times + 1, _MOST_DOUBLINGS), now)
                due.append(cancel)
        return due


def _is_of(kill: Kill, order: Order) -> bool:
    # What closes a position, for whichever kill, is nobody's to take back.
    return kill.algo in (None, order.algo) and not closes(order)


def _was_open(kill: Kill, order: Order) -> bool:
    """Whether it was there when the kill was thrown: what a person places afterwards is left to them."""
    return order.created_at <= kill.at + ON_ITS_WAY_NS


def _awaited(kill: Kill, book: AccountBook, now: Nanos) -> set[InstrumentId]:
    """Instruments of which something that was open may still fill: for a while their closing waits for its end.

    What cannot be taken back holds up nothing for longer: an exit counts as closing its part, and what an entry may yet
    bring is closed after it.
    """
    if now > kill.at + PATIENCE_NS:
        return set()
    return {order.instrument for order in book.open.values() if _is_of(kill, order) and _was_open(kill, order)}


def to_close(
    kill: Kill,
    book: AccountBook,
    now: Nanos,
    instruments: Mapping[InstrumentId, Instrument],
    marks: Mapping[InstrumentId, Decimal],
) -> list[PlaceOrder]:
    """Market orders that make flat what the kill is about: in each attempt one for everybody who holds an instrument.

    ``instruments`` and ``marks`` (last prices) tell what the venue takes (`closing.parts_of`).  While a kill closes an
    instrument, nothing is added: what is left is closed once its orders have ended.  Exits that stand, such as a
    person's, count as closing their part.
    """
    orders: list[PlaceOrder] = []
    not_yet = {order.instrument for order in book.open.values() if closes(order)} | _awaited(kill, book, now)
    placed = [order for order in book.orders.values() if order.client_order_id.startswith(f"{kill.id}-")]
    moment = _moment(now)
    for instrument, quantity in sorted((p.instrument, p.quantity) for p in book.positions.values() if p.quantity):
        stem = _stem(kill, instrument)
        attempts = _attempts([order for order in placed if order.instrument == instrument], stem)
        in_vain = _in_vain(attempts)
        if instrument in not_yet or moment in attempts or now < _due(attempts, len(in_vain), now):
            continue
        parts = _parts(kill, book, instrument, instruments, marks)
        whole = len(parts) > 1 and _are_refused(in_vain)
        if whole:
            # What was refused in parts may be taken whole; being flat is worth more than whose books say so.
            parts = [in_one(parts)]
        orders += [
            PlaceOrder(
                account=book.account,
                client_order_id=ClientOrderId(
                    f"{stem}.{moment}" + (f".{number}" if len(parts) > 1 else WHOLE if whole else "")
                ),
                instrument=instrument,
                side=Side.SELL if quantity > 0 else Side.BUY,
                type=OrderType.MARKET,
                quantity=part,
                reduce_only=True,
                algo=algo,
                created_at=now,
                cause=CauseId(kill.id),
            )
            for number, (algo, part) in enumerate(parts, 1)
        ]
    return orders


def _attempts(placed: list[Order], stem: str) -> dict[str, list[Order]]:
    """The closing orders of an instrument that are remembered, by the moment of the attempt, the first one first."""
    attempts: dict[str, list[Order]] = {}
    for order in placed:
        if found := re.fullmatch(r"\.([0-9a-z]{6})(?:\.\d+)?", order.client_order_id.removeprefix(stem)):
            attempts.setdefault(found.group(1), []).append(order)
    return dict(sorted(attempts.items()))


def _in_vain(attempts: dict[str, list[Order]]) -> list[list[Order]]:
    """The attempts of which nothing has come since something last did, the newest first."""
    return list(takewhile(lambda orders: not any(o.filled_quantity for o in orders), reversed(attempts.values())))


def _are_refused(in_vain: list[list[Order]]) -> bool:
    """Whether parts have been tried often enough since all of it was tried in one."""
    parts = list(takewhile(lambda orders: not orders[0].client_order_id.endswith(WHOLE), in_vain))
    return len(parts) >= PARTS_TRIED


def _due(attempts: dict[str, list[Order]], in_vain: int, now: Nanos) -> Nanos:
    """When another attempt may be made."""
    if not in_vain:
        return Nanos(0)
    # A clock that was set back holds up nothing.
    ended = max((o.updated_at for orders in attempts.values() for o in orders if o.updated_at <= now), default=0)
    pause_s = min(2 ** min(in_vain - 1, _MOST_DOUBLINGS), MOST_PAUSE_S)
    return Nanos(ended + pause_s * _SECOND)


def _parts(
    kill: Kill,
    book: AccountBook,
    instrument: InstrumentId,
    instruments: Mapping[InstrumentId, Instrument],
    marks: Mapping[InstrumentId, Decimal],
) -> list[Part]:
    whole = book.positions[instrument]
    rules = Rules(instruments.get(instrument), marks.get(instrument, whole.average_cost))
    if kill.algo is None:
        return parts_of(book, instrument, rules)
    own = book.algo_positions.get((kill.algo, instrument))
    if own is None or own.quantity * whole.quantity <= 0:
        return []
    # An exit never goes beyond what the account holds, and no other exit would close.
    exits = standing_exits(book, instrument)
    left = abs(whole.quantity) - sum(exits.values(), ZERO)
    quantity = rules.most(max(min(abs(own.quantity) - exits.get(kill.algo, ZERO), left), ZERO))
    return [(kill.algo, quantity)] if quantity > 0 else []


def _moment(now: Nanos) -> str:
    """The second, in six digits to the base of 36, which sort as the seconds do."""
    seconds, digits = now // _SECOND - _MOMENTS_BEGIN, ""
    for _ in range(6):
        seconds, digit = divmod(seconds, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _stem(kill: Kill, instrument: InstrumentId) -> str:
    """What the keys begin with that close an instrument: another for each, short enough, of what a key may hold.

    Where the instrument's own name is not that, a digest stands for it; no name of an instrument has a small "x" in it.
    """
    stem = f"{kill.id}-{instrument}"
    if _PLAIN.fullmatch(instrument) and len(stem) <= _STEM:
        return stem
    digest = hashlib.blake2b(instrument.encode(), digest_size=4).hexdigest()
    begin = re.sub(r"[^A-Z0-9:_-]", "_", instrument)
    return f"{kill.id}-{begin}"[: _STEM - len(digest) - 2] + f"-x{digest}"
