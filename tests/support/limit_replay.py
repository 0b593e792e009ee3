"""Limits, replayed over the ledger's history: was one exceeded at any instant?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tests.support.three_books import ZERO, BookedOrder, Deed, LimitRule, Movement


@dataclass(slots=True)
class _Open:
    line: _Line
    sign: int
    #: Total wanted and executed so far.
    quantity: Decimal
    filled: Decimal = ZERO

    @property
    def left(self) -> Decimal:
        return max(self.quantity - self.filled, ZERO)


@dataclass(slots=True)
class _Line:
    """One instrument in one account."""

    held: Decimal = ZERO
    buys: Decimal = ZERO
    sells: Decimal = ZERO

    @property
    def worst(self) -> Decimal:
        return max(abs(self.held + self.buys), abs(self.held - self.sells), abs(self.held))

    def add_open(self, sign: int, change: Decimal) -> None:
        if sign > 0:
            self.buys += change
        else:
            self.sells += change


def check_limits(
    movements: Iterable[Movement],
    limits: Sequence[LimitRule],
    orders: Iterable[BookedOrder],
    users: Mapping[str, str],
    opening: Mapping[tuple[str, str], Decimal],
) -> Iterator[str]:
    """No arrival, resize or fill at the broker raised a use above its limit.

    Held and possibly held count alike: the position plus all that open orders may still add on one side.  A
    price that moves breaks no limit by itself, and what only reduces may always come.  ``orders`` are the
    journal's: they say which algo an order is of.
    """
    algos = {(o.account, o.tag): o.algo for o in orders}
    replays = [_Replay(rule, users, algos, opening) for rule in limits]
    for movement in movements:
        for replay in replays:
            found = replay.take(movement)
            rule = replay.rule
            if found and rule.since <= movement.at and (rule.until is None or movement.at < rule.until):
                yield found


class _Replay:
    """One limit's use while the ledger's history passes by."""

    def __init__(
        self,
        rule: LimitRule,
        users: Mapping[str, str],
        algos: Mapping[tuple[str, str], str],
        opening: Mapping[tuple[str, str], Decimal],
    ) -> None:
        self.rule = rule
        self.users = users
        self.algos = algos
        self.open: dict[tuple[str, str], _Open] = {}
        self.lines: dict[tuple[str, str], _Line] = defaultdict(_Line)
        # What was held before has no order, so no algo.
        for key, held in opening.items():
            if self._covers(key[0], ""):
                self.lines[key].held = held
        self.marks: dict[str, Decimal] = {}
        self.most = rule.value * (1 + rule.tolerance)

    def take(self, step: Movement) -> str:
        """Take one step; the violation it makes, or ""."""
        if step.deed is Deed.MARKED:
            self.marks[step.instrument] = step.price
            return ""
        if not self._covers(step.account, step.tag):
            return ""
        line = self.lines[(step.account, step.instrument)]
        before, worst = self._use(step.instrument), line.worst
        self._move(step)
        after = self._use(step.instrument)
        if self.rule.kind == "order_quantity":
            # Of each order by itself; one that only reduces may have any size.
            asks = step.deed in (Deed.ARRIVED, Deed.RESIZED) and self._is_of(step.instrument) and line.worst > worst
            before, after = ZERO, step.quantity if asks else ZERO
        # A fill moves open quantity into what is held; what that is worth now is the market's doing.
        judged = step.deed is not Deed.FILLED or self.rule.kind == "position"
        if judged and after > self.most and after > before:
            return (
                f"{self.rule.kind} of {step.instrument} in {self.rule.scope} rose from {before} to {after} at "
                f"{step.at}, above the limit {self.rule.value} ({step.account} {step.tag} {step.deed})"
            )
        return ""

    def _covers(self, account: str, tag: str) -> bool:
        level, _, name = self.rule.scope.partition(":")
        match level:
            case "user":
                return self.users.get(account) == name
            case "account":
                return account == name
            case "algo":
                return self.algos.get((account, tag)) == name
        return True

    def _is_of(self, instrument: str) -> bool:
        return self.rule.instrument in ("", instrument)

    def _move(self, step: Movement) -> None:
        key = (step.account, step.tag)
        order = self.open.get(key)
        if step.deed is Deed.ARRIVED:
            line = self.lines[(step.account, step.instrument)]
            self.open[key] = order = _Open(line, step.sign, step.quantity)
            line.add_open(step.sign, order.left)
            return
        if step.deed is Deed.FILLED:
            self.lines[(step.account, step.instrument)].held += step.sign * step.quantity
        if order is None:
            return
        before = order.left
        match step.deed:
            case Deed.RESIZED:
                order.quantity = step.quantity
            case Deed.FILLED:
                order.filled += step.quantity
            case Deed.ENDED:
                order.quantity = order.filled
                del self.open[key]
        order.line.add_open(order.sign, order.left - before)

    def _use(self, instrument: str) -> Decimal:
        match self.rule.kind:
            case "position":
                if not self._is_of(instrument):
                    return ZERO
                return sum((line.worst for key, line in self.lines.items() if key[1] == instrument), ZERO)
            case "gross_exposure":
                return sum((line.worst * self.marks.get(key[1], ZERO) for key, line in self.lines.items()), ZERO)
            case "open_orders":
                return Decimal(sum(order.left > 0 for order in self.open.values()))
            case "order_quantity":
                return ZERO
        raise ValueError(f"no replay for limits of kind {self.rule.kind}")
