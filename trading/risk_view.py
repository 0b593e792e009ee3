"""What central risk shows: use by level, the state of every limit, and the day's highest use.

A limit *holds* once every session that may still act has heard of it and no more than it allows is lent out.  Until
then it is said who is waited for.  A limit below what is in use already holds, and shows as breached: only orders that
reduce pass until it is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from trading.budgets import RiskBook
from trading.ids import Nanos
from trading.levels import LevelUse, together
from trading.limits import (
    CLUSTER,
    DAILY_LOSS,
    DRAWDOWN,
    GROSS_EXPOSURE,
    LENT,
    LONG,
    MONEY_AT_RISK,
    NET_EXPOSURE,
    OPEN_ORDERS,
    POSITION,
    SHORT,
    Limit,
    resource,
)
from trading.orders import ZERO


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What a session said last, and when."""

    at: Nanos
    limits_version: int
    levels: tuple[LevelUse, ...] = ()


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a limit is kept by everybody by now."""

    scope: str
    kind: str
    instrument: str
    value: Decimal
    #: What is in use; None where no one figure says it.
    used: Decimal | None
    breached: bool
    holds: bool
    #: Since when it has held without a break, as far as this incarnation of central risk knows; 0: it does not.
    since: Nanos
    #: Sessions that have not heard of it, or have yet to give back what they borrowed.
    waiting: tuple[str, ...]


def all_levels(heard: Mapping[str, Heard], day: Nanos) -> list[LevelUse]:
    """Use of the cluster, of its instruments, and of every level of every session; profits of other days are 0."""
    uses = [
        use if use.day == day else msgspec.structs.replace(use, profit=ZERO, drawdown=ZERO)
        for said in heard.values()
        for use in said.levels
    ]
    users = [use for use in uses if use.scope.startswith("user:")]
    by_instrument: dict[str, list[LevelUse]] = defaultdict(list)
    for use in users:
        if use.instrument:
            by_instrument[use.instrument].append(use)
    return [
        together(CLUSTER, (use for use in users if not use.instrument)),
        *(together(CLUSTER, mine, instrument) for instrument, mine in sorted(by_instrument.items())),
        *sorted(uses, key=lambda use: (use.scope, use.instrument)),
    ]


class LimitWatch:
    """Remembers since when each limit holds."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, str, int], Nanos] = {}

    def states(
        self,
        book: RiskBook,
        heard: Mapping[str, Heard],
        levels: Iterable[LevelUse],
        now: Nanos,
        quiet_after_ns: int,
    ) -> tuple[LimitState, ...]:
        """The state of every limit.

        A session not heard of for ``quiet_after_ns`` sends nothing that needs a limit any more: nobody waits for it.
        """
        use_of = {(use.scope, use.instrument): use for use in levels}
        awake = {name: said for name, said in heard.items() if now - said.at < quiet_after_ns}
        found, since = [], dict[tuple[str, str, str, int], Nanos]()
        for limit in book.limits.all():
            waiting = {name for name, said in awake.items() if said.limits_version < limit.changed_at}
            if limit.scope == CLUSTER and limit.kind in LENT:
                waiting |= _borrowers(book, limit)
            key = (limit.scope, limit.kind, limit.instrument, limit.changed_at)
            if not waiting:
                since[key] = self._since.get(key, now)
            used = used_of(limit, use_of)
            found.append(
                LimitState(
                    scope=limit.scope,
                    kind=limit.kind,
                    instrument=limit.instrument,
                    value=limit.value,
                    used=used,
                    breached=used is not None and used > limit.value,
                    holds=not waiting,
                    since=since.get(key, Nanos(0)),
                    waiting=tuple(sorted(waiting)),
                )
            )
        self._since = since
        return tuple(found)


def _borrowers(book: RiskBook, limit: Limit) -> set[str]:
    """Sessions that have more on record than they use, of a resource whose loans pass the limit."""
    if limit.kind == NET_EXPOSURE:
        names = {resource(CLUSTER, NET_EXPOSURE, side) for side in (LONG, SHORT)}
    elif limit.kind == POSITION and limit.instrument:
        names = {resource(CLUSTER, POSITION, limit.instrument)}
    elif limit.kind == POSITION:
        prefix = resource(CLUSTER, POSITION)
        names = {name for mine in book.lent.values() for name in mine if name.startswith(prefix)}
    else:
        names = {resource(CLUSTER, limit.kind)}
    found = set()
    for name in names:
        value = book.limits.limit_of(name)
        if value is None or book.total(name) <= value:
            continue
        for session, mine in book.lent.items():
            if mine.get(name, ZERO) > book.used.get(session, {}).get(name, ZERO):
                found.add(session)
    return found


def used_of(limit: Limit, use_of: Mapping[tuple[str, str], LevelUse]) -> Decimal | None:
    """How much of a limit is in use; None where no one figure says it."""
    if limit.kind == POSITION:
        return None
    use = use_of.get((limit.scope, ""))
    if use is None:
        return None
    figures = {
        GROSS_EXPOSURE: use.gross,
        NET_EXPOSURE: max(use.long, use.short),
        OPEN_ORDERS: Decimal(use.open_orders),
        MONEY_AT_RISK: use.money_at_risk,
        DAILY_LOSS: max(-use.profit, ZERO),
        DRAWDOWN: use.drawdown,
    }
    return figures.get(limit.kind)
