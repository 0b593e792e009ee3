from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.calendars import Sessions, day_ended, is_open
from trading.errors import BadInput, NotReady
from trading.ids import Nanos

TABLE = Sessions("T", [100, 200, 260], [150, 250, 300])


@given(st.integers(100, 299))
def test_answers_agree_with_a_search_by_hand(at: int) -> None:
    spans = [(100, 150), (200, 250), (260, 300)]
    inside = [s for s in spans if s[0] <= at < s[1]]
    assert TABLE.is_open(Nanos(at)) is bool(inside)
    assert TABLE.session_start(Nanos(at)) == (inside[0][0] if inside else None)
    assert TABLE.next_close(Nanos(at)) == min(c for _, c in spans if c > at)
    later = [o for o, _ in spans if o >= at]
    if later:
        assert TABLE.next_open(Nanos(at)) == later[0]
    else:
        with pytest.raises(NotReady):
            TABLE.next_open(Nanos(at))


@pytest.mark.parametrize("at", [0, 99, 300, 10**12])
def test_beyond_the_table_nothing_is_guessed(at: int) -> None:
    with pytest.raises(NotReady, match="load a longer span"):
        TABLE.is_open(Nanos(at))


@pytest.mark.parametrize(
    ("opens", "closes"), [([], []), ([1, 2], [3]), ([5], [5]), ([1, 4], [6, 8]), ([10, 1], [12, 3])]
)
def test_bad_table_is_refused(opens: list[int], closes: list[int]) -> None:
    with pytest.raises(BadInput):
        Sessions("T", opens, closes)


def test_day_order_outlives_its_session_at_the_close() -> None:
    assert not day_ended(TABLE, Nanos(120), Nanos(149))
    assert day_ended(TABLE, Nanos(120), Nanos(150))
    assert not day_ended(TABLE, Nanos(160), Nanos(249)), "placed while closed, it is for the next session"


def test_around_the_clock_is_always_open_and_its_day_ends_at_midnight() -> None:
    day = 86_400_000_000_000
    assert is_open(None, Nanos(5))
    assert not day_ended(None, Nanos(5), Nanos(day - 1))
    assert day_ended(None, Nanos(5), Nanos(day))
