"""One incarnation of an algo: hosts `strategies.runner.Runner`, gives it ticks and bars, keeps and tells how it is."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import psutil

from actors.algo_history import AlgoHistory
from actors.algo_orders import AlgoOrders
from actors.shell import listen, patiently
from cluster import names, strategy_cache, streams
from cluster.calls import Peer
from cluster.cpu_share import CpuLimit
from cluster.process import end, now
from storage.algo_log import AlgoLog
from storage.artefacts import Artefacts
from storage.bus import Bus
from storage.desired import Desired
from storage.instruments import Instruments
from storage.records import AlgoRecord
from storage.snapshots import Snapshots
from storage.strategies import Strategies
from strategies.loader import LoadedStrategy, load_builtin, load_folder
from strategies.runner import LogLine, Runner, StrategyFailed
from trading.bars import Bar
from trading.errors import BadInput, Fenced, Invariant, NotReady, Refused, TradeError, UnknownThing
from trading.histogram import Histogram
from trading.ids import Epoch, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import Senders, TickArray, decode, empty, unpack_batch

log = logging.getLogger("quarterdeck")

STATS_EVERY_S = 0.5
SAVE_EVERY_S = 1.0
LOG_EVERY_S = 0.5
STALE_S = 5.0
#: A busy stream lets the rest of the loop (intents, calls, statistics) come round after so long.
BUSY_S = 0.005
#: Batches that may wait while the strategy is busy; the bus bounds their bytes too.
WAITING_BATCHES = 16_384
#: Patience for the bars that a strategy begins with.
HISTORY_S = 20.0
#: Our clock may be so far from the venue's: a bar that began so shortly after we listened is not taken for whole.
SKEW = 1_000_000_000
#: A bar that closed is asked of history so long after, and for so long at most.
FILL_AFTER = 5_000_000_000
GIVE_UP_AFTER = 60_000_000_000


class AlgoStats(msgspec.Struct, frozen=True, kw_only=True):
    """How an algo goes.  Histograms are bucket -> count, see `trading.histogram`."""

    id: str
    epoch: int
    node: str
    state: str
    reason: str
    at: Nanos
    ticks: int
    batches_lost: int
    #: Ticks that the strategy did not see because newer ones had come by then; it asked for that.
    conflated: int
    intents: int
    orders_acked: int
    fills: int
    denied: int
    open_orders: int
    #: The market has been silent for so long, in seconds; None before the first tick.
    tick_age_s: float | None
    #: Cores taken over the last seconds; None before that.
    cpu_share: float | None
    positions: dict[str, str]
    realised: str
    #: Of its instruments' prices, and so of ``realised``.
    currencies: list[str]
    tick_to_strategy: dict[int, int]
    intent_to_ack: dict[int, int]


class AlgoHost(AlgoOrders):
    """A running algo."""

    def __init__(self, algo: str, epoch: int) -> None:
        super().__init__(algo, epoch)
        self.bus = Bus(self.deck.redis_url)
        self.desired = Desired(self.database)
        self.strategies = Strategies(self.database)
        self.artefacts = Artefacts(self.database)
        self.instruments = Instruments(self.database)
        self.snapshots = Snapshots(self.database)
        self.algo_log = AlgoLog(self.database)
        self.history = AlgoHistory(self.database, self.desired)
        self._senders = Senders()
        self._tick_latency = Histogram()
        self._ticks = self._lost = 0
        self._last_tick_at = 0
        self._behind_ns = 0
        self._saved = b""
        self._writing = asyncio.Lock()
        self._cpu = CpuLimit()
        #: It stops, and its open orders are to stay.
        self._leaves_orders = False
        self._began = False

    # Life

    async def start(self) -> None:
        """Load the strategy, its snapshot and its history; begin to listen."""
        await self.database.open()
        record = await self.desired.algo(self.algo)
        if record.epoch != self.epoch:
            raise Fenced(self.name, self.epoch, record.epoch)
        self.record = record
        self.session = Peer(names.session(record.user))
        try:
            runner = await self._make_runner(record)
        except (Refused, StrategyFailed, Invariant) as error:
            await self._fail(str(error), getattr(error, "traceback_text", ""))
            return
        highest = await self.session.call("begin_algo", record.account, record.id, self.epoch, timeout=10.0)
        runner.next_intent = max(runner.next_intent, 1 + highest)
        self.runner = runner
        history = await self._history(record, runner)
        if not self._began:
            self._began = True
            await self._know_last(record, runner)
            self._send_out(runner.start(now(), history))
            self.spawn(self._listen(record), "ticks")
            self.spawn(self._send(), "intents")
            self.spawn(self._read_notes(record), "order changes")
            self.spawn(self._clock(), "clock")
            self.spawn(patiently("snapshot", self._save, every=SAVE_EVERY_S), "snapshot")
            self.spawn(patiently("log", self._write_log, every=LOG_EVERY_S), "log")
            self.spawn(patiently("stats", self._tell, every=STATS_EVERY_S), "stats")

    async def _make_runner(self, record: AlgoRecord) -> Runner:
        loaded = await self._load(record)
        listed: list[Instrument] = await self.instruments.get(record.instruments)
        missing = set(record.instruments) - {i.id for i in listed}
        if missing:
            raise BadInput("instruments", f"{', '.join(sorted(missing))} are not listed any more")
        runner = Runner(loaded.strategy_class, record.parameters, record.id, record.account, listed)
        if runner.failed is not None:
            raise runner.failed
        raw = await self.snapshots.load(record.id)
        if raw is not None:
            try:
                runner.restore(raw)
            except BadInput as error:
                self._lines.append(LogLine(at=now(), level="warning", text=f"the snapshot is not used: {error}"))
                runner = Runner(loaded.strategy_class, record.parameters, record.id, record.account, listed)
        return runner

    async def _load(self, record: AlgoRecord) -> LoadedStrategy:
        """The very version that it pins, from this machine's copy; a built-in strategy comes with the release."""
        if not record.strategy_version:
            return load_builtin(record.strategy)
        version = await self.strategies.version(record.strategy, record.strategy_version)
        self.reason = f"fetching version {version.version[:12]} of {version.strategy}"
        cached = await strategy_cache.fetch(self.deck.home, version, self.artefacts)
        if version.deprecated_at:
            text = f"version {version.version[:12]} of {version.strategy} is deprecated: {version.deprecated_because}"
            self._lines.append(LogLine(at=now(), level="warning", text=text))
        # What is in the copy is what was submitted, and nothing else.
        sys.dont_write_bytecode = True
        return load_folder(
            cached.code,
            version.kind,
            version.strategy,
            version.entry,
            version=version.version,
            packages=cached.packages,
        )

    async def _history(self, record: AlgoRecord, runner: Runner) -> dict[tuple[InstrumentId, str], Sequence[Bar]]:
        """Closed bars that the strategy wants to start with; without them it starts cold and says so."""
        try:
            async with asyncio.timeout(HISTORY_S):
                return await self.history.before(record.feed, runner.instruments, runner.wanted_history())
        except (TradeError, TimeoutError) as error:
            self._lines.append(LogLine(at=now(), level="warning", text=f"no history: {error or 'it took too long'}"))
            return {}

    async def _know_last(self, record: AlgoRecord, runner: Runner) -> None:
        """What the feed's workers had last; without it the strategy waits for the first ticks."""
        try:
            rows = [decode(raw) for raw in (await self.hot.scan(f"last:{record.feed}:", bytes)).values()]
        except NotReady as error:
            self._lines.append(LogLine(at=now(), level="warning", text=f"last values are not known: {error}"))
        else:
            runner.know(np.concatenate(rows) if rows else empty())

    async def _fill_bars(self, record: AlgoRecord) -> None:
        """Give the strategy the bars whose first ticks came before it listened, once they have closed."""
        runner = self._runner()
        while wanted := runner.wanted_bars():
            for instrument, interval, span in wanted:
                age = now() - span.end
                if age < FILL_AFTER:
                    continue
                bars: Sequence[Bar] = ()
                try:
                    bars = await self.history.closed(record.feed, instrument, interval, span)
                except TradeError as error:
                    if age < GIVE_UP_AFTER:
                        continue
                    text = f"bars of {instrument.id} ({interval}) may be missing before {span.end}: {error}"
                    self._lines.append(LogLine(at=now(), level="warning", text=text))
                self._send_out(runner.fill_bars(instrument.id, interval, bars, Nanos(span.end), now()))
            await asyncio.sleep(1.0)

    async def _fail(self, reason: str, details: str = "") -> None:
        """The strategy is at fault: stop trading, keep the position, cancel what rests, say so."""
        self._lines.append(LogLine(at=now(), level="error", text=details or reason))
        await self._write_log()
        if self.record is not None and self._began and not self._leaves_orders:
            try:
                await self.session.call(
                    "cancel_all", self.record.account, self.algo, f"{self.name} failed", timeout=10.0
                )
            except TradeError as error:
                log.warning("open orders were not cancelled: %s", error)
        self.state, self.reason = "failed", reason
        await self.desired.set_algo_state(self.algo, Epoch(self.epoch), "failed", reason, by=self.name)

    async def stop(self) -> None:
        """Orderly end: `on_stop`, send its last intents, cancel what rests (or leave it), keep the snapshot."""
        self.state = "stopping"
        runner, record = self.runner, self.record
        if runner is not None and record is not None and runner.failed is None and self._began:
            await self._read_how_to_stop()
            self._send_out(runner.stop(now(), leave_orders=self._leaves_orders))
            try:
                async with asyncio.timeout(5):
                    await self._idle.wait()
                if not self._leaves_orders:
                    await self.session.call("cancel_all", record.account, self.algo, f"{self.name} stops", timeout=5.0)
            except (TradeError, TimeoutError) as error:
                log.warning("stopping with orders left: %s", error)
            self._stopped = True
            await asyncio.sleep(0.1)  # let the last changes of its orders come in
            try:
                await self._save()
                await self._write_log()
                await self._tell()
            except TradeError as error:
                log.warning("the last snapshot was not kept: %s", error)
        await super().stop()

    async def _read_how_to_stop(self) -> None:
        """Whether its orders are to stay; as it was read last where the database is away."""
        try:
            async with asyncio.timeout(2):
                self._note_how_to_stop(await self.desired.algo(self.algo))
        except (TradeError, TimeoutError) as error:
            log.warning("how to stop is not known anew: %s", error)
        if self._leaves_orders:
            text = f"stopping: {len(self._runner().open_orders())} open orders are left, as asked"
            self._lines.append(LogLine(at=now(), level="info", text=text))

    def _note_how_to_stop(self, record: AlgoRecord) -> None:
        self._leaves_orders = record.want == "stopped" and record.stop_orders == "leave"

    async def _take_up(self, record: AlgoRecord) -> None:
        """What has changed and needs no new incarnation: parameters, between two events; labels, a pause."""
        mine, runner = self.record, self._runner()
        self._note_how_to_stop(record)
        if mine is None or record.generation == mine.generation or mine.generation < record.restart_generation:
            return
        self.record = record
        if record.parameters == mine.parameters or self._stopped or runner.failed is not None:
            return
        text = "parameters have changed"
        self._lines.append(LogLine(at=now(), level="info", text=text, fields=dict(record.parameters)))
        try:
            self._send_out(runner.change_parameters(record.parameters, now()))
        except BadInput as error:
            # They were checked before they were written, by the version that is pinned.
            self._stopped = True
            await self._fail(f"it does not take its parameters: {error}")

    # Ticks

    async def _listen(self, record: AlgoRecord) -> None:
        runner = self._runner()
        numbers = [i.number for i in runner.instruments]
        # A look-up costs a tenth of a search, and every algo sees every batch of its feed.
        is_mine = np.zeros(max(numbers) + 2, dtype=np.bool_)
        is_mine[numbers] = True
        subscription = await listen(self.bus, [streams.ticks(record.feed)], [], size=WAITING_BATCHES)
        runner.listening(Nanos(now() + SKEW))
        # Once more, now that every later tick will come: so nothing between is missed.
        await self._know_last(record, runner)
        self.spawn(self._fill_bars(record), "first bars")
        rested_at = time.monotonic()
        async for item in subscription:
            items = [item, *subscription.waiting()] if runner.strategy.conflate else [item]
            own = self._admit(items, is_mine)
            if len(own) and not self._stopped:
                at = now()
                self._ticks += len(own)
                self._last_tick_at = at
                self._behind_ns = at - int(own["received_at"][-1])
                self._tick_latency.add(at - own["received_at"])
                self._send_out(runner.ticks(own, at, waited=len(items) > 1))
            if time.monotonic() - rested_at > BUSY_S:
                # While the reader keeps up it waits for batches anyway; behind, it would starve the loop.
                await asyncio.sleep(0)
                rested_at = time.monotonic()

    def _admit(self, items: Sequence[tuple[str, bytes]], is_mine: npt.NDArray[np.bool_]) -> TickArray:
        """Own ticks of what came over the bus."""
        parts: list[TickArray] = []
        for channel, raw in items:
            if not channel:
                self._lines.append(LogLine(at=now(), level="warning", text="ticks may be missing: the bus was away"))
                continue
            epoch, sequence, shard, ticks = unpack_batch(raw)
            missed = self._senders.missed(epoch, sequence, shard)
            if missed is not None:
                self._lost += missed
                parts.append(ticks[is_mine.take(ticks["instrument"], mode="clip")])
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else empty()

    async def _clock(self) -> None:
        runner = self._runner()
        while True:
            await asyncio.sleep(0.5)
            if not self._stopped:
                self._send_out(runner.clock(now()))

    # What is kept and told

    async def _save(self) -> None:
        runner = self.runner
        if runner is None or runner.failed is not None:
            return
        try:
            raw = runner.snapshot()
        except StrategyFailed:
            self._send_out([])
            return
        if raw != self._saved:
            await self.snapshots.save(self.algo, Epoch(self.epoch), raw)
            self._saved = raw

    async def _write_log(self) -> None:
        # One at a time: what fails or stops writes its last lines while the usual round may be at it.
        async with self._writing:
            if not self._lines:
                return
            lines, self._lines = self._lines, deque(maxlen=self._lines.maxlen)
            rows = [(x.at, x.level, x.text) for x in lines]
            try:
                written = await self.algo_log.append(self.algo, Epoch(self.epoch), rows, [x.fields for x in lines])
            except BaseException:
                # Back before what has come meanwhile; where there is no room for all, the oldest go.
                lines.extend(self._lines)
                self._lines = lines
                raise
        try:
            await self.bus.publish(streams.algo_log(self.algo), str(written[-1].number).encode())
        except NotReady as error:
            # Who follows the log reads the table from time to time.
            log.debug("the log's news are not told: %s", error)

    async def _tell(self) -> None:
        try:
            record = await self.desired.algo(self.algo)
        except UnknownThing:
            end("it was deleted")
        if record.epoch > self.epoch:
            end(f"epoch {record.epoch} runs now")
        await self._take_up(record)
        await self.hot.put(f"algo:{self.algo}", self.stats(), ttl_s=3600)

    def stats(self) -> AlgoStats:
        """Counts, latencies, positions."""
        runner = self._runner()
        positions = [(i.id, runner.position(i)) for i in runner.instruments]
        return AlgoStats(
            id=self.algo,
            epoch=self.epoch,
            node=self.deck.node,
            state=self.state,
            reason=self.reason,
            at=now(),
            ticks=self._ticks,
            batches_lost=self._lost,
            conflated=runner.conflated,
            intents=self._sent,
            orders_acked=self._acked,
            fills=self._fills,
            denied=self._denied,
            open_orders=len(runner.open_orders()),
            tick_age_s=round((now() - self._last_tick_at) / 1e9, 3) if self._last_tick_at else None,
            cpu_share=None if self._cpu.share is None else round(self._cpu.share, 3),
            positions={id_: f"{p.quantity:f}" for id_, p in positions if p.quantity},
            realised=f"{sum((p.realised - p.fees for _, p in positions), start=positions[0][1].realised * 0):f}",
            currencies=sorted({each.currency for each in runner.instruments}),
            tick_to_strategy=self._tick_latency.counts(),
            intent_to_ack=self._ack_latency.counts(),
        )

    def facts(self) -> dict[str, Any]:
        record = self.record
        age = (now() - self._last_tick_at) / 1e9 if self._last_tick_at else None
        if record is not None and self._began:
            # Here, on the thread that also answers while the strategy blocks the loop.
            self._cpu.look(record.placement.cpu_limit)
        return {
            "generation": record.generation if record is not None else 0,
            "ticks": self._ticks,
            "intents": self._sent,
            "stale": age is not None and max(age, self._behind_ns / 1e9) > STALE_S,
            "cpu_share": self._cpu.share,
            "over_cpu": self._cpu.is_over,
            "memory_mb": psutil.Process().memory_info().rss >> 20,
        }
