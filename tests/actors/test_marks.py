"""Last prices as a session reads them."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from actors.marks import Marks
from tests.trading.rig import AAA, BBB
from trading.ticks import QUOTE, TICK, TRADE, TickArray


def last(
    number: int, received_at: int, *, price: float = np.nan, bid: float = np.nan, ask: float = np.nan
) -> TickArray:
    rows = np.zeros(1, dtype=TICK)
    rows[0] = (number, TRADE | QUOTE, price, 1.0, bid, 1.0, ask, 1.0, 0, received_at, 0)
    return rows


def test_a_price_is_as_old_as_what_was_received_last_whoever_reads_it_when() -> None:
    marks = Marks()
    marks.know([AAA, BBB])
    marks.take(last(AAA.number, 5, price=100.0))
    marks.take(last(BBB.number, 6))
    assert marks.changes([AAA.id, BBB.id]) == {AAA.id: Decimal(100)}
    assert marks.heard([AAA.id, BBB.id]) == {AAA.id: 5}
    # The same price again is news: the market still says so.
    marks.take(last(AAA.number, 9, price=100.0, bid=99.0, ask=101.0))
    assert marks.changes([AAA.id]) == {AAA.id: Decimal(100)}
    assert marks.heard([AAA.id]) == {AAA.id: 9}
    assert marks.changes([AAA.id]) == {}
