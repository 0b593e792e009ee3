"""How much of everything is in use, kept up to date order by order.

The use of an instrument counts the worst case: the position plus everything that open orders may still add on one
side.  A buy and a sell that are both open do not cancel out, nor do two accounts.

What the market has told no price of is valued by the open orders themselves: each at its own price.  That is kept apart
from the mark, for it is somebody's own choice and says nothing of any other order.

A `Line` is one instrument in one account, or what one algo has of it; a `Level` sums lines: the whole session (one
user), an account, an algo.  A `Part` is what one algo, or nobody's algo, does in one instrument of one account.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Final

import msgspec

from trading.ids import AccountId, AlgoId, ClientOrderId, InstrumentId, Nanos
from trading.limit_path import Path
from trading.limits import (
    GROSS_RESOURCE,
    LONG_RESOURCE,
    ORDERS_RESOURCE,
    RISK_RESOURCE,
    SHORT_RESOURCE,
    LimitTree,
    position_resource,
)
from trading.money_at_risk import STOPS, Working, money_at_risk, working
from trading.order_worth import own_price
from trading.orders import ZERO, Order, Side

RATE_NS: Final = 1_000_000_000


class Level:
    """Sums over the lines of one level."""

    __slots__ = ("down", "gross", "lines", "open_orders", "parts", "positions", "sent", "up")

    def __init__(self) -> None:
        #: Worst quantity of each instrument.
        self.positions: dict[InstrumentId, Decimal] = {}
        self.gross = ZERO
        #: Signed money if all open buys, or all open sells, filled.
        self.up = ZERO
        self.down = ZERO
        self.open_orders = 0
        self.lines: list[Line] = []
        self.parts: list[Part] = []
        #: When orders and changes went out in the last second.
        self.sent: deque[Nanos] = deque()

    def rate(self, now: Nanos) -> int:
        """How many orders and changes were sent in the second before ``now``."""
        sent = self.sent
        while sent and sent[0] <= now - RATE_NS:
            sent.popleft()
        return len(sent)

    def holdings(self) -> Decimal:
        """Signed value of what is held."""
        return sum((line.position * line.unit for line in self.lines), ZERO)

    def entries(self) -> Decimal:
        """Value of what open orders may add to what is held."""
        return sum((line.value - abs(line.position) * line.unit for line in self.lines), ZERO)

    def value_of(self, instrument: InstrumentId) -> Decimal:
        """Value of one instrument at its worst."""
        return sum((line.value for line in self.lines if line.instrument == instrument), ZERO)

    def money_at_risk(self) -> Decimal:
        """Sum over the parts."""
        return sum((part.money_at_risk() for part in self.parts), ZERO)


class Line(msgspec.Struct):
    """One instrument in one account, or an algo's share of it."""

    account: AccountId
    instrument: InstrumentId
    multiplier: Decimal
    levels: tuple[Level, ...]
    position: Decimal = ZERO
    open_buys: Decimal = ZERO
    open_sells: Decimal = ZERO
    #: Largest absolute quantity that may come to be held.
    worst: Decimal = ZERO
    #: ``worst`` in money.
    value: Decimal = ZERO
    #: Signed money if all buys, or all sells, filled.
    up: Decimal = ZERO
    down: Decimal = ZERO
    #: 0: no price is known.
    mark: Decimal = ZERO
    #: Value of one unit at the mark.
    unit: Decimal = ZERO
    #: While no price is known: open buys, and open sells, in money at their own prices.
    bought: Decimal = ZERO
    sold: Decimal = ZERO
    #: Of an account's line: what its algos have of it.
    shares: list[Line] = []

    def reduces(self, side: Side, quantity: Decimal) -> bool:
        """Whether an order, after all open ones of its side, could only make the position smaller."""
        if self.position == 0 or (self.position > 0) == (side is Side.BUY):
            return False
        resting = self.open_buys if side is Side.BUY else self.open_sells
        return resting + quantity <= abs(self.position)

    def settle(self) -> None:
        """Bring the figures, and the levels above, up to date."""
        position, unit = self.position, self.unit
        high, low = position + self.open_buys, position - self.open_sells
        worst = max(abs(high), abs(low), abs(position))
        if unit:
            value, up, down = worst * unit, high * unit, low * unit
        else:
            value, up, down = max(self.bought, self.sold), self.bought, -self.sold
        for level in self.levels:
            if worst != self.worst:
                level.positions[self.instrument] = level.positions.get(self.instrument, ZERO) + worst - self.worst
            level.gross += value - self.value
            level.up += up - self.up
            level.down += down - self.down
        self.worst, self.value, self.up, self.down = worst, value, up, down


class Effect(msgspec.Struct, frozen=True):
    """By how much an order would change the use of a line."""

    #: Growth of the worst case; 0 where it does not grow.
    quantity: Decimal
    money: Decimal
    #: Change of what would be held, in money, if all buys (at least 0) or all sells (at most 0) filled.
    up: Decimal
    down: Decimal


def effect_of(line: Line, side: Side, quantity: Decimal, price: Decimal, dearer: Decimal = ZERO) -> Effect:
    """What an order does to a line.

    Where no mark is known ``price`` values it; a change of an order raises by ``dearer`` what was open of it already.
    """
    is_buy = side is Side.BUY
    # It moves one end of what may come to be held, away from the other: the worst can only be there.
    end = line.position + line.open_buys + quantity if is_buy else line.position - line.open_sells - quantity
    worst = max(line.worst, abs(end))
    more = worst - line.worst
    if line.unit:
        change = quantity * line.unit
        money = worst * line.unit - line.value if more else ZERO
    else:
        change = (quantity * price + dearer) * line.multiplier
        money = max((line.bought if is_buy else line.sold) + change - line.value, ZERO)
    return Effect(more, money, change, ZERO) if is_buy else Effect(more, money, ZERO, -change)


class Part:
    """What one algo (or None) does in one instrument of one account."""

    __slots__ = ("_open", "_path", "_risk", "_stops", "_tree", "account", "algo", "levels", "line", "orders", "own")

    def __init__(self, account: AccountId, algo: AlgoId | None, line: Line, own: Line | None) -> None:
        self.account = account
        self.algo = algo
        #: Of the account; and the algo's own.
        self.line = line
        self.own = own
        #: Open orders, and how much of each counts; at which price, while no mark is known.
        self.orders: dict[ClientOrderId, tuple[Order, Decimal, Decimal]] = {}
        self.levels = (*line.levels, *(own.levels if own is not None else ()))
        #: Of these: those that protect; and the open quantity of all others, summed up as it changes.
        self._stops: dict[ClientOrderId, tuple[Order, Decimal]] = {}
        self._open = {Side.BUY: ZERO, Side.SELL: ZERO}
        self._risk: Decimal | None = None
        self._path: Path | None = None
        self._tree: LimitTree | None = None

    @property
    def position(self) -> Decimal:
        """What this algo holds; without an algo, what no algo holds."""
        if self.own is not None:
            return self.own.position
        return self.line.position - sum((share.position for share in self.line.shares), ZERO)

    def money_at_risk(self) -> Decimal:
        """The loss if every protective stop is hit."""
        if self._risk is None:
            self._risk = self.risk_with(None, None)
        return self._risk

    def risk_with(self, key: ClientOrderId | None, more: Working | None, price: Decimal = ZERO) -> Decimal:
        """The money at risk with one more order, which stands for the open one under ``key``.

        ``price`` values that one while no mark is known: then all that is open counts, for no stop has a distance yet.
        """
        if not self.line.unit:
            return self._risk_without_mark(key, more, price)
        orders = [working(order, quantity) for k, (order, quantity) in self._stops.items() if k != key]
        if more is not None:
            orders.append(more)
        buys, sells = self._open[Side.BUY], self._open[Side.SELL]
        if key is not None and key not in self._stops and key in self.orders:
            order, quantity, _ = self.orders[key]
            if order.side is Side.BUY:
                buys -= quantity
            else:
                sells -= quantity
        return money_at_risk(self.position, self.line.mark, self.line.multiplier, orders, buys, sells)

    def _risk_without_mark(self, key: ClientOrderId | None, more: Working | None, price: Decimal) -> Decimal:
        worth = {Side.BUY: ZERO, Side.SELL: ZERO}
        for each, (order, quantity, own) in self.orders.items():
            if each != key:
                worth[order.side] += quantity * own
        if more is not None:
            worth[more[0]] += more[1] * price
        return max(worth.values()) * self.line.multiplier

    def counted(self, key: ClientOrderId) -> tuple[Decimal, Decimal]:
        """How much of an order counts as open, and, while no mark is known, at which price."""
        known = self.orders.get(key)
        return (ZERO, ZERO) if known is None else known[1:]

    def count(self, order: Order, before: Decimal, quantity: Decimal, price: Decimal = ZERO) -> None:
        """Count ``quantity`` of an order as open, where ``before`` was counted."""
        key = order.client_order_id
        if quantity:
            self.orders[key] = (order, quantity, price)
        else:
            self.orders.pop(key, None)
        if order.type not in STOPS:
            self._open[order.side] += quantity - before
        elif quantity:
            self._stops[key] = (order, quantity)
        else:
            self._stops.pop(key, None)
        self.changed()

    def changed(self) -> None:
        """Orders, holdings or the price are not what they were."""
        self._risk = None

    def path(self, tree: LimitTree) -> Path | None:
        """The path put together for ``tree``, if that has been done."""
        return self._path if self._tree is tree else None

    def remember(self, tree: LimitTree, path: Path) -> Path:
        """Keep the path for ``tree``."""
        self._tree, self._path = tree, path
        return path


class ExposureBook:
    """Use of everything by the accounts of one session."""

    def __init__(self) -> None:
        self.session = Level()
        self.accounts: dict[AccountId, Level] = {}
        self.algos: dict[AlgoId, Level] = {}
        self.marks: dict[InstrumentId, Decimal] = {}
        #: Instruments whose mark came from the market, not from an execution or a cost of ours.
        self.quoted: set[InstrumentId] = set()
        #: When the market told these.
        self.marked_at: dict[InstrumentId, Nanos] = {}
        self._lines: dict[tuple[AccountId, InstrumentId], Line] = {}
        self._parts: dict[tuple[AccountId, AlgoId | None, InstrumentId], Part] = {}
        self._by_instrument: dict[InstrumentId, tuple[list[Line], list[Part]]] = {}

    def line(self, account: AccountId, instrument: InstrumentId, multiplier: Decimal) -> Line:
        """The line of an instrument in an account, made when first asked for."""
        line = self._lines.get((account, instrument))
        if line is None:
            level = self.accounts.setdefault(account, Level())
            line = self._lines[(account, instrument)] = self._line(
                account, instrument, multiplier, (self.session, level)
            )
        return line

    def part(self, account: AccountId, algo: AlgoId | None, instrument: InstrumentId, multiplier: Decimal) -> Part:
        """What an algo (or None) does in an instrument, made when first asked for."""
        part = self._parts.get((account, algo, instrument))
        if part is None:
            line = self.line(account, instrument, multiplier)
            own = None
            if algo is not None:
                own = self._line(account, instrument, multiplier, (self.algos.setdefault(algo, Level()),))
                line.shares = [*line.shares, own]
            part = self._parts[(account, algo, instrument)] = Part(account, algo, line, own)
            for level in part.levels:
                level.parts.append(part)
            self._by_instrument[instrument][1].append(part)
        return part

    def _line(
        self, account: AccountId, instrument: InstrumentId, multiplier: Decimal, levels: tuple[Level, ...]
    ) -> Line:
        mark = self.marks.get(instrument, ZERO)
        line = Line(account, instrument, multiplier, levels, mark=mark, unit=mark * multiplier)
        for level in levels:
            level.lines.append(line)
        self._by_instrument.setdefault(instrument, ([], []))[0].append(line)
        return line

    def lines(self) -> dict[tuple[AccountId, InstrumentId], Line]:
        """The lines of all accounts (do not change them)."""
        return self._lines

    def parts(self) -> dict[tuple[AccountId, AlgoId | None, InstrumentId], Part]:
        """All parts (do not change them)."""
        return self._parts

    def set_position(self, line: Line, quantity: Decimal) -> None:
        """Say what is held now."""
        line.position = quantity
        line.settle()
        for part in self._by_instrument[line.instrument][1]:
            part.changed()

    def count(self, part: Part, order: Order, before: Decimal, quantity: Decimal, at_least: Decimal = ZERO) -> None:
        """Count ``quantity`` of an order as open from now on, where ``before`` was counted.

        Without a mark it counts at its own price, or ``at_least`` at that: a change to it may be under way.
        """
        change = quantity - before
        price = worth = ZERO
        if not part.line.unit:
            price = max(own_price(order.side, order.limit_price, order.stop_price), at_least)
            counted, at = part.counted(order.client_order_id)
            worth = (quantity * price - counted * at) * part.line.multiplier
        for line in (part.line,) if part.own is None else (part.line, part.own):
            if order.side is Side.BUY:
                line.open_buys += change
                line.bought += worth
            else:
                line.open_sells += change
                line.sold += worth
            line.settle()
        part.count(order, before, quantity, price)
        opened = (quantity > 0) - (before > 0)
        if opened:
            for level in part.levels:
                level.open_orders += opened

    def set_mark(self, instrument: InstrumentId, price: Decimal) -> None:
        """Value everything held of an instrument at ``price`` from now on."""
        if self.marks.get(instrument) == price:
            return
        self.marks[instrument] = price
        lines, parts = self._by_instrument.get(instrument, ((), ()))
        for line in lines:
            line.mark, line.unit = price, price * line.multiplier
            line.settle()
        for part in parts:
            part.changed()

    def used(self, risk: Decimal) -> dict[str, Decimal]:
        """Shared amounts in use, by resource; ``risk`` is the money at risk.  Without the rate of orders: it passes."""
        session = self.session
        used = {position_resource(i): worst for i, worst in session.positions.items() if worst}
        used[GROSS_RESOURCE] = session.gross
        used[LONG_RESOURCE] = max(session.up, ZERO)
        used[SHORT_RESOURCE] = max(-session.down, ZERO)
        used[ORDERS_RESOURCE] = Decimal(session.open_orders)
        used[RISK_RESOURCE] = risk
        return {name: amount for name, amount in used.items() if amount}
