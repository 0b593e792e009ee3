"""The limits on the path of one algo's orders in one instrument, put together once for each version of the tree.

An order asks many questions of the tree; most have no limit behind them.  A path has only those that do.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from trading.ids import AccountId, AlgoId, InstrumentId, UserId
from trading.limits import (
    BUYING_POWER,
    CLUSTER,
    CONCENTRATION,
    GROSS_EXPOSURE,
    GROSS_RESOURCE,
    HALTED,
    LENT,
    LEVERAGE,
    LONG_RESOURCE,
    MARKET_HOURS,
    MONEY_AT_RISK,
    NET_EXPOSURE,
    OPEN_ORDERS,
    ORDER_NOTIONAL,
    ORDER_QUANTITY,
    ORDERS_PER_SECOND,
    ORDERS_RESOURCE,
    PAUSED,
    POSITION,
    PRICE_COLLAR,
    RATE_RESOURCE,
    REDUCE_ONLY,
    RESTRICTED,
    RISK_RESOURCE,
    SHORT_RESOURCE,
    STATES,
    LimitTree,
    Violation,
    account_scope,
    algo_scope,
    position_resource,
    user_scope,
)

#: Levels by number, widest first.
OF_CLUSTER, OF_USER, OF_ACCOUNT, OF_ALGO = range(4)
#: Checked where the order is, on each level below the cluster.
_LOCAL: Final = (*LENT, BUYING_POWER, LEVERAGE, CONCENTRATION)
_PER_INSTRUMENT: Final = frozenset({ORDER_QUANTITY, ORDER_NOTIONAL, PRICE_COLLAR, POSITION})


class Bound(msgspec.Struct, frozen=True):
    """One limit on the path."""

    kind: str
    level: int
    scope: str
    limit: Decimal


class Draw(msgspec.Struct, frozen=True):
    """A shared amount that orders of this path use; ``side`` +1: only by buys, -1: only by sells, 0: by both."""

    resource: str
    kind: str
    side: int = 0


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """What an order of ``algo`` in ``account`` and ``instrument`` must keep."""

    scopes: tuple[str, ...]
    #: Of the order by itself, tightest first.
    quantity: tuple[Bound, ...]
    notional: tuple[Bound, ...]
    collar: tuple[Bound, ...]
    #: Of what a level inside the session uses.
    local: tuple[Bound, ...]
    #: As ``local``, of the algo's own level: they hold for what raises the algo's own position, too.
    of_algo: tuple[Bound, ...]
    #: Of what all sessions use together.
    lent: tuple[Draw, ...]
    #: States that refuse entries; those that refuse everything; and the one that asks for open hours.
    refusing: tuple[Violation, ...]
    stopping: tuple[Violation, ...]
    hours: Violation | None
    #: Whether a look at the rate of orders is needed, and on which levels.
    counts_rate: bool


def path_of(tree: LimitTree, user: UserId, account: AccountId, algo: AlgoId | None, instrument: InstrumentId) -> Path:
    """The path through ``tree``."""
    scopes = [CLUSTER, user_scope(user), account_scope(account)]
    if algo is not None:
        scopes.append(algo_scope(algo))
    found: dict[str, list[Bound]] = {kind: [] for kind in (ORDER_QUANTITY, ORDER_NOTIONAL, PRICE_COLLAR)}
    local: list[Bound] = []
    lent: list[Draw] = []
    for level, scope in enumerate(scopes):
        for kind in (*found, *_LOCAL):
            value = tree.value(scope, kind, instrument if kind in _PER_INSTRUMENT else "")
            if value is None:
                continue
            if kind in found:
                found[kind].append(Bound(kind, level, scope, value))
            elif level == OF_CLUSTER and kind in LENT:
                lent.extend(_draws(kind, instrument))
            else:
                local.append(Bound(kind, level, scope, value))
    states = [s for scope in scopes for s in _states(tree, scope, instrument)]
    return Path(
        scopes=tuple(scopes),
        quantity=_tightest_first(found[ORDER_QUANTITY]),
        notional=_tightest_first(found[ORDER_NOTIONAL]),
        collar=_tightest_first(found[PRICE_COLLAR]),
        local=tuple(local),
        of_algo=tuple(
            b
            for b in local
            if b.level == OF_ALGO and b.kind in (POSITION, GROSS_EXPOSURE, NET_EXPOSURE, MONEY_AT_RISK, CONCENTRATION)
        ),
        lent=tuple(lent),
        refusing=tuple(v for v, _ in states if v.kind in (RESTRICTED, REDUCE_ONLY, HALTED, PAUSED)),
        stopping=tuple(v for v, value in states if v.kind == HALTED and value > 1),
        hours=next((v for v, _ in states if v.kind == MARKET_HOURS), None),
        counts_rate=any(b.kind == ORDERS_PER_SECOND for b in local) or any(d.kind == ORDERS_PER_SECOND for d in lent),
    )


def _tightest_first(bounds: list[Bound]) -> tuple[Bound, ...]:
    return tuple(sorted(bounds, key=lambda b: b.limit))


def _states(tree: LimitTree, scope: str, instrument: InstrumentId) -> list[tuple[Violation, Decimal]]:
    """States of a level, of the instrument and in general: either holds."""
    found = []
    for kind in STATES:
        own, general = tree.get(scope, kind, instrument), tree.get(scope, kind)
        on = [limit for limit in {own, general} if limit is not None and limit.value > 0]
        if on:
            strictest = max(on, key=lambda limit: limit.value)
            by = strictest.by if kind == PAUSED else ""
            found.append((Violation(kind=kind, scope=scope, instrument=strictest.instrument, by=by), strictest.value))
    return found


def _draws(kind: str, instrument: InstrumentId) -> tuple[Draw, ...]:
    match kind:
        case "position":
            return (Draw(position_resource(instrument), POSITION),)
        case "gross_exposure":
            return (Draw(GROSS_RESOURCE, GROSS_EXPOSURE),)
        case "net_exposure":
            return (Draw(LONG_RESOURCE, NET_EXPOSURE, 1), Draw(SHORT_RESOURCE, NET_EXPOSURE, -1))
        case "open_orders":
            return (Draw(ORDERS_RESOURCE, OPEN_ORDERS),)
        case "orders_per_second":
            return (Draw(RATE_RESOURCE, ORDERS_PER_SECOND),)
    return (Draw(RISK_RESOURCE, MONEY_AT_RISK),)
