"""The synthetic market: what it says of an order book adds up to one."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice

import pytest

from connectors.binance.simulated_market import SimulatedMarket
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource


@pytest.mark.parametrize("futures", [False, True])
def test_a_book_built_from_depth_changes_stays_small_and_never_crosses(futures: bool) -> None:
    source = SyntheticSource(
        SyntheticSettings(seed=3, symbols=2, ticks_per_s=500, futures=futures, start_at=1_700_000_000_000_000_000)
    )
    market = SimulatedMarket(source, source.prepare(0))
    seen = 0
    for event in islice(source.events(), 30_000):
        market.apply(event)
        symbol, _, kind = event.stream.partition("@")
        if not kind.startswith("depth"):
            continue
        seen += 1
        _, bids, asks = market.book(symbol.upper()).snapshot(1000)
        assert len(bids) <= 5
        assert len(asks) <= 5
        assert Decimal(bids[0][0]) < Decimal(asks[0][0])
    assert seen > 50
