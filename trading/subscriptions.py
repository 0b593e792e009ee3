"""Who wants which instruments of a feed, in which channels: counted by client, the widest wish wins.

A client is whoever asks: the feed's own list, an algo, a panel.  An instrument is streamed while any client wants it,
in every channel that any of them wants.  What the provider cannot carry is refused with what would fit, and
then nothing is changed.

A shell keeps one `Subscriptions` per feed beside its `trading.feed_mesh.FeedMesh`: it checks and takes a wish from
REST with `subscribe` or `unsubscribe`, writes the client's row (`wish`) to the database before it answers, and
hands `wanted` to the mesh.  After a restart it is given the rows again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from trading.errors import BadInput, UnknownThing
from trading.ids import InstrumentId

#: Channels in the provider's order, each once.
Channels = tuple[str, ...]


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider allows, and how many workers a feed may have of it."""

    provider: str
    instruments_per_worker: int
    max_workers: int
    #: In the order in which they are shown and asked for.
    channels: Channels

    def most(self, workers: int | None = None) -> int:
        """Instruments that fit on so many workers (None: on as many as there may be)."""
        return self.instruments_per_worker * (self.max_workers if workers is None else workers)

    def needed(self, instruments: int) -> int:
        """Workers that so many instruments need, at least 1."""
        return max(1, -(-instruments // self.instruments_per_worker))

    def check_workers(self, workers: int, instruments: int) -> None:
        """`BadInput`, saying what would fit, unless so many workers are allowed and carry so many instruments."""
        if not 1 <= workers <= self.max_workers:
            raise BadInput("workers", f"{workers} is out of range: {self.provider} allows 1 to {self.max_workers}")
        if workers < self.needed(instruments):
            raise BadInput(
                "workers",
                f"{workers} would carry {self.most(workers)} of {instruments} instruments "
                f"({self.instruments_per_worker} on each): use at least {self.needed(instruments)}",
            )

    def check_channels(self, channels: Iterable[str]) -> Channels:
        """The channels in the provider's order; `BadInput` for none, or one it does not have."""
        asked = set(channels)
        unknown = sorted(asked - set(self.channels))
        if unknown or not asked:
            what = f"{self.provider} has no channel {unknown[0][:30]!r}" if unknown else "no channel is asked for"
            raise BadInput("channels", f"{what}: use {', '.join(self.channels)}")
        return tuple(channel for channel in self.channels if channel in asked)


class Spare(msgspec.Struct, frozen=True, kw_only=True):
    """What fits besides what is carried."""

    #: Instruments wanted by anybody.
    wanted: int
    #: More instruments that fit on the workers there are, and on as many as there may be.
    now: int
    at_most: int
    instruments_per_worker: int
    workers: int
    max_workers: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's wish changed for the feed as a whole."""

    added: tuple[InstrumentId, ...] = ()
    removed: tuple[InstrumentId, ...] = ()
    #: Streamed before and after, in other channels.
    retuned: tuple[InstrumentId, ...] = ()


class Subscriptions:
    """The wishes of all clients of one feed; ``wishes`` are those that were written down."""

    def __init__(
        self, capacity: Capacity, wishes: Mapping[str, Mapping[InstrumentId, Iterable[str]]] | None = None
    ) -> None:
        self.capacity = capacity
        self._clients: dict[str, dict[InstrumentId, Channels]] = {
            client: {instrument: capacity.check_channels(channels) for instrument, channels in wish.items()}
            for client, wish in (wishes or {}).items()
            if wish
        }
        self._wanting: dict[InstrumentId, set[str]] = {}
        for client, wish in self._clients.items():
            for instrument in wish:
                self._wanting.setdefault(instrument, set()).add(client)

    def __repr__(self) -> str:
        return f"<Subscriptions {len(self._wanting)} instruments {len(self._clients)} clients>"

    def subscribe(
        self, client: str, instruments: Iterable[InstrumentId], channels: Iterable[str], workers: int
    ) -> Change:
        """Let a client want instruments in exactly these channels, besides what it wants already.

        Raises `BadInput` naming how many of the new ones would fit on ``workers`` and on more of them.
        """
        asked = self.capacity.check_channels(channels)
        wished = tuple(dict.fromkeys(instruments))
        fresh = [instrument for instrument in wished if instrument not in self._wanting]
        self._check_fit(len(fresh), workers)
        before = {instrument: self.channels(instrument) for instrument in wished}
        own = self._clients.setdefault(client, {})
        for instrument in wished:
            own[instrument] = asked
            self._wanting.setdefault(instrument, set()).add(client)
        if not own:
            del self._clients[client]
        return self._change(before)

    def unsubscribe(self, client: str, instruments: Iterable[InstrumentId] | None = None) -> Change:
        """Let a client want instruments (None: all) no more; others who want them keep them.

        Raises `UnknownThing` where it does not want one of them.
        """
        own = self._clients.get(client, {})
        gone = tuple(own) if instruments is None else tuple(dict.fromkeys(instruments))
        for instrument in gone:
            if instrument not in own:
                raise UnknownThing("subscription", instrument, f"of client {client}")
        before = {instrument: self.channels(instrument) for instrument in gone}
        for instrument in gone:
            del own[instrument]
            self._wanting[instrument].discard(client)
            if not self._wanting[instrument]:
                del self._wanting[instrument]
        if not own:
            self._clients.pop(client, None)
        return self._change(before)

    def wish(self, client: str) -> dict[InstrumentId, Channels]:
        """What one client wants."""
        return dict(self._clients.get(client, {}))

    def all_clients(self) -> tuple[str, ...]:
        """Whoever wants anything, by name."""
        return tuple(sorted(self._clients))

    def clients(self, instrument: InstrumentId) -> dict[str, Channels]:
        """Who wants an instrument, and in which channels."""
        return {client: self._clients[client][instrument] for client in sorted(self._wanting.get(instrument, ()))}

    def channels(self, instrument: InstrumentId) -> Channels:
        """All channels in which an instrument is wanted; none: nobody wants it."""
        asked = {c for client in self._wanting.get(instrument, ()) for c in self._clients[client][instrument]}
        return tuple(channel for channel in self.capacity.channels if channel in asked)

    def wanted(self) -> dict[InstrumentId, Channels]:
        """Every instrument that is wanted, by name, with its channels."""
        return {instrument: self.channels(instrument) for instrument in sorted(self._wanting)}

    def spare(self, workers: int) -> Spare:
        """What fits besides."""
        count = len(self._wanting)
        return Spare(
            wanted=count,
            now=max(0, self.capacity.most(workers) - count),
            at_most=max(0, self.capacity.most() - count),
            instruments_per_worker=self.capacity.instruments_per_worker,
            workers=workers,
            max_workers=self.capacity.max_workers,
        )

    def _check_fit(self, fresh: int, workers: int) -> None:
        spare = self.spare(workers)
        if fresh <= spare.now:
            return
        detail = f"{fresh} new instruments do not fit: {workers} workers have room for {spare.now} more"
        if fresh <= spare.at_most:
            detail += f"; {self.capacity.needed(spare.wanted + fresh)} workers would carry all"
        else:
            detail += f", the {spare.max_workers} that {self.capacity.provider} allows for {spare.at_most}"
        raise BadInput("instruments", detail)

    def _change(self, before: Mapping[InstrumentId, Channels]) -> Change:
        after = {instrument: self.channels(instrument) for instrument in before}
        return Change(
            added=tuple(i for i, had in before.items() if not had and after[i]),
            removed=tuple(i for i, had in before.items() if had and not after[i]),
            retuned=tuple(i for i, had in before.items() if had and after[i] and had != after[i]),
        )

    def validate(self) -> None:
        """AssertionError where the two views of the wishes differ."""
        for client, wish in self._clients.items():
            assert wish, client
            for instrument, channels in wish.items():
                assert channels, instrument
                assert client in self._wanting[instrument]
        for instrument, clients in self._wanting.items():
            assert clients, instrument
            for client in clients:
                assert instrument in self._clients[client]
