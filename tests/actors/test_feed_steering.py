"""A worker and a coordinator by themselves: what the provider is asked, and who may publish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from actors import feed_coordinator, feed_fence
from actors.feed_carrier import FeedCarrier
from actors.feed_coordinator import FeedCoordinator
from actors.feed_fence import FENCE_S, FenceLook
from actors.feed_worker import FeedWorker
from cluster import process
from cluster.feeds import fence_key
from storage.tasks import end_tasks
from tests.api.playing import instrument
from trading.errors import BadInput, NotReady, Unreachable
from trading.feed_mesh import FeedMesh, Fence
from trading.feed_plan import Carried, Carry, Move, Phase, Release, Retune, WorkerReport
from trading.handover import Cuts, Handover
from trading.ids import Epoch, FeedId, InstrumentId
from trading.instruments import Instrument
from trading.last_values import LastValues
from trading.subscriptions import Capacity
from trading.ticks import SECOND, TRADE, TickArray, TickBuffer, decode

A, B, C = (InstrumentId(f"T:{name}") for name in "ABC")


class FakeConnection:
    """What the provider was asked, in order; it refuses C."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], tuple[str, ...] | None]] = []

    async def subscribe(self, instruments: Sequence[Instrument], channels: Sequence[str]) -> None:
        if any(each.id == C for each in instruments):
            raise BadInput("instruments", "C cannot be had")
        self.asked.append(("take", [each.id for each in instruments], tuple(channels)))

    async def unsubscribe(self, instruments: Sequence[Instrument], channels: Sequence[str] | None = None) -> None:
        self.asked.append(("drop", [each.id for each in instruments], None if channels is None else tuple(channels)))


class FakeHot:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.is_away = False
        self.looks = 0

    async def get(self, key: str, _: Any) -> Any:
        self.looks += 1
        if self.is_away:
            raise NotReady("redis is away", 0.1)
        return self.values.get(key)

    async def put(self, key: str, value: Any, ttl_s: float) -> None:
        if self.is_away:
            raise NotReady("redis is away", 0.1)
        self.values[key] = value


class BareHost:
    """What watches and judges ticks has tests of its own."""

    def __init__(self) -> None:
        self.ended: list[InstrumentId] = []
        self.refusals: dict[InstrumentId, str] = {}
        self.taken_over: list[TickArray] = []
        self.cuts: dict[InstrumentId, Cuts] = {}
        self.marks = 0
        self.is_full = self.is_away = False

    async def begin(self, fresh: Sequence[Instrument], muted: bool) -> None:
        await asyncio.sleep(0)

    async def flushed(self) -> None:
        if self.is_full:
            raise NotReady("what came is not out yet", 0.1)

    async def mark(self) -> None:
        self.marks += 1
        if self.is_away:
            raise NotReady("redis is away", 0.1)

    def end(self, gone: Sequence[Instrument], cuts: Mapping[int, Cuts]) -> None:
        self.cuts |= {each.id: cuts[each.number] for each in gone}
        self.ended += [each.id for each in gone]

    def hand_over(self, number: int) -> Cuts:
        return {SECOND | TRADE: 100}

    def take_over(self, number: int, cuts: Cuts, kept: TickArray) -> None:
        assert cuts == {TRADE: 7, SECOND | TRADE: 100}
        self.taken_over.append(kept)

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        self.refusals[instrument] = reason


class Bench:
    """A carrier with everything around it that these tests look at."""

    def __init__(self) -> None:
        self.host, self.connection = BareHost(), FakeConnection()
        self.handover, self.last_values = Handover(), LastValues()
        unread: Any = None
        self.carrier = FeedCarrier(unread, self.handover, self.last_values.seen_at, self.host)
        self.carrier.channels = ("trade", "quote")
        self.carrier.listed = {id_: _numbered(id_, number) for number, id_ in enumerate((A, B, C), 1)}

    def carried(self) -> dict[InstrumentId, Carried]:
        return dict(self.carrier.report(1, 7).carried)


def _numbered(id_: InstrumentId, number: int) -> Instrument:
    return msgspec.structs.replace(instrument(id_), number=number)


async def asked_by(bench: Bench) -> list[Any]:
    task = asyncio.create_task(bench.carrier.ask(bench.connection))  # type: ignore[arg-type]
    while ", 0 requests" not in repr(bench.carrier):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    await end_tasks([task])
    asked, bench.connection.asked = bench.connection.asked, []
    return list(asked)


async def test_the_provider_is_asked_in_the_order_of_the_steps() -> None:
    bench = Bench()
    await bench.carrier.carry([A, B], False)
    await bench.carrier.release([A])
    await bench.carrier.carry([A], True, ("trade",))
    await bench.carrier.carry([A], False)
    assert await asked_by(bench) == [
        ("take", [A, B], ("trade", "quote")),
        ("drop", [A], None),
        ("take", [A], ("trade",)),
    ]
    assert {i: (how.phase, how.channels) for i, how in bench.carried().items()} == {
        A: (Phase.MUTED, ("trade",)),
        B: (Phase.LIVE, ("trade", "quote")),
    }


async def test_what_was_let_go_before_the_provider_could_be_asked_is_not_asked_for() -> None:
    bench = Bench()
    await bench.carrier.carry([A, B], False)
    await bench.carrier.release([A])
    assert await asked_by(bench) == [("take", [B], ("trade", "quote")), ("drop", [A], None)]


async def test_a_retune_asks_for_what_is_new_before_it_ends_what_is_over() -> None:
    bench = Bench()
    await bench.carrier.carry([A, B], False, ("trade",))
    await asked_by(bench)
    await bench.carrier.retune([A, B, C], ("quote",))
    assert await asked_by(bench) == [("take", [A, B], ("quote",)), ("drop", [A, B], ("trade",))]
    await bench.carrier.retune([A], ("quote",))
    assert await asked_by(bench) == []
    assert bench.carried()[A].channels == ("quote",)


async def test_one_that_the_provider_cannot_take_holds_up_no_other() -> None:
    bench = Bench()
    await bench.carrier.carry([A, C, B], False)
    assert [ids for _, ids, _ in await asked_by(bench)] == [[A], [B]]
    assert bench.host.refusals == {C: "instruments: C cannot be had"}


async def test_a_move_in_batches_leaves_out_what_is_not_carried() -> None:
    giver, taker = Bench(), Bench()
    await giver.carrier.carry([A], False)
    buffer = TickBuffer()
    for sequence in (5, 6, 7):
        buffer.trade(1, 1.0, 1.0, TRADE, 100, 200, sequence)
    raw = buffer.take()
    assert raw
    giver.last_values.take(giver.handover.admit(decode(raw)[:2]))
    assert giver.carried()[A].last_at == 200
    await taker.carrier.carry([A, B], True)
    taker.handover.admit(decode(raw))
    firsts = {i: how.firsts for i, how in taker.carried().items()}
    cuts = await giver.carrier.cut({A: firsts[A], B: firsts[B]})
    assert cuts == {A: {TRADE: 7, SECOND | TRADE: 100}}
    since = giver.carried()[A].since
    assert await giver.carrier.cut({A: {}}) == cuts
    assert giver.carried()[A].since == since, "asked again it began no later"
    await taker.carrier.activate({**cuts, C: {}})
    assert [ticks["sequence"].tolist() for ticks in taker.host.taken_over] == [[7]]


async def test_what_is_cut_or_taken_over_is_on_record_before_the_coordinator_hears_of_it() -> None:
    giver, taker = Bench(), Bench()
    await giver.carrier.carry([A], False)
    giver.host.is_away = True
    with pytest.raises(NotReady):
        await giver.carrier.cut({A: {TRADE: 7}})
    giver.host.is_away = False
    cuts = await giver.carrier.cut({A: {TRADE: 7}})
    assert (cuts, giver.host.marks) == ({A: {TRADE: 7, SECOND | TRADE: 100}}, 2)
    await taker.carrier.carry([A], True)
    taker.host.is_away = True
    with pytest.raises(NotReady):
        await taker.carrier.activate(cuts)
    taker.host.is_away = False
    await taker.carrier.activate(cuts)
    assert (len(taker.host.taken_over), taker.host.marks) == (1, 2), "once, for all that it was asked twice"
    giver.host.is_full = True
    with pytest.raises(NotReady):
        await giver.carrier.release([A])
    assert A in giver.carrier, "what came of it is not out yet"
    giver.host.is_full = False
    await giver.carrier.release([A])
    assert (giver.host.cuts, giver.host.ended) == ({A: {TRADE: 7}}, [A])


async def test_a_worker_that_is_not_ready_says_so_in_its_report() -> None:
    worker: Any = object.__new__(FeedWorker)
    worker.state, worker._connection = "starting", FakeConnection()
    assert await worker.report() is None


async def test_a_fenced_worker_ends_before_it_publishes_and_a_successor_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(process, "end", ended.append)
    hot, at = FakeHot(), [100.0]
    monkeypatch.setattr(feed_fence, "elapsed", lambda: at[0])
    fence = FenceLook("worker/f/1", hot)  # type: ignore[arg-type]
    fence.began(7)
    hot.values[fence_key("worker/f/1")] = 6
    at[0] += 2 * FENCE_S
    await fence.may_publish()
    assert not ended
    hot.values[fence_key("worker/f/1")] = 7
    await fence.may_publish()
    assert not ended
    assert hot.looks == 1, "it had looked a moment ago"
    at[0] += 2 * FENCE_S
    await fence.may_publish()
    assert len(ended) == 1
    hot.is_away = True
    with pytest.raises(NotReady):
        await fence.may_publish()


class FakeLeases:
    def __init__(self, order: list[Any]) -> None:
        self.order = order

    async def end(self, name: str, epoch: Epoch, by: str) -> Epoch:
        self.order.append(("end", name, epoch))
        return epoch or Epoch(9)


class FakePeer:
    def __init__(self, shard: int, order: list[Any], answers: dict[str, Callable[..., Awaitable[Any]]]) -> None:
        self.shard, self.order, self.answers = shard, order, answers

    async def call(self, method: str, *args: Any, timeout: float) -> Any:
        self.order.append((method, self.shard, *args))
        answer = self.answers.get(method)
        return None if answer is None else await answer(*args)


def bare_coordinator(order: list[Any]) -> Any:
    coordinator: Any = object.__new__(FeedCoordinator)
    coordinator.name, coordinator.feed = "coordinator/f", FeedId("f")
    coordinator.leases, coordinator.hot = FakeLeases(order), FakeHot()
    coordinator._peers, coordinator._ended, coordinator._answered, coordinator._moves = {}, set(), set(), 0
    return coordinator


def mesh() -> FeedMesh:
    return FeedMesh(Capacity(provider="p", instruments_per_worker=9, max_workers=3, channels=("trade", "quote")))


async def test_fences_come_first_and_are_waited_for_unless_the_process_is_known_to_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[Any] = []
    coordinator = bare_coordinator(order)
    coordinator._peers = {0: FakePeer(0, order, {})}

    async def sleep(seconds: float) -> None:
        order.append(("sleep", seconds > FENCE_S))

    monkeypatch.setattr(feed_coordinator.asyncio, "sleep", sleep)
    coordinator._ended = {2}
    await coordinator._take(mesh(), [Fence(1, Epoch(4)), Fence(2, Epoch(0)), Carry(0, (A,), False, ("trade",))])
    assert order == [
        ("end", "worker/f/1", 4),
        ("sleep", True),
        ("end", "worker/f/2", 0),
        ("carry", 0, (A,), False, ("trade",)),
    ]
    assert coordinator.hot.values == {fence_key("worker/f/1"): 4, fence_key("worker/f/2"): 9}


async def test_while_a_fence_cannot_be_done_no_other_step_is_taken() -> None:
    order: list[Any] = []
    coordinator = bare_coordinator(order)
    coordinator._peers = {0: FakePeer(0, order, {})}
    coordinator.hot.is_away = True
    with pytest.raises(NotReady):
        await coordinator._take(mesh(), [Fence(1, Epoch(4)), Carry(0, (A,), False)])
    assert order == [("end", "worker/f/1", 4)]


async def test_moves_go_in_batches_and_one_that_fails_holds_up_no_other() -> None:
    order: list[Any] = []

    async def cut(firsts: dict[InstrumentId, Any]) -> dict[InstrumentId, Any]:
        return {each: {TRADE: 7} for each in firsts if each != B}

    async def away(*_: Any) -> None:
        raise Unreachable("worker/f/2", "no answer")

    coordinator = bare_coordinator(order)
    coordinator._peers = {
        0: FakePeer(0, order, {"cut": cut}),
        1: FakePeer(1, order, {}),
        2: FakePeer(2, order, {"cut": away}),
    }
    steps = [
        Retune(2, (C,), ("trade",)),
        Move(A, 0, 1, {TRADE: 5}),
        Move(B, 0, 1, {TRADE: 5}),
        Move(C, 2, 1, {TRADE: 5}),
        Release(0, (C,)),
    ]
    await coordinator._take(mesh(), steps)
    assert (order[0], order[-1]) == (("retune", 2, (C,), ("trade",)), ("release", 0, (C,)))
    moved = [("cut", 0, {A: {TRADE: 5}, B: {TRADE: 5}}), ("activate", 1, {A: {TRADE: 7}})]
    assert [each for each in order[1:-1] if each != ("cut", 2, {C: {TRADE: 5}})] == moved
    assert len(order) == 5
    assert coordinator._moves == 1


async def test_a_worker_that_answers_that_it_carries_nothing_has_a_new_process() -> None:
    order: list[Any] = []
    coordinator = bare_coordinator(order)
    report = WorkerReport(shard=0, epoch=Epoch(3), carried={})

    async def tell() -> WorkerReport:
        return report

    async def away() -> None:
        raise Unreachable("worker/f/2", "no answer")

    coordinator._peers = {
        0: FakePeer(0, order, {"report": tell}),
        1: FakePeer(1, order, {}),
        2: FakePeer(2, order, {"report": away}),
    }
    core = mesh()
    core.want({A: ("trade",)}, 3, {0, 1, 2})
    await coordinator._hear(core)
    assert coordinator._ended == {1}
    assert coordinator._answered == {0, 1}
    _, view = core.look(process.now())
    assert (view.unknown, view.silent) == ((2,), (1, 2))
