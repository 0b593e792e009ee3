"""Samples of profit and equity, from what sessions and central risk have told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from storage.days import Days
from storage.equity import Sample
from storage.hot import Hot
from trading.day_profit import Day
from trading.errors import NeedsOperator, NotReady
from trading.ids import Nanos
from trading.limits import account_scope
from trading.portfolio import Portfolio, equity_of

_MINUTE: Final = 60_000_000_000
_SLOTS: Final = (5 * _MINUTE, 60 * _MINUTE)
#: Whose profit has not been told for so long is not sampled: nobody watches it.
QUIET_NS: Final = 10 * _MINUTE


class Sampler:
    """Makes samples of what has changed, and one in five minutes of what has not."""

    def __init__(self, days: Days, hot: Hot) -> None:
        self._days = days
        self._hot = hot
        self._last: dict[str, Sample] = {}

    def restore(self, last: Mapping[str, Sample]) -> None:
        """Take up what was written before."""
        self._last = dict(last)

    async def samples(self, at: Nanos) -> list[Sample]:
        """What is to be written now.  `NotReady`."""
        try:
            views = await self._hot.scan("portfolio:", Portfolio)
        except (NotReady, NeedsOperator):
            views = {}  # profit is sampled all the same
        return due(await self._days.all(), views.values(), self._last, at)

    def saved(self, samples: Iterable[Sample]) -> None:
        """These have been written."""
        self._last.update({sample.scope: sample for sample in samples})


def due(days: Iterable[Day], views: Iterable[Portfolio], last: Mapping[str, Sample], at: Nanos) -> list[Sample]:
    """Samples of the levels whose profit or equity is another than the last, or whose last is five minutes old."""
    equities = {
        account_scope(account.account): equity_of(view, account.account)
        for view in views
        if at - view.at < QUIET_NS
        for account in view.accounts
    }
    found = []
    for day in days:
        if day.instrument or at - day.at > QUIET_NS:
            continue
        before = last.get(day.scope)
        sample = Sample(
            scope=day.scope,
            at=at,
            pnl=day.latest,
            equity=equities.get(day.scope),
            grain=grain_of(at, None if before is None else before.at),
        )
        if before is None or sample.grain or (before.pnl, before.equity) != (sample.pnl, sample.equity):
            found.append(sample)
    return found


def grain_of(at: Nanos, before: Nanos | None) -> int:
    """2 for the first sample of its hour, 1 for that of its five minutes, else 0; ``before``: of the last one."""
    if before is None:
        return 2
    return sum(at // slot != before // slot for slot in _SLOTS)
