"""What one level of the tree uses, as it is told to central risk and shown to people."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from trading.ids import Nanos
from trading.limits import Violation
from trading.orders import ZERO


class LevelUse(msgspec.Struct, frozen=True, kw_only=True):
    """Use of a level at a moment; with ``instrument``, of that instrument alone."""

    scope: str
    instrument: str = ""
    #: Value of what is held or may come to be held, signs left off.
    gross: Decimal = ZERO
    #: Signed value of what is held; and the most long, and the most short, that open orders could make of it.
    net: Decimal = ZERO
    long: Decimal = ZERO
    short: Decimal = ZERO
    #: When the day began that ``profit`` and ``drawdown`` are of.
    day: Nanos = Nanos(0)
    profit: Decimal = ZERO
    drawdown: Decimal = ZERO
    money_at_risk: Decimal = ZERO
    open_orders: int = 0
    #: Losses that have reached their limit.
    blocked: tuple[Violation, ...] = ()


def together(scope: str, uses: Iterable[LevelUse], instrument: str = "") -> LevelUse:
    """The sum of several; a drawdown of all is not the sum of theirs, so it is left 0."""
    gross = net = long = short = profit = risk = ZERO
    orders = 0
    for use in uses:
        gross += use.gross
        net += use.net
        long += use.long
        short += use.short
        profit += use.profit
        risk += use.money_at_risk
        orders += use.open_orders
    return LevelUse(
        scope=scope,
        instrument=instrument,
        gross=gross,
        net=net,
        long=long,
        short=short,
        profit=profit,
        money_at_risk=risk,
        open_orders=orders,
    )
