"""Last prices for a session: read from the bus, turned into Decimals only where somebody holds or trades."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import TickArray


class Marks:
    """Last values by instrument."""

    def __init__(self) -> None:
        self._instruments: dict[InstrumentId, Instrument] = {}
        self._id_of: dict[int, InstrumentId] = {}
        self._last: dict[int, float] = {}
        #: When each was received.
        self._at: dict[int, int] = {}
        self._changed: set[int] = set()

    def know(self, instruments: Iterable[Instrument]) -> None:
        """Learn of instruments."""
        for instrument in instruments:
            self._instruments[instrument.id] = instrument
            self._id_of[instrument.number] = instrument.id

    def take(self, last: TickArray) -> None:
        """Take last values: the trade price, or the middle of the quote where there was no trade."""
        middle = (last["bid"] + last["ask"]) / 2
        prices = np.where(np.isfinite(middle), middle, last["price"])
        good = np.isfinite(prices) & (prices > 0)
        fresh = dict(zip(last["instrument"][good].tolist(), prices[good].tolist(), strict=True))
        self._last.update(fresh)
        self._at.update(zip(last["instrument"][good].tolist(), last["received_at"][good].tolist(), strict=True))
        self._changed.update(fresh)

    def changes(self, of_interest: Iterable[InstrumentId]) -> dict[InstrumentId, Decimal]:
        """New prices of these instruments since the last call."""
        out = {}
        for instrument_id in of_interest:
            instrument = self._instruments.get(instrument_id)
            if instrument is not None and instrument.number in self._changed:
                out[instrument_id] = self._price(instrument)
        self._changed.clear()
        return out

    def price(self, instrument_id: InstrumentId) -> Decimal | None:
        """The last price of one instrument, None while none is known."""
        instrument = self._instruments.get(instrument_id)
        if instrument is None or instrument.number not in self._last:
            return None
        return self._price(instrument)

    def heard(self, instruments: Iterable[InstrumentId]) -> dict[InstrumentId, Nanos]:
        """When the prices of these were received, of those that are known."""
        known = {each: self._instruments[each].number for each in instruments if each in self._instruments}
        return {each: Nanos(self._at[number]) for each, number in known.items() if number in self._at}

    def _price(self, instrument: Instrument) -> Decimal:
        price = instrument.round_price(self._last[instrument.number])
        return price if price > 0 else instrument.tick_size
