"""Bars of a real day of trades against those of pandas."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pandas as pd

from tests.support.data import DATA, needs
from trading.bar_building import BarTape
from trading.bar_deriving import MINUTE, SECOND, derive, derive_days
from trading.ids import Nanos
from trading.spans import Span
from trading.ticks import TICK, TRADE, TickArray

SPY = DATA / "market" / "us_equities_ticks" / "spy_20131007_trade.zip"
#: Midnight in New York, 2013-10-07.
MIDNIGHT = 1_381_118_400 * SECOND


def day() -> tuple[TickArray, pd.DataFrame]:
    """A day of SPY: time of day in ms, price in hundredths of a cent, size."""
    with zipfile.ZipFile(needs(SPY)) as archive:
        raw = archive.read(archive.namelist()[0])
    table = pd.read_csv(io.BytesIO(raw), header=None, usecols=[0, 1, 2], names=["ms", "price", "size"])
    table = table.sort_values("ms", kind="stable")
    ticks = np.zeros(len(table), dtype=TICK)
    ticks["instrument"], ticks["flags"] = 1, TRADE
    ticks["price"] = table["price"] / 10_000
    ticks["size"] = table["size"]
    ticks["exchange_at"] = ticks["received_at"] = MIDNIGHT + table["ms"] * 1_000_000
    return ticks, table


def test_a_real_day_in_batches_gives_the_bars_of_pandas() -> None:
    ticks, table = day()
    tape = BarTape(MINUTE)
    last = {}
    sizes = np.random.default_rng(3).integers(1, 3000, 1000)
    at = 0
    for size in sizes:
        tape.add(ticks[at : at + size])
        at += int(size)
        if at >= len(ticks):
            break
        for told in tape.close_until(Nanos(int(ticks["received_at"][at - 1]))):
            last[told.bar.opened_at] = told.bar
    assert at >= len(ticks)
    for told in tape.close_until(Nanos(MIDNIGHT + 86_400 * SECOND)):
        last[told.bar.opened_at] = told.bar
    assert tape.late == 0
    bars = [last[opened] for opened in sorted(last)]
    for width, built in ((MINUTE, bars), (15 * MINUTE, derive(bars, 15 * MINUTE))):
        slots = MIDNIGHT + table["ms"] * 1_000_000 // width * width
        expected = (table["price"] / 10_000).groupby(slots).agg(["first", "max", "min", "last", "count"])
        assert [bar.opened_at for bar in built] == expected.index.tolist()
        assert [(b.open, b.high, b.low, b.close, b.trades) for b in built] == list(
            expected.itertuples(index=False, name=None)
        )
        assert [bar.volume for bar in built] == table["size"].groupby(slots).sum().tolist()
    opens, closes = MIDNIGHT + 570 * MINUTE, MIDNIGHT + 960 * MINUTE
    (session,) = derive_days(bars, [Span(opens, closes)])
    inside = table[(table["ms"] >= 570 * 60_000) & (table["ms"] < 960 * 60_000)]
    assert (session.opened_at, session.trades, session.volume) == (opens, len(inside), inside["size"].sum())
    assert (session.open, session.close) == (inside["price"].iloc[0] / 10_000, inside["price"].iloc[-1] / 10_000)
    assert session.high == inside["price"].max() / 10_000
