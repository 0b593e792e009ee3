"""Workers that hand an instrument to each other, lose their streams and are killed: each trade comes out once.

Only pure parts: `Handover` and `Continuity`, driven as feed workers and their coordinator drive them, with the notes
that outlive a worker.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from trading.continuity import Continuity, Mark, Marks, note_of
from trading.handover import Handover
from trading.ids import Nanos
from trading.ticks import BACKFILLED, TRADE, TickArray, TickBuffer, decode

ONE = 1
WORKERS = 3


def ticks_of(numbers: list[int], flags: int = 0) -> TickArray:
    buffer = TickBuffer()
    for n in numbers:
        buffer.trade(ONE, 100.0, 1.0, flags, n, n, n)
    return decode(buffer.take())


class Incarnation:
    """One process of a worker: what it knows dies with it."""

    def __init__(self) -> None:
        self.handover = Handover()
        self.continuity = Continuity()
        self.inbox: list[int] = []
        self.is_asked = False
        self.is_up = True
        #: The provider passes over so many of the next trades without a word.
        self.skips = 0
        self.left: dict[int, Mark] = {}


class Mesh:
    """Three workers, one instrument, and what the venue sends of it."""

    def __init__(self) -> None:
        self.sent = 0
        self.came_out: Counter[int] = Counter()
        self.workers = [Incarnation() for _ in range(WORKERS)]
        #: What Redis keeps of each.
        self.dumps = [b""] * WORKERS
        self.notes: list[list[bytes]] = [[] for _ in range(WORKERS)]
        self.live = 0
        self.muted: int | None = None
        self.ending: int | None = None
        first = self.workers[0]
        first.handover.carry(ONE)
        first.continuity.begin(ONE, Mark(1, Nanos(0), Nanos(1)))
        first.is_asked = True
        self.save(0)

    # What happens to ticks

    def emit(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            for worker in self.workers:
                if worker.is_asked and worker.is_up:
                    if worker.skips:
                        worker.skips -= 1
                    else:
                        worker.inbox.append(self.sent)

    def digest(self, shard: int, count: int) -> None:
        worker = self.workers[shard]
        taken, worker.inbox = worker.inbox[:count], worker.inbox[count:]
        if taken:
            self.publish(shard, worker.handover.admit(ticks_of(taken)))

    def publish(self, shard: int, ticks: TickArray) -> None:
        if len(ticks):
            self.came_out.update(ticks["sequence"].tolist())
            self.notes[shard].append(note_of(ticks))
            self.workers[shard].continuity.take(ticks)

    def fill(self, shard: int) -> None:
        for hole in self.workers[shard].continuity.claim(ONE):
            self.publish(shard, ticks_of(list(range(hole.first, hole.last + 1)), BACKFILLED))

    def save(self, shard: int) -> None:
        worker = self.workers[shard]
        cut = worker.handover.cuts_of(ONE).get(TRADE, 0)
        left = {} if ONE in worker.continuity.carried else worker.left
        self.dumps[shard], self.notes[shard] = worker.continuity.dump({ONE: cut}, left), []

    # What happens to workers

    def begin_move(self, target: int) -> None:
        if self.muted is None and self.ending is None and target != self.live:
            worker = self.workers[target]
            worker.handover.mute(ONE)
            worker.is_asked, worker.inbox = True, []
            self.muted = target

    def cut(self) -> None:
        if self.muted is None or not self.workers[self.muted].handover.firsts(ONE):
            return
        source, target = self.workers[self.live], self.workers[self.muted]
        cuts = source.handover.cut(ONE, target.handover.firsts(ONE))
        self.save(self.live)
        target.continuity.begin(ONE, Mark(cuts[TRADE], Nanos(0), Nanos(1)))
        self.publish(self.muted, target.handover.activate(ONE, cuts))
        self.save(self.muted)
        self.live, self.ending, self.muted = self.muted, self.live, None

    def release(self) -> None:
        if self.ending is None or not self.workers[self.ending].handover.has_passed(ONE):
            return
        worker = self.workers[self.ending]
        worker.continuity.end(ONE, worker.handover.cuts_of(ONE)[TRADE])
        worker.handover.forget(ONE)
        worker.is_asked, worker.inbox = False, []
        self.ending = None

    def go_down(self, shard: int) -> None:
        """What had come by then is digested first; what was under way is gone."""
        worker = self.workers[shard]
        self.digest(shard, len(worker.inbox) // 2)
        worker.inbox, worker.is_up = [], False

    def kill(self, shard: int, heir: int) -> None:
        self.workers[shard] = Incarnation()
        after = self.workers[shard]
        marks = Marks(self.dumps[shard])
        marks.replay(self.notes[shard])
        after.left = marks.marks
        for number, holes in marks.left_over().items():
            after.continuity.adopt(number, holes)
        if self.ending == shard:
            self.ending = None
        if self.muted == shard:
            self.muted = None
        if self.live == shard:
            self.inherit(shard, heir)

    def inherit(self, dead: int, heir: int) -> None:
        """Somebody carries what a killed worker had; a move to it or from it is over."""
        if heir in (self.muted, self.ending):
            heir = dead
        worker = self.workers[heir]
        found = []
        for dump, notes in zip(self.dumps, self.notes, strict=True):
            marks = Marks(dump)
            marks.replay(notes)
            found += [marks.marks[ONE]] if ONE in marks.marks else []
        if self.muted is not None:
            # Nobody is there to agree with: it is taken away again.
            muted = self.workers[self.muted]
            muted.handover.forget(ONE)
            muted.is_asked, muted.inbox = False, []
            self.muted = None
        worker.handover.carry(ONE)
        worker.continuity.begin(ONE, max(found, key=lambda mark: mark.begin))
        worker.is_asked, worker.inbox = True, []
        self.live = heir
        # Where it began must be known with what it publishes.
        self.save(heir)

    def settle(self) -> None:
        """All goes well from here on."""
        for worker in self.workers:
            worker.is_up, worker.skips = True, 0
        for _ in range(3):
            self.emit(3)
            for shard in range(WORKERS):
                self.digest(shard, 10_000)
            self.cut()
            self.release()
            for shard in range(WORKERS):
                self.fill(shard)


shards = st.integers(0, WORKERS - 1)
steps = st.one_of(
    st.tuples(st.just("emit"), st.integers(1, 6)),
    st.tuples(st.just("emit"), st.integers(1, 6)),
    st.tuples(st.just("digest"), shards, st.integers(1, 6)),
    st.tuples(st.just("digest"), shards, st.integers(1, 6)),
    st.tuples(st.just("begin_move"), shards),
    st.tuples(st.just("cut")),
    st.tuples(st.just("release")),
    st.tuples(st.just("fill"), shards),
    st.tuples(st.just("save"), shards),
    st.tuples(st.just("go_down"), shards),
    st.tuples(st.just("come_up"), shards),
    st.tuples(st.just("skip"), shards, st.integers(1, 4)),
    st.tuples(st.just("kill"), shards, shards),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=60))
def test_each_trade_comes_out_once_whatever_happens_to_workers_and_streams(plan: list[tuple[object, ...]]) -> None:
    mesh = Mesh()
    for what, *how in plan:
        match what:
            case "come_up":
                mesh.workers[how[0]].is_up = True  # type: ignore[index]
            case "skip":
                mesh.workers[how[0]].skips = how[1]  # type: ignore[index]
            case _:
                getattr(mesh, str(what))(*how)
    mesh.settle()
    assert mesh.came_out == Counter(range(1, mesh.sent + 1))
