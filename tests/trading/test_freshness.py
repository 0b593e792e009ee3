"""Subscriptions that do not stream are seen, explained and healed; those that are merely quiet are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trading.errors import BadInput
from trading.freshness import Freshness
from trading.freshness_terms import FreshnessSettings, Hours, State
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
from trading.ticks import BACKFILLED, SNAPSHOT, TickArray, TickBuffer, decode

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
A, B, C = (InstrumentId(f"T:{letter}") for letter in "ABC")
NUMBERS = {A: 1, B: 2, C: 3}
OPEN = {"day": Hours(is_open=True)}
CLOSED = {"day": Hours(is_open=False)}


def tick(number: int, at: float, flags: int = 0) -> TickArray:
    buffer = TickBuffer()
    when = START + int(at * SECOND)
    buffer.trade(number, 1.0, 1.0, flags, when, when, 0)
    return decode(buffer.take())


class Stream:
    """A `Freshness` with a clock in seconds, and all that it asked for."""

    def __init__(self, *instruments: InstrumentId, connect: bool = True, **options: bool) -> None:
        self.core = Freshness()
        self.at = 0.0
        self.asked: list[Healing] = []
        self.hours = OPEN
        for id_ in instruments:
            self.core.want(id_, NUMBERS[id_], "day", self.now, **options)
        if connect:
            self.core.opened(self.now)

    @property
    def now(self) -> Nanos:
        return Nanos(START + int(self.at * SECOND))

    def go(self, seconds: float, *ticking: InstrumentId, every: float = 1.0) -> list[Healing]:
        """Time passes, with a look each second; returns what was asked for meanwhile."""
        asked = []
        end = self.at + seconds
        due = self.at + every
        while self.at + 1e-9 < end:
            self.at += min(0.5, every)
            while due <= self.at:
                for id_ in ticking:
                    self.core.take(tick(NUMBERS[id_], due))
                due += every
            asked += self.core.look(self.now, self.hours)
        self.asked += asked
        return asked

    def state(self, id_: InstrumentId) -> State:
        return self.core.state(id_)

    def reason(self, id_: InstrumentId) -> str:
        return self.core.report(id_, self.now).reason


def test_subscription_is_pending_until_its_first_tick() -> None:
    stream = Stream(A, B)
    stream.go(2, A)
    assert (stream.state(A), stream.state(B)) == (State.LIVE, State.PENDING)
    assert stream.core.counts() == {"pending": 1, "live": 1, "stale": 0, "failed": 0}


def test_snapshot_makes_it_live_and_back_filled_ticks_do_not() -> None:
    stream = Stream(A, B)
    stream.core.take(tick(1, 0.1, SNAPSHOT))
    stream.core.take(tick(2, 0.1, BACKFILLED))
    stream.go(0.5)
    assert (stream.state(A), stream.state(B)) == (State.LIVE, State.PENDING)


def test_silence_is_judged_by_the_habit_of_the_instrument() -> None:
    stream = Stream(A, B)
    # B has a tick every 40 s, A every second.
    stream.go(1, A, B)
    for _ in range(25):
        stream.go(40, A)
        stream.core.take(tick(2, stream.at))
    assert stream.asked == []
    stream.go(30, B, every=1000)
    assert stream.state(A) is State.STALE
    assert stream.reason(A).startswith("silent for")
    assert stream.state(B) is State.LIVE
    stream.go(200, A)
    assert (stream.state(A), stream.state(B)) == (State.LIVE, State.STALE)


def test_one_silent_instrument_among_others_is_taken_from_the_second_and_asked_for_again_then_polled() -> None:
    stream = Stream(A, B, can_poll=True, has_second=True)
    stream.go(60, A, B)
    asked = stream.go(40, A)
    assert asked == [UseSecond((B,)), Resubscribe((B,)), Poll((B,))]
    report = stream.core.report(B, stream.now)
    assert (report.state, report.polled, report.second) == (State.STALE, True, True)
    assert report.age_s == pytest.approx(40.0)
    asked = stream.go(5, A, B)
    assert asked == [BackFill(B, Nanos(START + 60 * SECOND), Nanos(START + 101 * SECOND)), StopPolling((B,))]
    assert stream.state(B) is State.LIVE
    # The second provider stays until the first has been good for a while.
    assert stream.go(70, A, B) == [StopSecond((B,))]


def test_one_that_never_came_is_taken_from_the_second_though_its_stream_is_down() -> None:
    stream = Stream(A, connect=False, has_second=True)
    assert stream.go(40) == [UseSecond((A,))]
    assert stream.core.needs_second(A)
    stream.core.opened(stream.now)
    assert stream.go(2, A) == []
    assert not stream.core.needs_second(A)


def test_a_second_provider_may_be_named_and_taken_away_at_any_time() -> None:
    stream = Stream(A, B)
    stream.go(60, A, B)
    assert UseSecond((B,)) not in stream.go(40, A)
    stream.core.second(B, True)
    assert stream.go(1, A) == [UseSecond((B,))]
    stream.core.second(B, False)
    assert stream.go(1, A) == [StopSecond((B,))]
    assert not stream.core.needs_second(B)
    stream.core.second(B, True)
    stream.core.second(A, True)
    stream.core.second(A, False)
    assert stream.go(1, A) == [UseSecond((B,))]


def test_without_rest_and_second_provider_it_is_asked_for_again_and_again_with_pauses() -> None:
    stream = Stream(A, B)
    stream.go(60, A, B)
    asked = stream.go(200, A)
    assert asked == [Resubscribe((B,))] * len(asked)
    assert 3 <= len(asked) <= 4


def test_silence_of_all_is_a_dead_stream() -> None:
    stream = Stream(A, B)
    stream.go(60, A, B)
    asked = stream.go(20)
    assert [type(step) for step in asked] == [Reconnect]
    assert stream.core.counts()["stale"] == 2


def test_dead_stream_is_given_up_ever_more_seldom() -> None:
    stream = Stream(A)
    stream.go(60, A)
    times = []
    for _ in range(1000):
        if any(isinstance(step, Reconnect) for step in stream.go(1)):
            times.append(stream.at)
    pauses = np.diff(times)
    assert (pauses[1:] > pauses[:-1]).all()
    assert pauses[0] >= 60


def test_stream_that_dies_again_after_it_was_good_is_given_up_at_once() -> None:
    stream = Stream(A)
    stream.go(30, A)
    for _ in range(6):
        stream.go(130)
        stream.core.closed(stream.now, "given up")
        stream.core.opened(stream.now)
    stream.go(30, A)
    assert [type(step) for step in stream.go(12)] == [Reconnect]


def test_time_without_a_connection_is_no_habit() -> None:
    stream = Stream(A, B)
    for _ in range(20):
        stream.go(5, A, B)
        stream.core.closed(stream.now, "reset")
        stream.go(90)
        stream.core.opened(stream.now)
    stream.go(5, A, B)
    assert stream.core.report(A, stream.now).patience_s < 10


def test_stream_that_is_down_is_not_cleared_by_a_poll() -> None:
    stream = Stream(A, can_poll=True)
    stream.go(60, A)
    stream.core.closed(stream.now, "reset")
    stream.go(30)
    stream.core.polled(A, Nanos(START), stream.now)
    stream.go(1)
    assert stream.state(A) is State.STALE


def test_nothing_is_filled_in_where_the_venue_had_nothing() -> None:
    stream = Stream(A, B, can_poll=True)
    stream.go(60, A, B)
    stream.go(12, A)
    stream.core.polled(B, Nanos(START), stream.now)
    assert stream.go(2, A, B) == [StopPolling((B,))]


def test_gap_of_a_reconnection_is_filled_in_from_the_last_tick_to_the_first() -> None:
    stream = Stream(A)
    stream.go(10, A)
    stream.core.closed(stream.now, "reset")
    stream.go(3)
    assert stream.state(A) is State.LIVE  # not silent for longer than usual yet
    stream.core.opened(stream.now)
    assert stream.go(2, A) == [BackFill(A, Nanos(START + 10 * SECOND), Nanos(START + 14 * SECOND))]


def test_stream_that_is_down_reconnects_by_itself_but_is_polled_meanwhile() -> None:
    stream = Stream(A, can_poll=True)
    stream.go(60, A)
    stream.core.closed(stream.now, "reset by peer")
    assert stream.go(30) == [Poll((A,))]
    assert "the stream is down: reset by peer" in stream.reason(A)


def test_closed_market_is_never_stale_and_its_night_is_no_habit() -> None:
    stream = Stream(A, B)
    stream.go(30, A, B)
    stream.hours = CLOSED
    assert stream.go(3600) == []
    assert stream.core.counts()["live"] == 2
    stream.hours = {"day": Hours(is_open=True, since=stream.now)}
    assert stream.go(4) == []
    stream.go(20, A, B)
    assert stream.core.report(A, stream.now).patience_s < 10
    stream.go(20, A)
    assert stream.state(B) is State.STALE


def test_unknown_calendar_counts_as_closed() -> None:
    stream = Stream(A)
    stream.hours = {}
    assert stream.go(500) == []
    assert stream.state(A) is State.PENDING


def test_provider_that_passes_a_subscription_over_is_found_out_by_its_siblings() -> None:
    stream = Stream(A, B, C)
    asked = stream.go(60, A, C)
    assert stream.state(B) is State.FAILED
    assert stream.reason(B) == "passed over: asked for 3 times without a tick while 2 others tick"
    assert asked[:3] == [Resubscribe((B,))] * 3
    stream.go(2, A, B, C)
    assert (stream.state(B), stream.reason(B)) == (State.LIVE, "")


def test_nobody_is_blamed_while_nothing_ticks_or_the_market_is_closed() -> None:
    stream = Stream(A, B)
    asked = stream.go(50)
    assert stream.core.counts()["pending"] == 2
    assert {type(step) for step in asked} == {Reconnect}
    stream = Stream(A, B)
    stream.hours = CLOSED
    assert stream.go(500) == []


def test_nobody_is_blamed_before_the_stream_is_open() -> None:
    stream = Stream(A, B, connect=False)
    assert stream.go(300) == []
    assert stream.core.counts()["pending"] == 2
    stream.core.opened(stream.now)
    assert stream.go(9, A) == []


def test_poll_proves_that_the_provider_passes_over() -> None:
    stream = Stream(A, B, can_poll=True)
    stream.go(18, A)
    assert stream.asked == [Resubscribe((B,)), Poll((B,))]
    stream.core.polled(B, Nanos(stream.now - SECOND), stream.now)
    stream.go(2, A)
    assert stream.state(B) is State.FAILED
    assert "the venue has had ticks" in stream.reason(B)


def test_poll_clears_a_provider_whose_instrument_does_not_trade() -> None:
    stream = Stream(A, B, can_poll=True)
    for _ in range(40):
        stream.go(5, A)
        if stream.core.report(B, stream.now).polled:
            stream.core.polled(B, Nanos(START - 3600 * SECOND), stream.now)
    assert stream.state(B) is State.PENDING
    assert stream.reason(B).startswith("quiet")
    assert len(stream.asked) == 2
    stream.core.polled(B, Nanos(stream.now - SECOND), stream.now)
    stream.go(6, A)
    assert stream.state(B) is State.FAILED


def test_poll_clears_a_stream_whose_instrument_went_quiet() -> None:
    stream = Stream(A, B, can_poll=True)
    stream.go(60, A, B)
    stream.go(12, A)
    assert stream.state(B) is State.STALE
    for _ in range(10):
        stream.core.polled(B, Nanos(START + 60 * SECOND), stream.now)
        assert (stream.state(B), stream.reason(B)) == (State.LIVE, "quiet: the venue has nothing newer")
        assert stream.go(5, A) == []
    stream.core.polled(B, Nanos(stream.now), stream.now)
    stream.go(2, A)
    assert stream.state(B) is State.STALE
    stream.go(2, A, B)
    assert stream.state(B) is State.LIVE
    assert StopPolling((B,)) in stream.asked


def test_refusal_is_a_failure_with_its_reason_until_a_tick_comes() -> None:
    stream = Stream(A, B)
    stream.core.refused(B, "symbol limit", stream.now)
    stream.go(2, A)
    assert (stream.state(B), stream.reason(B)) == (State.FAILED, "refused: symbol limit")
    stream.go(2, A, B)
    assert stream.state(B) is State.LIVE


def test_what_the_providers_own_list_lacks_has_failed() -> None:
    stream = Stream(A, B)
    stream.at = 1
    stream.core.listed({A}, stream.now)
    stream.go(1, A)
    assert stream.state(A) is State.LIVE
    assert (stream.state(B), stream.reason(B)) == (State.FAILED, "not among the 1 that the provider says it streams")


def test_what_is_dropped_is_polled_no_more() -> None:
    stream = Stream(A, B, can_poll=True, has_second=True)
    stream.go(60, A, B)
    stream.go(40, A)
    stream.core.drop(B)
    assert stream.go(1, A) == [StopPolling((B,)), StopSecond((B,))]
    stream.core.polled(B, stream.now, stream.now)
    assert stream.go(30, A) == []


def test_slow_instrument_learns_its_habit_though_it_was_taken_for_stale() -> None:
    stream = Stream(A, B)
    for _ in range(25):
        stream.go(100, A)
        stream.core.take(tick(2, stream.at))
    stream.asked.clear()
    stream.go(99, A)
    assert stream.asked == [] or all(isinstance(step, BackFill) for step in stream.asked)
    assert stream.state(B) is State.LIVE


@pytest.mark.parametrize("change", [{"gaps": 0.0}, {"first_s": -1.0}, {"least_s": 99.0, "most_s": 9.0}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Freshness(FreshnessSettings(**change))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 3), st.sampled_from([0.001, 0.3, 1.0, 7.0]), st.sampled_from([0, 0, SNAPSHOT, BACKFILLED])
        ),
        min_size=1,
        max_size=60,
    )
)
def test_habits_are_those_of_the_ticks_in_small_and_large_batches(steps: list[tuple[int, float, int]]) -> None:
    """Batches of one, and of ten for ten instruments of which each comes once."""
    small, large = Habits(), Habits()
    last: dict[int, float] = {}
    gaps: dict[int, list[float]] = {}
    counted: dict[int, float] = {}
    at = 1.0
    for number, gap, flags in steps:
        at += gap
        small.take(tick(number, at, flags))
        others = [tick(number + 10 * n, at, flags) for n in range(10)]
        large.take(np.concatenate(others))
        if flags == BACKFILLED:
            continue
        if number in last and not flags and at - counted.get(number, -9.0) >= 1.0 - 1e-6:
            gaps.setdefault(number, []).append(at - last[number])
            counted[number] = at
        last[number] = at
    for number in (1, 2, 3):
        for habits in (small, large):
            assert (habits.last_at(number) is None) == (number not in last)
            usual = habits.usual_gap(number)
            own = gaps.get(number, [])
            assert (usual is not None) == (len(own) >= 16)
            if usual is not None:
                assert usual == pytest.approx(max(own) * SECOND, rel=0.13)
        assert small.first_at(number) == large.first_at(number)
        assert small.ticks(number) == large.ticks(number)
        assert large.usual_gap(number) == large.usual_gap(number + 40)


def test_hundreds_of_instruments_are_watched_each_for_itself() -> None:
    core = Freshness()
    ids = [InstrumentId(f"T:{n:03}") for n in range(300)]
    for number, id_ in enumerate(ids):
        core.want(id_, number, "day", Nanos(START))
    core.opened(Nanos(START))
    core.take(np.concatenate([tick(number, 1) for number in range(0, 300, 3)]))
    core.look(Nanos(START + 2 * SECOND), OPEN)
    assert [core.state(id_) is State.LIVE for id_ in ids] == [n % 3 == 0 for n in range(300)]


def test_burst_does_not_hide_the_usual_silence_after_it() -> None:
    habits = Habits()
    for minute in range(20):
        for n in range(200):
            habits.take(tick(1, minute * 60 + n / 100))
    assert habits.usual_gap(1) == pytest.approx(58 * SECOND, rel=0.13)
    habits.forget(1)
    assert habits.last_at(1) is None
    assert habits.usual_gap(1) is None


class Life(RuleBasedStateMachine):
    """Anything happens to a stream; what is said of it must be true of what happened."""

    @initialize(can_poll=st.booleans(), has_second=st.booleans())
    def begin(self, can_poll: bool, has_second: bool) -> None:
        self.stream = Stream(A, B, connect=False, can_poll=can_poll, has_second=has_second)
        self.options = {"can_poll": can_poll, "has_second": has_second}
        self.wanted = {A, B}
        self.last: dict[InstrumentId, float] = {}
        self.polled: set[InstrumentId] = set()
        self.second: set[InstrumentId] = set()
        self.is_up = False
        self.refused: set[InstrumentId] = set()

    @rule(seconds=st.sampled_from([1, 5, 20, 100]), ticking=st.sets(st.sampled_from([A, B, C])))
    def go(self, seconds: int, ticking: set[InstrumentId]) -> None:
        on = sorted(ticking & self.wanted) if self.is_up else []
        for step in self.stream.go(seconds, *on):
            match step:
                case Poll(ids):
                    assert not self.polled & set(ids)
                    self.polled |= set(ids)
                case StopPolling(ids):
                    assert set(ids) <= self.polled
                    self.polled -= set(ids)
                case UseSecond(ids):
                    assert not self.second & set(ids)
                    self.second |= set(ids)
                case StopSecond(ids):
                    assert set(ids) <= self.second
                    self.second -= set(ids)
                case BackFill(id_, since, until):
                    assert since < until
                    assert id_ in on
                case Resubscribe(ids):
                    assert self.is_up
                    assert set(ids) <= self.wanted
                case Reconnect():
                    assert self.is_up
        for id_ in on:
            self.last[id_] = self.stream.at
            self.refused.discard(id_)

    @rule()
    def open_or_close(self) -> None:
        self.is_up = not self.is_up
        if self.is_up:
            self.stream.core.opened(self.stream.now)
        else:
            self.stream.core.closed(self.stream.now, "gone")

    @rule(is_open=st.booleans())
    def market(self, is_open: bool) -> None:
        if self.stream.hours["day"].is_open != is_open:
            self.stream.hours = {"day": Hours(is_open=is_open, since=self.stream.now)}

    @rule(id_=st.sampled_from([A, B, C]))
    def want_or_drop(self, id_: InstrumentId) -> None:
        if id_ in self.wanted:
            self.stream.core.drop(id_)
            self.wanted.discard(id_)
            self.last.pop(id_, None)
            self.refused.discard(id_)
        else:
            self.stream.core.want(id_, NUMBERS[id_], "day", self.stream.now, **self.options)
            self.wanted.add(id_)

    @rule(id_=st.sampled_from([A, B]), ago=st.sampled_from([0, 1000]))
    def poll_answer(self, id_: InstrumentId, ago: int) -> None:
        self.stream.core.polled(id_, Nanos(self.stream.now - ago * SECOND), self.stream.now)

    @rule(id_=st.sampled_from([A, B]))
    def refuse(self, id_: InstrumentId) -> None:
        self.stream.core.refused(id_, "no", self.stream.now)
        if id_ in self.wanted:
            self.refused.add(id_)

    @invariant()
    def states_are_true(self) -> None:
        if not hasattr(self, "stream"):
            return
        for id_ in self.wanted:
            report = self.stream.core.report(id_, self.stream.now)
            if id_ not in self.last:
                assert report.state in (State.PENDING, State.FAILED)
                assert report.age_s is None
            else:
                assert report.state is not State.PENDING
                assert report.age_s == pytest.approx(self.stream.at - self.last[id_], abs=1.01)
            if id_ in self.refused:
                assert report.state is State.FAILED
            if report.state in (State.STALE, State.FAILED):
                assert report.reason
            assert not report.polled or id_ in self.polled
            assert not report.second or id_ in self.second


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
