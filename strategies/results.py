"""What a back-test found: orders, fills, equity, round trips and their summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from trading.ids import ClientOrderId, InstrumentId, Nanos
from trading.orders import ZERO, Fill, Order, Side
from trading.positions import Position


class EquityPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Cash plus the value of all positions at one time."""

    at: Nanos
    equity: Decimal


class RoundTrip(msgspec.Struct, frozen=True, kw_only=True):
    """A position from flat to flat, or to the other side; ``profit`` is after fees."""

    instrument: InstrumentId
    side: Side
    opened_at: Nanos
    closed_at: Nanos
    profit: Decimal


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures most asked for; all money in the account's currency, ratios as shares of 1."""

    profit: Decimal
    fees: Decimal
    realised: Decimal
    #: Largest fall of equity from a peak, in money and as a share of that peak.
    max_drawdown: Decimal
    max_drawdown_ratio: float
    trips: int
    wins: int
    win_ratio: float
    average_win: Decimal
    average_loss: Decimal
    #: Money won for each unit lost; None where nothing was lost.
    profit_factor: float | None


class Result(msgspec.Struct, kw_only=True):
    """All of one back-test.  ``failed`` is the traceback of a callback that raised, else ""."""

    started_cash: Decimal
    cash: Decimal
    orders: list[Order]
    fills: list[tuple[ClientOrderId, Fill]]
    #: Those that were ever traded.
    positions: list[Position]
    equity: list[EquityPoint]
    trips: list[RoundTrip]
    #: (time, level, text)
    log: list[tuple[Nanos, str, str]]
    failed: str
    summary: Summary


class RoundTrips:
    """Follows positions through their fills and notes each round trip."""

    def __init__(self) -> None:
        self.done: list[RoundTrip] = []
        #: By instrument: opened at, and what had been earned before (after fees).
        self._open: dict[InstrumentId, tuple[Nanos, Decimal]] = {}
        self._before = ZERO
        self._earned = ZERO

    def before(self, position: Position) -> None:
        """Call it before a fill is applied."""
        self._before = position.quantity
        self._earned = position.realised - position.fees

    def after(self, position: Position, at: Nanos) -> None:
        """Call it after the fill was applied.  The fee of a fill that flips goes to the trip it ends."""
        now, was = position.quantity, self._before
        earned = position.realised - position.fees
        if was == 0:
            self._open[position.instrument] = (at, self._earned)
        elif now == 0 or (now > 0) is not (was > 0):
            opened_at, base = self._open.pop(position.instrument)
            self.done.append(
                RoundTrip(
                    instrument=position.instrument,
                    side=Side.BUY if was > 0 else Side.SELL,
                    opened_at=opened_at,
                    closed_at=at,
                    profit=earned - base,
                )
            )
            if now != 0:
                self._open[position.instrument] = (at, earned)


def drawdown(equity: Iterable[EquityPoint]) -> tuple[Decimal, float]:
    """Largest fall from a peak: in money, and the largest share of a (positive) peak that was lost."""
    peak: Decimal | None = None
    worst, ratio = ZERO, 0.0
    for point in equity:
        peak = point.equity if peak is None else max(peak, point.equity)
        fall = peak - point.equity
        worst = max(worst, fall)
        if peak > 0:
            ratio = max(ratio, float(fall / peak))
    return worst, ratio


def summarise(
    cash: Decimal, equity: Sequence[EquityPoint], trips: Sequence[RoundTrip], positions: Iterable[Position]
) -> Summary:
    """The figures of a run that started with ``cash``."""
    held = list(positions)
    wins = [t.profit for t in trips if t.profit > 0]
    losses = [t.profit for t in trips if t.profit < 0]
    worst, ratio = drawdown(equity)
    lost = -sum(losses, ZERO)
    return Summary(
        profit=(equity[-1].equity if equity else cash) - cash,
        fees=sum((p.fees for p in held), ZERO),
        realised=sum((p.realised for p in held), ZERO),
        max_drawdown=worst,
        max_drawdown_ratio=ratio,
        trips=len(trips),
        wins=len(wins),
        win_ratio=len(wins) / len(trips) if trips else 0.0,
        average_win=sum(wins, ZERO) / len(wins) if wins else ZERO,
        average_loss=-lost / len(losses) if losses else ZERO,
        profit_factor=float(sum(wins, ZERO) / lost) if lost else None,
    )
