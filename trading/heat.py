"""Money at risk, algo by instrument: the cells of the heat table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from trading.exposure import ExposureBook
from trading.ids import AccountId, InstrumentId
from trading.orders import ZERO


class RiskCell(msgspec.Struct, frozen=True, kw_only=True):
    """What one algo may lose in one instrument of one account if every protective stop is hit.

    ``algo`` "": what no algo did.
    """

    account: AccountId
    algo: str
    instrument: InstrumentId
    at_risk: Decimal


class Heat(msgspec.Struct, frozen=True, kw_only=True):
    """The table: rows and columns with the hottest first, and its cells."""

    algos: tuple[str, ...]
    instruments: tuple[InstrumentId, ...]
    #: By algo and instrument, accounts together.
    cells: dict[tuple[str, InstrumentId], Decimal]
    total: Decimal


def cells_of(book: ExposureBook) -> tuple[RiskCell, ...]:
    """The cells of one session in which something is at risk."""
    return tuple(
        RiskCell(account=account, algo=algo or "", instrument=instrument, at_risk=risk)
        for (account, algo, instrument), part in book.parts().items()
        if (risk := part.money_at_risk())
    )


def heat(cells: Iterable[RiskCell]) -> Heat:
    """The table that cells of several sessions make."""
    sums: dict[tuple[str, InstrumentId], Decimal] = defaultdict(lambda: ZERO)
    by_algo: dict[str, Decimal] = defaultdict(lambda: ZERO)
    by_instrument: dict[InstrumentId, Decimal] = defaultdict(lambda: ZERO)
    for cell in cells:
        sums[(cell.algo, cell.instrument)] += cell.at_risk
        by_algo[cell.algo] += cell.at_risk
        by_instrument[cell.instrument] += cell.at_risk
    return Heat(
        algos=tuple(sorted(by_algo, key=lambda algo: (-by_algo[algo], algo))),
        instruments=tuple(sorted(by_instrument, key=lambda each: (-by_instrument[each], each))),
        cells=dict(sums),
        total=sum(by_algo.values(), ZERO),
    )
