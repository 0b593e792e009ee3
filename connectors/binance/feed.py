"""The streaming side: instruments and channels in, streams on one or two links.

Spot has one connection; USD-M serves its streams by two routes of the host, so a feed there has up to two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from connectors.base import Clock, FeedSink
from connectors.binance.books import Books
from connectors.binance.link import Link, Tuning
from connectors.binance.product import Product
from connectors.binance.rest import Rest
from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument

CHANNELS: Final = ("trade", "quote", "depth", "bar", "book")


class BinanceFeed:
    """One worker's streaming connection (`connectors.base.FeedConnection`)."""

    def __init__(
        self,
        product: Product,
        stream_host: str,
        sink: FeedSink,
        clock: Clock,
        streams: Mapping[str, str],
        tuning: Tuning,
        tap: Callable[[Nanos, bytes], None] | None = None,
        rest: Rest | None = None,
    ) -> None:
        self._product = product
        #: Keeps the books of channel ``book``, whose snapshots come by REST.
        self.books = Books(sink, rest, clock) if rest is not None else None
        self._sink: FeedSink = self.books or sink
        #: Channel -> what follows ``symbol@`` on the wire.
        self._streams = dict(streams)
        self._channels: dict[InstrumentId, tuple[str, ...]] = {}
        self._instruments: dict[InstrumentId, Instrument] = {}
        self._open = False
        self._links = {
            route: Link(
                stream_host.rstrip("/") + (f"/{route}" if route else "") + "/stream",
                self._sink,
                clock,
                tuning,
                messages_per_s=product.messages_per_s,
                on_open=self._link_opened,
                on_closed=self._link_closed,
                on_refused=self._refused,
                tap=tap,
            )
            for route in product.routes
        }

    def __repr__(self) -> str:
        links = list(self._links.values())
        return f"<BinanceFeed {self._product.provider} {len(self._channels)} instruments {links}>"

    async def run(self) -> None:
        """Connect and stream until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for link in self._links.values():
                tasks.create_task(link.run())
            if self.books is not None:
                tasks.create_task(self.books.run())

    async def subscribe(self, instruments: Sequence[Instrument], channels: Sequence[str]) -> None:
        """Add instruments; an instrument that is there gets the channels it lacks.

        Raises `BadInput` before anything is changed: an unknown channel, an instrument of another provider or
        without a number, or more streams than a connection may carry.
        """
        for channel in channels:
            if channel not in self._streams:
                raise BadInput("channels", f"{channel[:20]!r} is unknown: use {', '.join(self._streams)}")
        if "book" in channels and self.books is None:
            raise BadInput("channels", "'book' needs REST, which this connection was not given")
        if {"book", "depth"} <= {*channels} and self._streams["book"] != self._streams["depth"]:
            raise BadInput(
                "channels",
                f"'depth' is {self._streams['depth']} here, which 'book' cannot be made of: ask for one of them",
            )
        added: dict[str, Instrument] = {}
        for instrument in instruments:
            if instrument.provider != self._product.provider:
                raise BadInput(
                    "instruments",
                    f"{instrument.id} is of {instrument.provider}, not of {self._product.provider}",
                )
            if instrument.number <= 0:
                raise BadInput("instruments", f"{instrument.id} has no number: register it first")
            for channel in channels:
                added[self._stream(instrument, channel)] = instrument
        for route, link in self._links.items():
            count = len(link.wanted.keys() | {s for s in added if self._product.route(s) == route})
            if count > self._product.streams_per_connection:
                raise BadInput(
                    "instruments",
                    f"{count} streams on one connection, {self._product.provider} allows "
                    f"{self._product.streams_per_connection}: use more workers",
                )
        for instrument in instruments:
            old = self._channels.get(instrument.id, ())
            self._channels[instrument.id] = old + tuple(c for c in dict.fromkeys(channels) if c not in old)
            self._instruments[instrument.id] = instrument
            if self.books is not None:
                self.books.want(instrument, channels)
        for stream, instrument in added.items():
            link = self._links[self._product.route(stream)]
            if stream not in link.wanted:
                link.want(stream, instrument.number, instrument.id)
        await asyncio.gather(*(link.settle() for link in self._links.values()))

    async def unsubscribe(self, instruments: Sequence[Instrument], channels: Sequence[str] | None = None) -> None:
        """Remove instruments, or these channels of them; those that are not there are passed over."""
        for instrument in instruments:
            had = self._channels.pop(instrument.id, ())
            left = () if channels is None else tuple(c for c in had if c not in channels)
            # Two channels may share a stream.
            still = {self._stream(instrument, channel) for channel in left}
            for stream in {self._stream(instrument, channel) for channel in had} - still:
                self._links[self._product.route(stream)].unwant(stream)
            if left:
                self._channels[instrument.id] = left
            else:
                self._instruments.pop(instrument.id, None)
            if self.books is not None and {"book", "depth"} & (set(had) - set(left)):
                self.books.unwant(instrument.number)
                self.books.want(instrument, left)
        await asyncio.gather(*(link.settle() for link in self._links.values()))

    async def resubscribe(self, instruments: Sequence[Instrument]) -> None:
        """End the streams of instruments and begin them again."""
        for instrument in instruments:
            for channel in self._channels.get(instrument.id, ()):
                stream = self._stream(instrument, channel)
                self._links[self._product.route(stream)].renew(stream)
        await asyncio.gather(*(link.settle() for link in self._links.values()))

    def reconnect(self, reason: str) -> None:
        """Give the connections up and open others."""
        for link in self._links.values():
            link.give_up(reason)

    def wanted(self) -> frozenset[InstrumentId]:
        """What it carries or is asking for."""
        return frozenset(self._channels)

    def counts(self) -> dict[str, int]:
        """Messages decoded per stream since it was added."""
        return {s: n for link in self._links.values() for s, n in link.codec.counts().items()}

    @property
    def unknown(self) -> int:
        """Messages that belonged to no stream asked for."""
        return sum(link.codec.unknown for link in self._links.values())

    @property
    def reconnects(self) -> int:
        """How often a connection was lost or failed."""
        return sum(link.reconnects for link in self._links.values())

    @property
    def replacements(self) -> int:
        """How often a connection was replaced in good order."""
        return sum(link.replacements for link in self._links.values())

    def _stream(self, instrument: Instrument, channel: str) -> str:
        return f"{instrument.provider_symbol.lower()}@{self._streams[channel]}"

    def _link_opened(self) -> None:
        if not self._open and all(link.is_open for link in self._links.values() if link.wanted):
            self._open = True
            self._sink.opened()

    def _link_closed(self, reason: str) -> None:
        if self._open:
            self._open = False
            self._sink.closed(reason)

    def _refused(self, instrument: InstrumentId, reason: str) -> None:
        known = self._instruments.pop(instrument, None)
        if known is not None:
            for channel in self._channels.pop(instrument, ()):
                stream = self._stream(known, channel)
                self._links[self._product.route(stream)].unwant(stream)
            if self.books is not None:
                self.books.unwant(known.number)
            self._sink.refused(instrument, reason)
