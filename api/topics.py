"""Topics of market data on `/v1/stream`, read and checked."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from storage.desired import Desired
from storage.instruments import Instruments
from trading.errors import BadInput, UnknownThing
from trading.ids import FeedId, InstrumentId, instrument_id
from trading.live_bars import live_width

#: How they are written.
FORMS: Final = ("ticks:<feed>/<instrument>", "depth:<feed>/<instrument>", "bars:<instrument>/<interval>")


class MarketTopic(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument's ticks, books or bars; ``feed`` is "" for bars, ``interval`` is "" for the others."""

    text: str
    kind: Literal["ticks", "depth", "bars"]
    feed: FeedId
    instrument: InstrumentId
    number: int
    interval: str
    width: int


def is_market(text: str) -> bool:
    """Whether a topic is meant to be one of market data."""
    return text.partition(":")[0] in ("ticks", "depth", "bars") and ":" in text


async def read_topics(texts: list[str], desired: Desired, instruments: Instruments) -> list[MarketTopic]:
    """The topics that ``texts`` name, each once.

    Raises `BadInput` for one that is malformed, `UnknownThing` for a feed or an instrument that there is not.
    """
    parts = [_split(text) for text in dict.fromkeys(texts)]
    if not parts:
        return []
    known = {each.id: each.number for each in await instruments.get(list(dict.fromkeys(p.instrument for p in parts)))}
    feeds = {feed.id for feed in await desired.feeds()} if any(p.feed for p in parts) else set()
    for part in parts:
        if part.feed and part.feed not in feeds:
            raise UnknownThing("feed", part.feed, "GET /v1/feeds lists those that there are")
        if part.instrument not in known:
            raise UnknownThing("instrument", part.instrument, "POST /v1/instruments/import fetches a provider's list")
    return [msgspec.structs.replace(part, number=known[part.instrument]) for part in parts]


def _split(text: str) -> MarketTopic:
    kind, _, rest = text.partition(":")
    if kind == "bars":
        # A symbol may have a slash of its own.
        name, _, interval = rest.rpartition("/")
        width = live_width(interval)
        return MarketTopic(
            text=text, kind="bars", feed=FeedId(""), instrument=instrument_id(name), number=0, interval=interval,
            width=width,
        )  # fmt: skip
    feed, slash, name = rest.partition("/")
    if kind not in ("ticks", "depth") or not feed or not slash:
        raise BadInput("topics", f"{text[:80]!r}: write {', '.join(FORMS)}")
    return MarketTopic(
        text=text, kind="ticks" if kind == "ticks" else "depth", feed=FeedId(feed), instrument=instrument_id(name),
        number=0, interval="", width=0,
    )  # fmt: skip
