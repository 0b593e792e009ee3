"""A feed's workers as one: what each should carry, and what to tell them next, whatever dies meanwhile.

A shell (the feed's coordinator) goes in rounds.  Each round it

1. says what is wanted, from the database, and which workers' processes the cluster knows of:
   ``mesh.want(subscriptions.wanted(), workers, running)``;
2. asks every shard of ``mesh.shards()`` for its report, with a time limit, and puts each answer in with ``heard``
   (no answer is no call; ``starting`` where it says that it is not ready; ``lost`` where the cluster knows for sure
   that a worker's process has ended);
3. takes the steps of ``mesh.look(now)`` in their order and shows its view.  A step that fails is not repeated by
   the shell: the next round names it again.  It goes round at once while the view is ``busy``.

To end a worker is for whoever runs processes: not before its shard has left ``view.draining``.  A worker that has not
been heard of for `GONE_NS` is *gone*: `Fence` comes first, so that the shell ends its lease and it cannot publish
beside those that carry its instruments from then on.  The shell says ``fenced`` when that is done; while it cannot be
done it takes no later step of the round.

The mesh remembers only what makes rounds quick and calm: the last reports, the last assignment, what the provider
passed over in silence.  All of it can be lost; then workers' reports and the database say where things stand.  So the
first rounds of a coordinator only ask: as long as a worker that ran before it has not answered, nobody knows what that
worker publishes, and whoever was given the same would publish it beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from trading.feed_plan import FeedStep, Phase, WorkerReport, ignored, next_steps
from trading.ids import Epoch, InstrumentId, Nanos
from trading.sharding import assign
from trading.subscriptions import Capacity, Channels

#: A worker that gave no report for so long is gone; its instruments go to the others.
GONE_NS = 3_000_000_000
#: A worker that is wanted and was never heard of is waited for so long before others take what would be its.
START_NS = 15_000_000_000
#: A worker for which the provider passed an instrument over is not tried again before.
RETRY_NS = 60_000_000_000


class Fence(msgspec.Struct, frozen=True):
    """End the lease of a worker that is gone: should it live, it must not publish any more."""

    shard: int
    #: Its last known one, which and all before which are over; 0: whichever it holds, for it was never heard of.
    epoch: Epoch


MeshStep = Fence | FeedStep


class MeshView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a feed stands."""

    workers: int
    #: Shard -> what it should carry.
    assignment: dict[int, tuple[InstrumentId, ...]]
    #: Shard -> how many instruments it truly carries, those on the move included.
    carried: dict[int, int]
    #: Wanted, and no worker has room: workers are gone or not there yet.
    stranded: tuple[InstrumentId, ...]
    #: Carried by nobody yet, or not any more, and about to be.
    uncarried: tuple[InstrumentId, ...]
    #: On the way from one worker to another.
    moving: tuple[InstrumentId, ...]
    #: Shards beyond the number of workers that still carry something.
    draining: tuple[int, ...]
    #: Shards that ran before this coordinator did and have told nothing yet: until they do nothing is moved.
    unknown: tuple[int, ...]
    #: Shards that gave no report this time, and those given up.
    silent: tuple[int, ...]
    gone: tuple[int, ...]
    #: Instruments with the shard for which the provider passed them over in silence.
    passed_over: tuple[tuple[InstrumentId, int], ...]
    steps: int
    #: Instruments that fit besides on the workers that are there.
    spare: int

    @property
    def busy(self) -> bool:
        """Whether another round soon will find something to do."""
        return bool(self.steps or self.moving)


class FeedMesh:
    """Steers the workers of one feed; see the module for how it is driven."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._wanted: dict[InstrumentId, Channels] = {}
        self._workers = 0
        self._running: frozenset[int] = frozenset()
        #: Workers that ran when this mesh began and were not heard of yet.
        self._inherited: set[int] = set()
        #: Whether it was ever told what is wanted.
        self.has_begun = False
        self._reports: dict[int, WorkerReport] = {}
        self._heard_at: dict[int, Nanos] = {}
        self._fresh: set[int] = set()
        #: Wanted, not heard of yet: since when.
        self._awaited: dict[int, Nanos] = {}
        self._lost: set[int] = set()
        #: Gone, and not known to be fenced yet.
        self._fences: dict[int, Epoch] = {}
        self._gone: set[int] = set()
        #: The oldest epoch of a gone shard that may be heard again.
        self._floor: dict[int, Epoch] = {}
        self._assignment: dict[int, tuple[InstrumentId, ...]] = {}
        self._passed_over: dict[tuple[InstrumentId, int], Nanos] = {}

    def __repr__(self) -> str:
        return f"<FeedMesh {len(self._wanted)} instruments {self._workers} workers {sorted(self._gone)} gone>"

    def want(self, wanted: Mapping[InstrumentId, Iterable[str]], workers: int, running: Collection[int] = ()) -> None:
        """Say what is wanted, in which channels, by how many workers (0: the feed is switched off).

        ``running`` are the shards that have a process: a coordinator that was restarted amid a resize knows of those
        beyond ``workers`` by nothing else, and they publish until they are told to stop.
        Raises `BadInput` where the provider does not allow it; then what was wanted before still is.
        """
        if workers:
            self.capacity.check_workers(workers, len(wanted))
        checked = {instrument: self.capacity.check_channels(channels) for instrument, channels in wanted.items()}
        self._wanted = checked if workers else {}
        self._workers = workers
        self._running = frozenset(running)
        if not self.has_begun:
            self.has_begun = True
            self._inherited = set(self._running)
        # What has no process publishes nothing.
        self._inherited &= self._running

    def shards(self) -> tuple[int, ...]:
        """The shards to ask for their report: those that should be, and those that are."""
        return tuple(sorted({*range(self._workers), *self._running, *self._reports}))

    def heard(self, report: WorkerReport, now: Nanos) -> None:
        """A worker says what it carries.  The word of an incarnation that was replaced or fenced counts for nothing."""
        shard = report.shard
        self._inherited.discard(shard)
        known = self._reports.get(shard)
        if report.epoch < self._floor.get(shard, 0) or (known is not None and report.epoch < known.epoch):
            return
        self._reports[shard] = report
        self._heard_at[shard] = now
        self._fresh.add(shard)
        self._lost.discard(shard)
        self._gone.discard(shard)
        # Its successor holds the lease.
        self._fences.pop(shard, None)

    def starting(self, shard: int) -> None:
        """A worker's process answers that it is not ready: it carries nothing yet."""
        self._inherited.discard(shard)

    def fenced(self, step: Fence) -> None:
        """The lease is over."""
        if self._fences.get(step.shard) == step.epoch:
            del self._fences[step.shard]

    def lost(self, shard: int) -> None:
        """The process of a worker has ended for sure."""
        if shard in self._reports:
            self._lost.add(shard)

    def look(self, now: Nanos) -> tuple[list[MeshStep], MeshView]:
        """What to tell the workers now, and where things stand."""
        self._give_up(now)
        self._note_passed_over(now)
        shards = self._usable(now)
        limit = self.capacity.instruments_per_worker
        if self._inherited:
            fences: list[MeshStep] = [Fence(shard, epoch) for shard, epoch in sorted(self._fences.items())]
            view = self._view({}, (), len(fences), len(shards))
            self._fresh.clear()
            return fences, view
        if shards:
            self._assignment = assign(self._current(set(shards)), self._wanted, shards, limit)
        else:
            self._assignment = {}
        placed = {instrument for mine in self._assignment.values() for instrument in mine}
        left_out = [instrument for instrument in self._wanted if instrument not in placed]
        assignment, stranded = self._with_leftovers(left_out)
        steps: list[MeshStep] = [Fence(shard, epoch) for shard, epoch in sorted(self._fences.items())]
        steps += next_steps(
            assignment,
            self._reports,
            now,
            channels=self._wanted,
            limit=limit,
            heard=self._fresh,
            barred=self._passed_over.keys(),
        )
        view = self._view(assignment, stranded, len(steps), len(shards))
        self._fresh.clear()
        return steps, view

    # What is there

    def _give_up(self, now: Nanos) -> None:
        for shard, report in list(self._reports.items()):
            is_gone = shard in self._lost or now - self._heard_at[shard] > GONE_NS
            if is_gone and shard not in self._fresh:
                del self._reports[shard], self._heard_at[shard]
                self._lost.discard(shard)
                if shard >= self._workers and not report.carried:
                    continue  # it was let go: nobody has to be kept from anything
                self._gone.add(shard)
                self._floor[shard] = Epoch(report.epoch + 1)
                self._fences[shard] = report.epoch
        self._gone = {shard for shard in self._gone if shard < self._workers}

    def _usable(self, now: Nanos) -> list[int]:
        """Shards that instruments can be given to: there, or about to be."""
        usable = []
        for shard in range(self._workers):
            if shard in self._reports:
                self._awaited.pop(shard, None)
                usable.append(shard)
            elif shard in self._gone:
                continue
            elif now - self._awaited.setdefault(shard, now) <= START_NS:
                usable.append(shard)
            else:
                self._gone.add(shard)
                self._fences[shard] = Epoch(0)
        self._await_inherited(now)
        for shard in [s for s in self._awaited if s >= self._workers and s not in self._inherited]:
            del self._awaited[shard]
        return usable

    def _await_inherited(self, now: Nanos) -> None:
        """Give up those that ran before and do not answer: from then on they must not publish."""
        for shard in sorted(self._inherited):
            if now - self._awaited.setdefault(shard, now) > START_NS:
                self._inherited.discard(shard)
                self._fences[shard] = Epoch(0)

    def _note_passed_over(self, now: Nanos) -> None:
        for pair in ignored(self._reports.values(), now):
            self._passed_over[pair] = Nanos(now + RETRY_NS)
        for pair, until in list(self._passed_over.items()):
            if now >= until or pair[0] not in self._wanted:
                del self._passed_over[pair]

    # What should be

    def _current(self, usable: set[int]) -> dict[int, list[InstrumentId]]:
        """Where instruments are or are on their way to, so that nothing under way is decided anew.

        A move that has not begun is no more than an idea: such an instrument is where it is carried.  Otherwise two
        full workers could wait for each other's room for ever.
        """
        carriers: dict[InstrumentId, dict[int, Phase]] = {}
        for shard, report in self._reports.items():
            if shard in usable:
                for instrument, how in report.carried.items():
                    carriers.setdefault(instrument, {})[shard] = how.phase
        assigned = {instrument: shard for shard, mine in self._assignment.items() for instrument in mine}
        barred: dict[InstrumentId, set[int]] = {}
        for instrument, shard in self._passed_over:
            barred.setdefault(instrument, set()).add(shard)
        current: dict[int, list[InstrumentId]] = {shard: [] for shard in usable}
        # What cannot move comes first in its worker's list and what is new to it last: lists are cut at the end.
        order = {instrument: place for place, instrument in enumerate(assigned)}
        for instrument in sorted(self._wanted, key=lambda i: (i not in barred, order.get(i, len(order)), i)):
            home = _home(carriers.get(instrument, {}), assigned.get(instrument), barred.get(instrument, ()))
            if home in current:
                current[home].append(instrument)
        return current

    def _with_leftovers(
        self, left_out: Iterable[InstrumentId]
    ) -> tuple[dict[int, tuple[InstrumentId, ...]], tuple[InstrumentId, ...]]:
        """What no worker has room for stays where it still is carried; the rest is stranded."""
        assignment = dict(self._assignment)
        stranded = []
        for instrument in left_out:
            here = {
                shard: report.carried[instrument].phase
                for shard, report in self._reports.items()
                if instrument in report.carried
            }
            home = _home(here, None, ())
            if home is None:
                stranded.append(instrument)
            else:
                assignment[home] = (*assignment.get(home, ()), instrument)
        return assignment, tuple(stranded)

    def _view(
        self,
        assignment: dict[int, tuple[InstrumentId, ...]],
        stranded: tuple[InstrumentId, ...],
        steps: int,
        usable: int,
    ) -> MeshView:
        phases: dict[InstrumentId, list[Phase]] = {}
        for report in self._reports.values():
            for instrument, how in report.carried.items():
                phases.setdefault(instrument, []).append(how.phase)
        return MeshView(
            workers=self._workers,
            assignment=assignment,
            carried={shard: len(report.carried) for shard, report in sorted(self._reports.items())},
            stranded=stranded,
            uncarried=tuple(i for i in self._wanted if i not in phases and i not in stranded),
            moving=tuple(sorted(i for i, here in phases.items() if here != [Phase.LIVE])),
            draining=tuple(sorted(s for s, r in self._reports.items() if s >= self._workers and r.carried)),
            unknown=tuple(sorted(self._inherited)),
            silent=tuple(sorted(set(self.shards()) - self._fresh - self._gone)),
            gone=tuple(sorted(self._gone)),
            passed_over=tuple(sorted(self._passed_over)),
            steps=steps,
            spare=max(0, self.capacity.most(usable) - len(self._wanted)),
        )


def _home(here: Mapping[int, Phase], assigned: int | None, barred: Collection[int]) -> int | None:
    """Which worker counts as having an instrument: the one it is on its way to, else one that has it."""
    if assigned is not None and assigned not in barred and here.get(assigned) in (Phase.LIVE, Phase.MUTED):
        return assigned
    for phase in (Phase.LIVE, Phase.MUTED):
        if found := [shard for shard, how in here.items() if how is phase and shard not in barred]:
            return min(found)
    return None if assigned in barred else assigned
