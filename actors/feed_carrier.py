"""What a feed worker carries: what its coordinator commands, and what the provider is asked because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from cluster.process import now
from connectors.base import FeedConnection
from storage.instruments import Instruments
from trading.errors import BadInput
from trading.feed_plan import Carried, Phase, WorkerReport
from trading.handover import Cuts, Handover
from trading.ids import Epoch, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import QUOTE, TRADE, TickArray


class Host(Protocol):
    """The worker, as far as its carrier needs it."""

    async def begin(self, fresh: Sequence[Instrument], muted: bool) -> None:
        """Instruments are carried from now on."""

    async def flushed(self) -> None:
        """All that came is published.  Raises `NotReady`."""

    async def mark(self) -> None:
        """How far it has come is noted.  Raises `NotReady`."""

    def end(self, gone: Sequence[Instrument], cuts: Mapping[int, Cuts]) -> None:
        """Instruments are no longer carried; ``cuts``, by number: from which on another worker has them."""

    def hand_over(self, number: int) -> Cuts:
        """Another worker takes an instrument over; returns what to tell it beside the cut."""

    def take_over(self, number: int, cuts: Cuts, kept: TickArray) -> None:
        """Publish an instrument from ``cuts`` on, as another worker said it; ``kept`` are its ticks until now."""

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        """The provider refused an instrument."""


class FeedCarrier:
    """The instruments of one worker."""

    def __init__(
        self,
        instruments: Instruments,
        handover: Handover,
        seen_at: Callable[[int], Nanos | None],
        host: Host,
    ) -> None:
        """``seen_at``: when the last tick of an instrument that was published came by the stream."""
        self._instruments = instruments
        self._handover = handover
        self._seen_at = seen_at
        self._host = host
        #: The feed's channels.
        self.channels: tuple[str, ...] = ()
        self.listed: dict[InstrumentId, Instrument] = {}
        #: What is carried, and since when as it is now.
        self.carried: dict[InstrumentId, Nanos] = {}
        self.refused: dict[InstrumentId, str] = {}
        #: In which channels the provider was asked for them.
        self._asked: dict[InstrumentId, tuple[str, ...]] = {}
        #: What the provider is to be asked, in this order, at its own pace: (take, instruments, channels).
        self._asking: asyncio.Queue[tuple[bool, list[Instrument], tuple[str, ...] | None]] = asyncio.Queue()

    def __repr__(self) -> str:
        return f"<FeedCarrier {len(self.carried)} carried, {self._asking.qsize()} requests to go>"

    def __contains__(self, instrument: InstrumentId) -> bool:
        return instrument in self.carried

    async def learn(self) -> None:
        """Read which instruments are listed."""
        self.listed = {i.id: i for i in await self._instruments.all()}

    # Commands

    async def carry(self, instruments: Sequence[InstrumentId], muted: bool, channels: Sequence[str] = ()) -> None:
        """Take instruments, in these channels (none: the feed's); ``muted`` ones are kept back until activated."""
        asked = tuple(channels) or self.channels
        if any(i not in self.listed for i in instruments):
            await self.learn()
        fresh = []
        for id_ in instruments:
            instrument = self.listed.get(id_)
            if instrument is None:
                self.refused[id_] = "not among the listed instruments"
                continue
            if id_ in self.carried:
                continue
            self.carried[id_] = now()
            self._asked[id_] = asked
            if muted:
                self._handover.mute(instrument.number)
            else:
                self._handover.carry(instrument.number)
            fresh.append(instrument)
        await self._host.begin(fresh, muted)
        # What was let go meanwhile is not asked for.
        fresh = [instrument for instrument in fresh if instrument.id in self.carried]
        if fresh:
            self._asking.put_nowait((True, fresh, asked))

    async def retune(self, instruments: Sequence[InstrumentId], channels: Sequence[str]) -> None:
        """Stream other channels of instruments: those that are new are asked for, then the others ended."""
        wanted = tuple(channels)
        changes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Instrument]] = {}
        for id_ in instruments:
            if id_ in self.carried:
                had = self._asked[id_]
                self._asked[id_] = wanted
                new = tuple(channel for channel in wanted if channel not in had)
                over = tuple(channel for channel in had if channel not in wanted)
                changes.setdefault((new, over), []).append(self.listed[id_])
        for (new, over), those in changes.items():
            if new:
                self._asking.put_nowait((True, those, new))
            if over:
                self._asking.put_nowait((False, those, over))

    async def release(self, instruments: Sequence[InstrumentId]) -> None:
        """Stop carrying instruments.  Raises `NotReady` where what came of them is not out yet."""
        numbers = [self.listed[id_].number for id_ in instruments if id_ in self.carried]
        if any(self._handover.is_ending(number) for number in numbers):
            # What lies before a cut and is not out by then lacks.
            await self._host.flushed()
        gone = []
        for id_ in instruments:
            self.refused.pop(id_, None)
            self._asked.pop(id_, None)
            if self.carried.pop(id_, None) is not None:
                gone.append(self.listed[id_])
        cuts = {each.number: self._handover.cuts_of(each.number) for each in gone}
        for instrument in gone:
            self._handover.forget(instrument.number)
        self._host.end(gone, cuts)
        if gone:
            self._asking.put_nowait((False, gone, None))

    async def cut(self, firsts: Mapping[InstrumentId, Cuts]) -> dict[InstrumentId, Cuts]:
        """Agree where another worker takes over instruments; those that are not carried here are left out."""
        cuts = {}
        for id_, first in firsts.items():
            if id_ in self.carried:
                number = self.listed[id_].number
                if not self._handover.is_ending(number):
                    self.carried[id_] = now()
                cuts[id_] = {**self._handover.cut(number, first), **self._host.hand_over(number)}
        # Whoever goes on after this worker must know what is not its own any more.
        await self._host.mark()
        return cuts

    async def activate(self, cuts: Mapping[InstrumentId, Cuts]) -> None:
        """Publish instruments from their cuts on."""
        for id_, cut in cuts.items():
            number = self.listed[id_].number if id_ in self.carried else None
            # Asked once more it is done already.
            if number is not None and self._handover.is_muted(number):
                kinds = {kind: sequence for kind, sequence in cut.items() if kind in (TRADE, QUOTE)}
                self._host.take_over(number, cut, self._handover.activate(number, kinds))
        await self._host.mark()

    # The provider

    async def ask(self, connection: FeedConnection) -> None:
        """Ask the provider for what is carried, and let go what is not: it sets the pace, nobody waits for it."""
        while True:
            take, instruments, channels = await self._asking.get()
            if not take:
                await connection.unsubscribe(instruments, channels)
                continue
            # What was let go meanwhile is not asked for any more.
            instruments = [each for each in instruments if each.id in self.carried]
            try:
                await connection.subscribe(instruments, channels or ())
            except BadInput:
                # None of them was taken: find those that cannot be.
                for instrument in instruments:
                    try:
                        await connection.subscribe([instrument], channels or ())
                    except BadInput as error:
                        self._host.refused(instrument.id, str(error))

    # What is known

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        """In which channels the provider was asked for an instrument; none where it is not carried."""
        return self._asked.get(instrument, ())

    def numbers(self) -> Iterator[tuple[InstrumentId, int, Nanos]]:
        """What is carried, with its number and since when."""
        for id_, since in self.carried.items():
            yield id_, self.listed[id_].number, since

    def phase(self, number: int) -> Phase:
        """How far the move of an instrument that is carried has come; LIVE where it does not move."""
        if self._handover.is_muted(number):
            return Phase.MUTED
        return Phase.ENDING if self._handover.is_ending(number) else Phase.LIVE

    def report(self, shard: int, epoch: int) -> WorkerReport:
        """What is truly carried, and how."""
        carried = {id_: self._how(id_, number, since) for id_, number, since in self.numbers()}
        return WorkerReport(shard=shard, epoch=Epoch(epoch), carried=carried)

    def _how(self, id_: InstrumentId, number: int, since: Nanos) -> Carried:
        phase = self.phase(number)
        return Carried(
            phase=phase,
            since=since,
            firsts=self._handover.firsts(number) if phase is Phase.MUTED else {},
            passed=phase is Phase.ENDING and self._handover.has_passed(number),
            kinds=self._handover.kinds(number) if phase is Phase.LIVE else (),
            last_at=self._seen_at(number) or Nanos(0),
            channels=self._asked[id_],
        )
