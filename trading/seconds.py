"""The second provider of an instrument: the same thing in another feed, which stands by (`trading.arbitration`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from trading.errors import BadInput
from trading.ids import FeedId, InstrumentId
from trading.instruments import Instrument

#: What two providers can be compared by; other channels have no second.
_CHANNELS = ("trade", "quote")
_CLIENT = "second:"


class SecondSource(msgspec.Struct, frozen=True):
    """An instrument as another feed streams it."""

    feed: FeedId
    instrument: InstrumentId


#: Instrument of a feed -> its second.
Seconds = Mapping[InstrumentId, SecondSource]


def client_of(feed: FeedId) -> str:
    """The client as which a feed wants its seconds of another one; no name of a client that anybody chooses is such."""
    return f"{_CLIENT}{feed}"


def is_second_client(client: str) -> bool:
    """Whether a client is a feed that wants its seconds."""
    return client.startswith(_CLIENT)


def channels_of(channels: Iterable[str]) -> tuple[str, ...]:
    """Of a feed's channels those in which its seconds are wanted."""
    return tuple(channel for channel in channels if channel in _CHANNELS)


def check_twins(first: Instrument, second: Instrument, field: str) -> None:
    """Raise `BadInput` unless prices of both mean the same."""
    for what, one, other in (
        ("tick size", first.tick_size, second.tick_size),
        ("currency", first.currency, second.currency),
        ("multiplier", first.multiplier, second.multiplier),
    ):
        if one != other:
            raise BadInput(field, f"{second.id} has the {what} {other}, and {first.id} has {one}: they must agree")


def check_each_once(seconds: Seconds, field: str) -> None:
    """Raise `BadInput` where one instrument of another feed stands by for two of this one."""
    taken: dict[SecondSource, InstrumentId] = {}
    for instrument, source in seconds.items():
        other = taken.setdefault(source, instrument)
        if other != instrument:
            raise BadInput(
                field, f"{source.instrument} of feed {source.feed} is the second of {other} already: choose another"
            )


def check_no_circle(feed: FeedId, instrument: InstrumentId, all_: Mapping[FeedId, Seconds], field: str) -> None:
    """Raise `BadInput` where following the seconds from an instrument of a feed leads back to it."""
    way = [SecondSource(feed, instrument)]
    while (following := all_.get(way[-1].feed, {}).get(way[-1].instrument)) is not None:
        way.append(following)
        if following == way[0]:
            told = " → ".join(f"{each.feed}/{each.instrument}" for each in way)
            raise BadInput(field, f"the seconds go round in a circle: {told}")
        if following in way[1:-1]:
            return  # a circle of others, which is not this one's doing
