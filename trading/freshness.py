"""Which subscriptions truly stream, and what heals those that do not.

A subscription is *pending* until its first tick or snapshot, then *live*; *stale* when it is silent for longer than its
own habit allows while its market is open; *failed* when the provider refused it or passed it over: the others
tick, this one never did.  A tick makes it live again from any state.

A shell (a feed worker) drives it so: ``want`` and ``drop`` as it carries instruments, ``opened`` and ``closed`` from
the connection, ``refused`` and ``listed`` from the provider's answers, ``take`` with every batch as it was decoded
(before `trading.tick_filter`: a bad tick still shows that the stream lives), and once or twice a second
``look(now, hours)``.  It does what `look` returns (`trading.healing`); answers of REST polls come back by ``polled``.
``gaps`` names where ticks may be missing, for the shell to note what came last; ``report`` is for the panel.  Hours
are values: a calendar that is not among them counts as closed, so that nothing is healed by guess.

Steps of healing, each after the one before has had `step_s`: subscribe again (or connect again, where all is silent),
poll by REST.  An instrument that has a second provider uses it at once, whatever else is tried: it stands by for that.
A poll can also clear the provider: as long as the venue itself has nothing newer, the instrument is quiet and nothing
is wrong; once it has, the provider is found out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from trading.freshness_terms import FreshnessSettings, Hours, Report, State
from trading.habits import Habits
from trading.healing import (
    BackFill,
    Healing,
    Poll,
    Reconnect,
    Resubscribe,
    StopPolling,
    StopSecond,
    UseSecond,
)
from trading.ids import InstrumentId, Nanos
from trading.ticks import TickArray

_SECOND = 1_000_000_000
#: A venue's time may be that much off ours without proving anything.
_CLOCKS_NS = 2 * _SECOND


class _Watch(msgspec.Struct):
    number: int
    calendar: str
    can_poll: bool
    has_second: bool
    settings: FreshnessSettings
    asked_at: Nanos
    since: Nanos
    state: State = State.PENDING
    reason: str = ""
    #: The last tick before the stream went; None: nothing to fill in.
    gap_from: Nanos | None = None
    #: When the step under way was taken, and how often it was asked for again.
    step_at: Nanos | None = None
    attempts: int = 0
    polled: bool = False
    second: bool = False
    #: The venue had nothing newer as of then; None: it was not asked, or it had.
    quiet_at: Nanos | None = None
    #: The venue has had ticks since it was asked for.
    proven: bool = False


class Freshness:
    """Watches the subscriptions of one connection; see the module for how it is driven."""

    def __init__(self, settings: FreshnessSettings | None = None) -> None:
        self.settings = (settings or FreshnessSettings()).check()
        self.habits = Habits()
        self._own: dict[InstrumentId, FreshnessSettings] = {}
        self._watched: dict[InstrumentId, _Watch] = {}
        #: Instruments of which ticks may be missing from now on, not told to the shell yet.
        self._gaps: list[InstrumentId] = []
        self._hours: Mapping[str, Hours] = {}
        self._opened_at: Nanos | None = None
        self._reconnect_at: Nanos | None = None
        #: Reconnections that brought nothing.
        self._in_vain = 0
        self._down = "not connected yet"
        #: Told to the shell with the next look: instruments dropped while they were polled or had a second provider.
        self._dropped: list[tuple[InstrumentId, bool, bool]] = []

    def __repr__(self) -> str:
        return f"<Freshness {self.counts()}>"

    def __contains__(self, id_: InstrumentId) -> bool:
        return id_ in self._watched

    # Settings

    def tune(self, settings: FreshnessSettings, own: Mapping[InstrumentId, FreshnessSettings]) -> None:
        """Put settings in force: those of the feed, and of instruments that have their own.  Raises `BadInput`."""
        self.settings = settings.check()
        self._own = {id_: each.check() for id_, each in own.items()}
        for id_, watch in self._watched.items():
            watch.settings = self._own.get(id_, settings)

    # Events

    def want(
        self,
        id_: InstrumentId,
        number: int,
        calendar: str,
        now: Nanos,
        *,
        can_poll: bool = False,
        has_second: bool = False,
        gap_from: Nanos | None = None,
    ) -> None:
        """An instrument is asked for; nothing changes where it is already.

        ``gap_from``: others have had its ticks until then, and what came since is to be filled in.
        """
        if id_ in self._watched:
            return
        settings = self._own.get(id_, self.settings)
        self._watched[id_] = _Watch(number, calendar, can_poll, has_second, settings, now, now, gap_from=gap_from)
        self.habits.arm(number)

    def second(self, id_: InstrumentId, has_second: bool) -> None:
        """Whether an instrument that is watched has a second provider from now on."""
        watch = self._watched[id_]
        watch.has_second = has_second
        if watch.second and not has_second:
            watch.second = False
            self._dropped.append((id_, False, True))

    def needs_second(self, id_: InstrumentId) -> bool:
        """Whether an instrument is to come from its second provider, for its stream is not as it should be."""
        watch = self._watched[id_]
        return watch.second and watch.state is not State.LIVE

    def drop(self, id_: InstrumentId) -> None:
        """An instrument is no longer carried."""
        watch = self._watched.pop(id_, None)
        if watch is not None:
            self.habits.forget(watch.number)
            if watch.polled or watch.second:
                self._dropped.append((id_, watch.polled, watch.second))

    def opened(self, now: Nanos) -> None:
        """The stream is open and everything was asked for (again)."""
        self._opened_at, self._down = now, ""

    def closed(self, now: Nanos, reason: str) -> None:
        """The stream is gone; what is missed from now on has to be filled in."""
        self._opened_at, self._down = None, reason
        for id_, watch in self._watched.items():
            self._open_gap(id_, watch)
            self.habits.cut(watch.number, now)

    def refused(self, id_: InstrumentId, reason: str, now: Nanos) -> None:
        """The provider refuses an instrument."""
        watch = self._watched.get(id_)
        if watch is not None:
            self._open_gap(id_, watch)
            self._become(watch, State.FAILED, f"refused: {reason}", now)

    def listed(self, ids: Collection[InstrumentId], now: Nanos) -> None:
        """The provider says what it streams on this connection: what is wanted and not among it has failed."""
        for id_, watch in self._watched.items():
            if id_ not in ids and watch.asked_at < now:
                self._open_gap(id_, watch)
                self._become(watch, State.FAILED, f"not among the {len(ids)} that the provider says it streams", now)

    def take(self, ticks: TickArray) -> None:
        """Ticks have come by the stream."""
        self.habits.take(ticks)

    def polled(self, id_: InstrumentId, venue_at: Nanos, now: Nanos, known: Nanos | None = None) -> bool:
        """A REST answer: the venue's last tick of the instrument was at ``venue_at`` (0: it has none).

        ``known``: venue time of the last one of the same kind that the stream brought.  Where it is not told, the last
        tick of any kind stands in for it, by its receipt where the venue sends no time.  Returns whether it shows that
        nothing is missing, so that there is no gap to be filled.
        """
        watch = self._watched.get(id_)
        if watch is None or self.habits.first_at(watch.number) is not None:
            return False  # the stream goes on: the answer tells nothing of what was missed before
        if known is not None and venue_at > known:
            # Ticks were missed: this silence is none that is usual here.
            self.habits.cut(watch.number, now)
        known = known or self.habits.venue_at(watch.number) or watch.asked_at
        if venue_at > known + _CLOCKS_NS:
            watch.proven, watch.quiet_at = True, None
            return False
        if venue_at > known:
            return False  # newer, but not by so much that clocks could not explain it
        watch.quiet_at = now
        if watch.state is State.STALE and not self._down:
            watch.gap_from = None
            self._become(watch, State.LIVE, "quiet: the venue has nothing newer", now)
            return True
        if watch.state is State.PENDING:
            watch.reason = "quiet: the venue has had nothing since it was asked for"
        return False

    # Looking

    def look(self, now: Nanos, hours: Mapping[str, Hours]) -> list[Healing]:
        """Bring every state up to now; returns what is to be done, each thing once."""
        self._note_sessions(hours, now)
        steps: list[Healing] = []
        for id_, watch in self._watched.items():
            first = self.habits.first_at(watch.number)
            if first is None:
                continue
            if watch.state is not State.LIVE or watch.reason:
                self._become(watch, State.LIVE, "", now)
                watch.quiet_at = None
            if watch.gap_from is not None:
                steps.append(BackFill(id_, watch.gap_from, first))
                watch.gap_from = None
        silent, alive = [], 0
        for id_, watch in self._watched.items():
            if not self._is_open(watch):
                continue
            if self._is_within_patience(watch, now):
                alive += watch.state is State.LIVE
            elif watch.quiet_at is None or now - watch.quiet_at > watch.settings.again_s * _SECOND:
                silent.append(id_)
        for id_ in silent:
            self._note_silence(id_, self._watched[id_], now)
        if alive:
            self._in_vain = 0
        steps += self._heal(silent, alive, now)
        steps += self._end_fallbacks(now)
        return steps

    def gaps(self) -> list[InstrumentId]:
        """Instruments of which ticks may be missing from here on; told once."""
        told, self._gaps = self._gaps, []
        return told

    def pending_gap(self, id_: InstrumentId) -> tuple[Nanos, Nanos | None] | None:
        """The last tick before a gap of which no look has told yet, and the first one after it (None: none has come);
        None where there is no such gap."""
        watch = self._watched.get(id_)
        if watch is None or watch.gap_from is None:
            return None
        return watch.gap_from, self.habits.first_at(watch.number)

    def report(self, id_: InstrumentId, now: Nanos) -> Report:
        """How one subscription goes, as of the last look."""
        watch = self._watched[id_]
        last = self.habits.last_at(watch.number)
        return Report(
            id=id_,
            state=watch.state,
            reason=watch.reason,
            since=watch.since,
            age_s=None if last is None else round((now - last) / 1e9, 3),
            patience_s=self._patience(watch) / 1e9,
            ticks=self.habits.ticks(watch.number),
            polled=watch.polled,
            second=watch.second,
        )

    def counts(self) -> dict[str, int]:
        """Subscriptions by state."""
        states = [watch.state for watch in self._watched.values()]
        return {str(state): states.count(state) for state in State}

    def state(self, id_: InstrumentId) -> State:
        """As of the last look."""
        return self._watched[id_].state

    # Inside

    def _note_sessions(self, hours: Mapping[str, Hours], now: Nanos) -> None:
        """A night is no usual gap."""
        turned = {name for name, each in hours.items() if each.is_open and self._hours.get(name) != each}
        before, self._hours = self._hours, dict(hours)
        for watch in self._watched.values():
            if watch.calendar in turned and watch.calendar in before and watch.state is State.LIVE:
                self.habits.cut(watch.number, Nanos(max(hours[watch.calendar].since, self._last(watch))))

    def _is_open(self, watch: _Watch) -> bool:
        hours = self._hours.get(watch.calendar)
        return hours is not None and hours.is_open

    def _last(self, watch: _Watch) -> Nanos:
        return self.habits.last_at(watch.number) or Nanos(0)

    def _silence(self, watch: _Watch, now: Nanos) -> int:
        """How long nothing has come that could have: since the last tick, the subscription or the opening."""
        floor = max(watch.asked_at, self._hours[watch.calendar].since, self._last(watch))
        if watch.state is State.PENDING and self._opened_at is not None:
            floor = max(floor, self._opened_at)
        return now - floor

    def _is_within_patience(self, watch: _Watch, now: Nanos) -> bool:
        silence, s = self._silence(watch, now), watch.settings
        # The habit is only asked where it matters.
        return silence <= min(s.least_s, s.first_s, s.pending_s) * _SECOND or silence <= self._patience(watch)

    def _patience(self, watch: _Watch) -> int:
        s = watch.settings
        if watch.state is State.PENDING:
            return int(s.pending_s * _SECOND)
        usual = self.habits.usual_gap(watch.number)
        if usual is None:
            return int(s.first_s * _SECOND)
        return int(min(max(s.gaps * usual, s.least_s * _SECOND), s.most_s * _SECOND))

    def _open_gap(self, id_: InstrumentId, watch: _Watch) -> None:
        """From here on ticks may be missing; the next one ends it."""
        last = self.habits.last_at(watch.number)
        if watch.gap_from is None and last is not None:
            watch.gap_from = last
            self._gaps.append(id_)
        self.habits.arm(watch.number)

    def _become(self, watch: _Watch, state: State, reason: str, now: Nanos) -> None:
        if watch.state is not state:
            watch.since = now
        watch.state, watch.reason = state, reason
        if state is State.LIVE:
            watch.step_at, watch.attempts, watch.proven = None, 0, False

    def _note_silence(self, id_: InstrumentId, watch: _Watch, now: Nanos) -> None:
        if watch.state is State.LIVE:
            self._open_gap(id_, watch)
            self._become(watch, State.STALE, "", now)
        if watch.state is State.STALE:
            silent = self._silence(watch, now) / 1e9
            watch.reason = f"silent for {silent:.0f} s" + (f"; the stream is down: {self._down}" if self._down else "")

    def _heal(self, silent: Iterable[InstrumentId], alive: int, now: Nanos) -> list[Healing]:
        again: list[InstrumentId] = []
        poll: list[InstrumentId] = []
        second: list[InstrumentId] = []
        is_all_silent = False
        for id_ in silent:
            watch = self._watched[id_]
            if watch.has_second and not watch.second:
                watch.second = True
                second.append(id_)
            if watch.state is State.PENDING and self._down:
                continue  # nothing was asked for yet
            if watch.step_at is None:
                watch.step_at = now
                watch.attempts = 1
                if alive:
                    again.append(id_)
                is_all_silent |= not alive
                continue
            waited = now - watch.step_at
            self._judge_pending(watch, alive, now)
            if waited <= watch.settings.step_s * _SECOND:
                continue
            if watch.can_poll and not watch.polled:
                watch.polled, watch.step_at = True, now
                poll.append(id_)
            elif not alive:
                is_all_silent = True
            elif waited > (watch.settings.again_s if watch.state is not State.PENDING else 0) * _SECOND:
                watch.step_at = now
                watch.attempts += 1
                again.append(id_)
        steps: list[Healing] = []
        if is_all_silent and not self._down and self._may_reconnect(now):
            steps.append(
                Reconnect(f"nothing has come of {len(self._watched)} instruments while their markets are open")
            )
            again.clear()
        if second:
            steps.append(UseSecond(tuple(second)))
        if again and not self._down:
            steps.append(Resubscribe(tuple(again)))
        if poll:
            steps.append(Poll(tuple(poll)))
        return steps

    def _judge_pending(self, watch: _Watch, alive: int, now: Nanos) -> None:
        """Find the provider out: it took the subscription and sends nothing, though there is something to send."""
        if watch.state is not State.PENDING or not alive:
            return
        if watch.proven:
            reason = "passed over: the venue has had ticks of it since it was asked for, and none came"
        elif watch.attempts >= watch.settings.attempts and watch.quiet_at is None:
            reason = f"passed over: asked for {watch.attempts} times without a tick while {alive} others tick"
        else:
            return
        self._become(watch, State.FAILED, reason, now)

    def _may_reconnect(self, now: Nanos) -> bool:
        # Ever more seldom, or an instrument whose habit is a long silence could never show it.
        pause = self.settings.again_s * 2 ** min(self._in_vain - 1, 6)
        if self._in_vain and self._reconnect_at is not None and now - self._reconnect_at <= pause * _SECOND:
            return False
        self._reconnect_at = now
        self._in_vain += 1
        return True

    def _end_fallbacks(self, now: Nanos) -> list[Healing]:
        poll = [id_ for id_, polled, _ in self._dropped if polled]
        second = [id_ for id_, _, used in self._dropped if used]
        self._dropped.clear()
        for id_, watch in self._watched.items():
            if watch.state is not State.LIVE or self.habits.first_at(watch.number) is None:
                continue
            if watch.polled:
                watch.polled = False
                poll.append(id_)
            if watch.second and now - watch.since > watch.settings.again_s * _SECOND:
                watch.second = False
                second.append(id_)
        steps: list[Healing] = []
        if poll:
            steps.append(StopPolling(tuple(poll)))
        if second:
            steps.append(StopSecond(tuple(second)))
        return steps
