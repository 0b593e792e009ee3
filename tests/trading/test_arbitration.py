"""Two providers of one instrument come out as one stream: nothing doubled, nothing backwards, nothing lost."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.arbitration import Arbiter, ArbiterSettings, Source
from trading.errors import BadInput
from trading.ids import Nanos
from trading.ticks import TickArray, TickBuffer, decode

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_700_000_000 * SECOND
FIRST, OTHER = Source.FIRST, Source.SECOND


def trade(at: int, size: float, number: int = 1, received: int | None = None) -> TickArray:
    buffer = TickBuffer()
    buffer.trade(number, 100.0, size, 0, START + at, START + (at if received is None else received), 0)
    return decode(buffer.take())


def sizes(ticks: TickArray) -> list[float]:
    return ticks["size"].tolist()  # type: ignore[no-any-return]


def paired() -> Arbiter:
    arbiter = Arbiter()
    arbiter.pair(1)
    return arbiter


def judge(arbiter: Arbiter, at: int, is_stale: bool) -> list[float]:
    return sizes(arbiter.judge(1, is_stale=is_stale, now=Nanos(START + at)))


def test_first_provider_is_preferred_while_it_is_good() -> None:
    arbiter = paired()
    for n in range(5):
        assert judge(arbiter, n * SECOND, False) == []
        assert sizes(arbiter.take(FIRST, trade(n * SECOND, n))) == [n]
        assert sizes(arbiter.take(OTHER, trade(n * SECOND, n))) == []
    assert arbiter.active(1) is FIRST


def test_second_provider_takes_over_where_the_first_left_off() -> None:
    arbiter = paired()
    arbiter.take(FIRST, trade(0, 1))
    for n in range(1, 5):
        assert sizes(arbiter.take(OTHER, trade((n - 1) * SECOND, n))) == []
    assert judge(arbiter, 9 * SECOND, True) == [2, 3, 4]
    assert sizes(arbiter.take(OTHER, trade(9 * SECOND, 5))) == [5]
    assert sizes(arbiter.take(FIRST, trade(9 * SECOND, 5))) == []
    assert repr(arbiter) == "<Arbiter 1 pairs, 1 by the second, 1 switches>"


def test_second_provider_that_has_nothing_takes_over_with_its_first_tick() -> None:
    arbiter = paired()
    arbiter.take(FIRST, trade(0, 1))
    assert judge(arbiter, SECOND, True) == []
    assert arbiter.active(1) is FIRST
    assert sizes(arbiter.take(OTHER, trade(0, 1))) == []
    assert sizes(arbiter.take(OTHER, trade(2 * SECOND, 2))) == [2]
    assert arbiter.active(1) is OTHER


def test_first_provider_must_be_good_for_a_while_without_a_break() -> None:
    arbiter = paired()
    judge(arbiter, 0, True)
    arbiter.take(OTHER, trade(0, 1))
    size = 2.0
    for second in range(1, 100):
        is_stale = second == 20
        judge(arbiter, second * SECOND, is_stale)
        if not is_stale:
            arbiter.take(FIRST, trade(second * SECOND, size))
        arbiter.take(OTHER, trade(second * SECOND, size))
        size += 1
        assert arbiter.active(1) is (OTHER if second < 20 + 1 + 30 else FIRST)
    assert arbiter.switches == 2


def test_first_provider_need_not_hold_while_the_second_is_silent() -> None:
    arbiter = paired()
    judge(arbiter, 0, True)
    arbiter.take(OTHER, trade(0, 1))
    arbiter.take(FIRST, trade(SECOND, 2))
    assert judge(arbiter, 2 * SECOND, False) == []
    assert judge(arbiter, 6 * SECOND, False) == [2]
    assert arbiter.active(1) is FIRST


def test_the_same_trade_rounded_to_the_millisecond_comes_out_once() -> None:
    arbiter = paired()
    judge(arbiter, 0, True)
    assert sizes(arbiter.take(OTHER, trade(7 * MS, 1))) == [1]
    assert sizes(arbiter.take(FIRST, trade(7 * MS + 400, 1))) == []
    assert sizes(arbiter.take(FIRST, trade(7 * MS + 900, 2))) == []
    assert judge(arbiter, 40 * SECOND, False) == [2]
    assert (arbiter.active(1), arbiter.doubles) == (FIRST, 1)


def test_what_the_first_has_to_catch_up_with_is_not_published_again() -> None:
    arbiter = paired()
    judge(arbiter, 0, True)
    for n in range(40):
        assert sizes(arbiter.take(OTHER, trade(n * SECOND, n))) == [n]
        if n < 10:
            arbiter.take(FIRST, trade(n * SECOND, n))
    judge(arbiter, 9 * SECOND, False)
    assert judge(arbiter, 40 * SECOND, False) == []
    assert arbiter.active(1) is FIRST
    assert sizes(arbiter.take(FIRST, trade(10 * SECOND, 10))) == []
    assert sizes(arbiter.take(FIRST, trade(40 * SECOND, 40))) == [40]
    assert arbiter.late == 1


def test_trade_of_the_same_instant_that_only_the_second_had_is_not_lost() -> None:
    arbiter = paired()
    arbiter.take(FIRST, trade(5 * SECOND, 1))
    for at, size in ((5, 1), (5, 2), (6, 3)):
        arbiter.take(OTHER, trade(at * SECOND, size))
    assert judge(arbiter, 20 * SECOND, True) == [2, 3]


def test_trades_alike_in_one_instant_of_one_provider_are_several() -> None:
    arbiter = paired()
    assert sizes(arbiter.take(FIRST, np.concatenate([trade(5, 1), trade(5, 1)]))) == [1, 1]


def test_instruments_without_a_second_provider_pass_untouched() -> None:
    arbiter = paired()
    mixed = np.concatenate([trade(5, 1, 2), trade(9, 2), trade(1, 3, 2)])
    assert sizes(arbiter.take(FIRST, mixed)) == [1, 2, 3]
    assert sizes(arbiter.take(OTHER, trade(10, 4, 2))) == []
    arbiter.unpair(1)
    assert sizes(arbiter.take(FIRST, trade(1, 5))) == [5]
    assert sizes(arbiter.judge(1, is_stale=True, now=Nanos(START))) == []


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="hold_s"):
        Arbiter(ArbiterSettings(hold_s=0.0))


@settings(deadline=None)
@given(
    gaps=st.lists(st.sampled_from([0, 1, 3, 2000]), min_size=1, max_size=40),
    lost=st.tuples(st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39))),
    turns=st.lists(
        st.one_of(st.tuples(st.sampled_from([FIRST, OTHER]), st.integers(1, 8)), st.booleans()), max_size=60
    ),
    rounded=st.sampled_from([None, FIRST, OTHER]),
)
def test_what_both_sent_comes_out_once_in_order(
    gaps: list[int], lost: tuple[set[int], set[int]], turns: list[tuple[Source, int] | bool], rounded: Source | None
) -> None:
    arbiter = Arbiter(ArbiterSettings(hold_s=3.0, silent_s=2.0))
    arbiter.pair(1)
    at, times = 0, []
    for gap in gaps:
        at += gap * MS
        times.append(at + 500_000)
    queues = {source: [n for n in range(len(times)) if n not in lost[source]] for source in (FIRST, OTHER)}
    out: list[TickArray] = []
    sent: dict[Source, set[int]] = {FIRST: set(), OTHER: set()}
    now = 0

    def deliver(source: Source, count: int) -> None:
        for n in queues[source][:count]:
            own = times[n] // MS * MS if source is rounded else times[n]
            out.append(arbiter.take(source, trade(own, n + 1.0, received=now)))
            sent[source].add(n)
        del queues[source][:count]

    for turn in turns:
        now += SECOND
        if isinstance(turn, bool):
            out.append(arbiter.judge(1, is_stale=turn, now=Nanos(START + now)))
        else:
            deliver(*turn)
    deliver(FIRST, 100)
    deliver(OTHER, 100)
    ticks = np.concatenate(out) if out else trade(0, 0)[:0]
    counts = Counter(int(size) - 1 for size in ticks["size"].tolist())
    assert set(counts.values()) <= {1}
    assert (np.diff(ticks["exchange_at"]) >= 0).all()
    if rounded is None:
        assert sent[FIRST] & sent[OTHER] <= counts.keys()
    assert counts.keys() <= sent[FIRST] | sent[OTHER]


@settings(deadline=None)
@given(
    gaps=st.lists(st.integers(1, 3_000), min_size=2, max_size=30),
    begun=st.integers(0, 29),
    cut=st.integers(0, 30),
    active=st.sampled_from([FIRST, OTHER]),
)
def test_another_goes_on_where_one_was(gaps: list[int], begun: int, cut: int, active: Source) -> None:
    times = np.cumsum(np.array(gaps) * MS).tolist()
    cut, begun = min(cut, len(times)), min(begun, cut, len(times))
    giver, taker = paired(), Arbiter()
    out: list[TickArray] = []
    if active is OTHER:
        giver.take(FIRST, trade(0, 0))
        out.append(giver.judge(1, is_stale=True, now=Nanos(START + 1)))
    for n, at in enumerate(times):
        if n == begun:
            taker.pair(1)
        if n < cut:
            if active is FIRST:
                out.append(giver.take(FIRST, trade(at, n)))
            out.append(giver.take(OTHER, trade(at, n)))
        if n >= begun:
            # Whoever takes over keeps what it hears of the second, and nothing of it comes out.
            assert not len(taker.take(OTHER, trade(at, n)))
    if begun >= len(times):
        taker.pair(1)
    out.append(taker.resume(1, giver.position(1), Nanos(START + SECOND)))
    assert taker.active(1) is giver.active(1)
    if taker.active(1) is FIRST:
        # From here on the first is silent; what the second had of it before is out.
        out.append(taker.judge(1, is_stale=True, now=Nanos(START + SECOND)))
    assert sizes(np.concatenate(out)) == list(range(len(times)))
    late = trade(times[-1] + MS, 99)
    assert sizes(taker.take(OTHER, late)) == [99]


def test_where_the_second_was_in_use_and_nobody_tells_it_goes_on_with_what_comes() -> None:
    arbiter = paired()
    arbiter.take(OTHER, trade(0, 1))
    arbiter.adopt(1, Nanos(START))
    assert (arbiter.by_second(), arbiter.paired(), arbiter.report(1).since) == ([1], [1], START)
    assert sizes(arbiter.take(OTHER, trade(SECOND, 2))) == [2]
    # The first has not come yet: it is not good for that.
    for at in range(2, 50):
        assert judge(arbiter, at * SECOND, True) == []
    arbiter.take(FIRST, trade(60 * SECOND, 3))
    assert judge(arbiter, 60 * SECOND, False) == [3]
    assert arbiter.active(1) is FIRST


def test_how_a_pair_goes_is_told() -> None:
    arbiter = paired()
    arbiter.pair(2)
    arbiter.take(FIRST, trade(0, 1))
    arbiter.take(OTHER, np.concatenate([trade(0, 1), trade(SECOND, 2)]))
    judge(arbiter, 3 * SECOND, True)
    assert sizes(arbiter.take(OTHER, trade(0, 9))) == []
    report = arbiter.report(1)
    assert (report.active, report.since, report.switches) == (OTHER, START + 3 * SECOND, 1)
    assert (report.doubles, report.late, report.heard_at) == (1, 1, START + SECOND)
    assert (arbiter.doubles, arbiter.late, arbiter.report(2).switches) == (1, 1, 0)
    arbiter.tune(ArbiterSettings(hold_s=1.0))
    judge(arbiter, 4 * SECOND, False)
    judge(arbiter, 5 * SECOND, False)
    assert arbiter.active(1) is FIRST
    with pytest.raises(BadInput, match="silent_s"):
        arbiter.tune(ArbiterSettings(silent_s=-1.0))
