"""What a feed worker does with ticks between decoding and publishing: bad ones are kept out and shown.

Pure parts decide (`trading.tick_filter`); here are the settings as they are stored, and what is shown of the refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from storage.feed_quality import FeedTunings
from storage.hot import Hot
from trading.errors import BadInput
from trading.feed_tuning import NOTHING, Tuning, settled
from trading.freshness_terms import FreshnessSettings
from trading.ids import FeedId, InstrumentId
from trading.instruments import Instrument
from trading.quarantine import good
from trading.tick_filter import TickFilter
from trading.ticks import TickArray, empty

log = logging.getLogger("quarterdeck")

#: Refused ticks are shown this long after the last one of an instrument.
SHOWN_FOR_S: Final = 24 * 3600.0
#: Instruments whose refused ticks are written in one round; the others follow in the next.
MOST_SHOWN: Final = 200


class FeedQuality:
    """The filter of one worker."""

    def __init__(self, feed: FeedId, shard: int, tunings: FeedTunings) -> None:
        self.feed = feed
        self.shard = shard
        self.filter = TickFilter()
        self.freshness = FreshnessSettings()
        self.own_freshness: dict[InstrumentId, FreshnessSettings] = {}
        #: Ticks that came from the stream, and those of them that were refused.
        self.received = self.refused = 0
        #: Those of the last batch that were refused.
        self.kept_out: TickArray = empty()
        self._tunings = tunings
        self._tuning: tuple[Tuning, dict[InstrumentId, Tuning]] = (NOTHING, {})
        self._carried: dict[InstrumentId, Instrument] = {}
        #: Count of refused ticks of each instrument as it was last shown.
        self._shown: dict[int, int] = {}

    def sift(self, ticks: TickArray) -> TickArray:
        """The good ones of what came, after those of before that turned out to be good; others are in quarantine."""
        verdicts = self.filter.judge(ticks)
        passed = good(ticks, verdicts)
        self.kept_out = ticks[verdicts != 0] if len(passed) < len(ticks) else ticks[:0]
        earlier = self.filter.returned()
        if len(earlier):
            passed = np.concatenate([earlier, passed])
        self.received += len(ticks)
        self.refused += len(ticks) - len(passed)
        return passed

    def know(self, instruments: Iterable[Instrument], last_prices: Mapping[int, float]) -> None:
        """Instruments are carried from now on; ``last_prices`` by number where they are known from before."""
        for instrument in instruments:
            self._carried[instrument.id] = instrument
            self.filter.know(instrument.number, float(instrument.tick_size))
            if (price := last_prices.get(instrument.number)) is not None:
                self.filter.seed(instrument.number, price)
            self._tune_one(instrument)

    def forget(self, instruments: Iterable[Instrument]) -> None:
        """Instruments are no longer carried; what was refused of them stays to be seen."""
        for instrument in instruments:
            self._carried.pop(instrument.id, None)
            self.filter.forget(instrument.number)

    async def take_up_settings(self) -> bool:
        """Read the settings; whether they have changed since."""
        found = await self._tunings.of(self.feed)
        if found == self._tuning:
            return False
        feed, own = found
        try:
            settings, self.freshness = settled(feed)
            self.own_freshness = {id_: settled(feed, tuning)[1] for id_, tuning in own.items()}
        except BadInput as error:
            # The API checks what it writes: this is of another version.
            log.error("settings of feed %s are not taken up: %s", self.feed, error)
            self._tuning = found
            return False
        self._tuning = found
        self.filter.tune(settings)
        for instrument in self._carried.values():
            self._tune_one(instrument)
        log.info("settings of the filter and of patience are taken up")
        return True

    def _tune_one(self, instrument: Instrument) -> None:
        feed, own = self._tuning
        tuning = own.get(instrument.id)
        self.filter.tune_one(instrument.number, None if tuning is None else settled(feed, tuning)[0])

    async def show(self, hot: Hot, names: Mapping[int, InstrumentId]) -> None:
        """Write what was refused since the last time where the API finds it."""
        quarantine = self.filter.quarantine
        values: dict[str, Any] = {}
        written: dict[int, int] = {}
        for number in sorted({*quarantine.numbers(), *self._shown}):
            total = sum(quarantine.counts(number).values())
            name = names.get(number)
            if name is None or total == self._shown.get(number):
                continue
            written[number] = total
            values[quarantine_key(self.feed, self.shard, name)] = {
                "instrument": name,
                "shard": self.shard,
                "counts": quarantine.counts(number),
                "last": [msgspec.to_builtins(each) for each in quarantine.of(number)],
            }
            if len(values) >= MOST_SHOWN:
                break
        if values:
            await hot.put_many(values, SHOWN_FOR_S)
            self._shown |= written


def quarantine_key(feed: str, shard: int, instrument: str) -> str:
    """Where a worker shows what it refused of an instrument."""
    return f"quarantine:{feed}:{shard}:{instrument}"
