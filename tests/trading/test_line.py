from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trading.line import Line


@given(
    keep=st.integers(1, 4),
    first=st.integers(0, 100),
    steps=st.lists(st.one_of(st.tuples(st.integers(0, 5), st.integers(1, 3)), st.sampled_from(["quick", "slow"]))),
)
def test_every_update_is_read_or_counted_as_skipped_and_the_newest_is_read(
    keep: int, first: int, steps: list[tuple[int, int] | str]
) -> None:
    line: Line[int, int] = Line(keep, first)
    places = {"quick": first, "slow": first}
    seen, skipped = {"quick": 0, "slow": 0}, {"quick": 0, "slow": 0}
    last: dict[str, dict[int, int]] = {"quick": {}, "slow": {}}
    newest: dict[int, int] = {}
    sent = 0
    for step in [*steps, "quick", "slow"]:
        if isinstance(step, tuple):
            key, count = step
            sent += count
            newest.pop(key, None)
            newest[key] = sent
            line.put(key, sent, count)
            continue
        news = line.after(places[step])
        assert [n for n, _ in news.updates] == sorted(n for n, _ in news.updates)
        assert news.skipped >= 0
        seen[step] += len(news.updates)
        skipped[step] += news.skipped
        for n, value in news.updates:
            assert n - first == value
            last[step].update({key: value for key, at in newest.items() if at == value})
        places[step] = line.newest
        assert seen[step] + skipped[step] == sent
        for key in list(newest)[-keep:]:
            assert last[step][key] == newest[key]
    assert len(line.after(None).updates) <= keep


def test_who_joins_late_gets_what_is_kept_and_who_comes_from_elsewhere_too() -> None:
    line: Line[str, str] = Line(2, first=1_000)
    for key in "abc":
        line.put(key, key.upper())
    assert line.after(None) == ([(1_002, "B"), (1_003, "C")], 0)
    assert line.after(9_999) == line.after(None)
    assert line.after(999) == line.after(None)
    assert line.after(-1) == line.after(None)
    assert line.after(1_003) == ([], 0)
    assert line.after(1_000) == ([(1_002, "B"), (1_003, "C")], 1)
    assert line.get("a") is None
    assert line.get("c") == "C"
