"""A session's profit today, on each of its levels, and what it tells central risk of them."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Final

from trading.budgets import Purse
from trading.day_profit import Day, DayBook, day_of, reached_of
from trading.exposure import Level
from trading.ids import Epoch, InstrumentId, Nanos, UserId
from trading.levels import LevelUse
from trading.limits import Violation, account_scope, algo_scope, user_scope
from trading.orders import ZERO
from trading.positions import Position
from trading.session_replies import Replies

#: Profit is looked at this often at most.
LOOK_EVERY_NS: Final = 200_000_000

_Totals = dict[tuple[str, str], Decimal]


class DayWatch(Replies):
    """Watches profit and loss since the day began."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        super().__init__(user, epoch)
        self.purse = Purse(f"session/{user}", epoch)
        self.days = DayBook()
        #: By level: losses that have reached their limit.
        self.blocked: dict[str, tuple[Violation, ...]] = {}
        self._looked_at = Nanos(0)
        self._began_at = Nanos(0)

    def _watch_days(self, now: Nanos) -> None:
        """Take in what has been gained or lost, and block levels that have lost too much."""
        if now - self._looked_at < LOOK_EVERY_NS or not self.purse.has_limits:
            return
        limits = self.purse.limits
        self._began_at = day_of(now, limits.day_start_ns)
        if not self._looked_at:
            self._recall_marks()
        self._looked_at = now
        blocked = {}
        for (scope, instrument), total in self._totals(self._began_at).items():
            day = self.days.see(scope, total, limits, now, instrument)
            if day.reached:
                blocked[scope] = reached_of(day)
        self.blocked = blocked

    def _recall_marks(self) -> None:
        """Value what has no price of the market yet as it was last seen before a restart.

        At its cost all that is not realised would look lost, or gained, until a price comes.
        """
        user = user_scope(self.user)
        sizes: dict[InstrumentId, Decimal] = defaultdict(lambda: ZERO)
        for book in self.accounts.values():
            for position in book.positions.values():
                sizes[position.instrument] += position.quantity * position.multiplier
        for (scope, instrument), total in self._totals(self._began_at).items():
            day = self.days.get(scope, instrument)
            if scope != user or day is None or instrument in self.exposure.quoted:
                continue
            of = InstrumentId(instrument)
            if size := sizes.get(of):
                mark = round(self.exposure.marks.get(of, ZERO) + (day.latest - total) / size, 10)
                if mark > 0:
                    self.exposure.set_mark(of, mark)

    def _totals(self, began_at: Nanos) -> _Totals:
        """Profit over all time by level, and by instrument that the user held since the day began."""
        user = user_scope(self.user)
        totals: _Totals = defaultdict(lambda: ZERO)
        totals[(user, "")] = ZERO
        by_instrument: dict[InstrumentId, Decimal] = defaultdict(lambda: ZERO)
        today: set[InstrumentId] = set()
        for account, book in self.accounts.items():
            total = ZERO
            for position in book.positions.values():
                profit = self._profit(position)
                by_instrument[position.instrument] += profit
                if position.quantity or position.updated_at >= began_at:
                    today.add(position.instrument)
                total += profit
            totals[(account_scope(account), "")] = total
            totals[(user, "")] += total
            for (algo, _), position in book.algo_positions.items():
                totals[(algo_scope(algo), "")] += self._profit(position)
        # All accounts of an instrument or none: what one of them took yesterday must not drop out of the sum.
        totals.update({(user, instrument): by_instrument[instrument] for instrument in today})
        return totals

    def _profit(self, position: Position) -> Decimal:
        if not position.quantity:
            return position.profit
        mark = self.exposure.marks.get(position.instrument)
        return position.profit + (position.unrealised(mark) if mark is not None else ZERO)

    def _today(self, scope: str, instrument: str = "") -> Day | None:
        day = self.days.get(scope, instrument)
        return day if day is not None and day.began_at >= self._began_at else None

    def levels(self) -> tuple[LevelUse, ...] | None:
        """Use of every level of this session: the user, its instruments, accounts and algos.

        None before today's profit was looked at: told as 0, it would hide a loss from the cluster's.
        """
        if not self._looked_at:
            return None
        exposure = self.exposure
        user = user_scope(self.user)
        uses = [self._use(user, exposure.session)]
        uses += [self._use(account_scope(a), exposure.accounts.get(a) or Level()) for a in self.accounts]
        uses += [self._use(algo_scope(a), level) for a, level in exposure.algos.items()]
        return (*uses, *self._by_instrument(user))

    def _use(self, scope: str, level: Level) -> LevelUse:
        day = self._today(scope)
        return LevelUse(
            scope=scope,
            gross=level.gross,
            net=level.holdings(),
            long=max(level.up, ZERO),
            short=max(-level.down, ZERO),
            day=self._began_at,
            profit=day.profit if day is not None else ZERO,
            drawdown=day.drawdown if day is not None else ZERO,
            money_at_risk=level.money_at_risk(),
            open_orders=level.open_orders,
            blocked=self.blocked.get(scope, ()),
        )

    def _by_instrument(self, user: str) -> list[LevelUse]:
        exposure = self.exposure
        lines = defaultdict(list)
        for line in exposure.session.lines:
            lines[line.instrument].append(line)
        orders: dict[str, int] = defaultdict(int)
        risks: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for part in exposure.session.parts:
            orders[part.line.instrument] += len(part.orders)
            risks[part.line.instrument] += part.money_at_risk()
        found = []
        for instrument, mine in lines.items():
            day = self._today(user, instrument)
            found.append(
                LevelUse(
                    scope=user,
                    instrument=instrument,
                    gross=sum((line.value for line in mine), ZERO),
                    net=sum((line.position * line.unit for line in mine), ZERO),
                    long=max(sum((line.up for line in mine), ZERO), ZERO),
                    short=max(-sum((line.down for line in mine), ZERO), ZERO),
                    day=self._began_at,
                    profit=day.profit if day is not None else ZERO,
                    drawdown=day.drawdown if day is not None else ZERO,
                    money_at_risk=risks[instrument],
                    open_orders=orders[instrument],
                )
            )
        return found
