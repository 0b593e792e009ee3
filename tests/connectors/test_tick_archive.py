from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import tick_archive
from connectors.recordings import Problems
from connectors.tick_archive import DAY, GROUP_AGE, TickArchive
from connectors.tick_files import read_ticks
from trading.errors import NotReady
from trading.ids import InstrumentId, Nanos
from trading.ticks import TickArray, TickBuffer, decode

NAMES = {1: InstrumentId("X:A"), 2: InstrumentId("X:B")}
NUMBERS = {id: number for number, id in NAMES.items()}
TODAY = 20_000 * DAY


def ticks(*times: int) -> TickArray:
    """A trade and a quote at each of these receive times."""
    buffer = TickBuffer()
    for at in times:
        buffer.trade(1, 10.5, 2.0, 0, at - 3, at, at % 1000)
        buffer.quote(2, 9.0, 1.0, 10.0, 1.0, 0, at - 2, at, 0)
    return decode(buffer.take())


def opened(folder: Path) -> TickArchive:
    archive = TickArchive(folder)
    archive.open()
    return archive


def in_file(path: Path) -> TickArray:
    problems = Problems()
    found = read_ticks(path, NUMBERS, problems)
    assert problems.found == []
    return found


def same(one: TickArray, other: TickArray) -> bool:
    return one.tobytes() == other.tobytes()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_day_becomes_one_file_with_every_tick_as_it_came(tmp_path: Path) -> None:
    archive = opened(tmp_path)
    before, after = ticks(TODAY - 20, TODAY - 10), ticks(TODAY, TODAY + 5)
    archive.add(np.concatenate([before, after]))
    assert archive.close_groups(NAMES) == 8
    more = ticks(TODAY + 6)
    archive.add(more)
    archive.close_groups(NAMES)
    assert files(tmp_path) == [".lock", "2024-10-03/000001.parquet", "2024-10-04/000001.parquet",
                               "2024-10-04/000002.parquet"]  # fmt: skip
    assert archive.finish_days(Nanos(TODAY + 100)) == [tmp_path / "2024-10-03.parquet"]
    assert same(in_file(tmp_path / "2024-10-03.parquet"), before)
    assert archive.finish_days(Nanos(TODAY + DAY)) == [tmp_path / "2024-10-04.parquet"]
    assert same(in_file(tmp_path / "2024-10-04.parquet"), np.concatenate([after, more]))
    assert files(tmp_path) == [".lock", "2024-10-03.parquet", "2024-10-04.parquet"]
    assert archive.finish_days(Nanos(TODAY + 2 * DAY)) == []
    assert archive.drop_before(Nanos(TODAY + 5)) == 1
    assert files(tmp_path) == [".lock", "2024-10-04.parquet"]


def test_ticks_of_a_day_that_has_its_file_already_are_added_to_it(tmp_path: Path) -> None:
    archive = opened(tmp_path)
    archive.add(ticks(TODAY + 1))
    archive.close_groups(NAMES)
    archive.finish_days(Nanos(TODAY + DAY))
    archive.add(ticks(TODAY + 2))
    archive.close_groups(NAMES)
    archive.finish_days(Nanos(TODAY + DAY))
    assert same(in_file(tmp_path / "2024-10-04.parquet"), ticks(TODAY + 1, TODAY + 2))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.integers(0, 12),
    st.sampled_from(["replace", "unlink", "rmdir"]),
)
def test_a_kill_at_any_step_of_finishing_a_day_loses_and_doubles_nothing(
    sizes: list[int], survives: int, step: str
) -> None:
    class Killed(BaseException):
        pass

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = opened(folder)
        at = TODAY
        every = []
        for size in sizes:
            some = ticks(*range(at, at + size))
            at += size
            every.append(some)
            archive.add(some)
            archive.close_groups(NAMES)
        real = getattr(Path, step)
        calls = 0

        def dying(self: Path, *arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls > survives:
                raise Killed
            return real(self, *arguments)

        patch = pytest.MonkeyPatch()
        patch.setattr(Path, step, dying)
        try:
            archive.finish_days(Nanos(TODAY + DAY))
        except Killed:
            pass
        finally:
            patch.undo()
        archive.close()
        again = opened(folder)
        again.finish_days(Nanos(TODAY + DAY))
        assert same(in_file(folder / "2024-10-04.parquet"), np.concatenate(every))
        assert files(folder) == [".lock", "2024-10-04.parquet"]
        again.close()


WRITER = """
import sys
from pathlib import Path
from connectors.tick_archive import TickArchive
from tests.connectors.test_tick_archive import NAMES, TODAY, ticks
archive = TickArchive(Path(sys.argv[1]))
archive.open()
at = TODAY
while True:
    archive.add(ticks(*range(at, at + 50)))
    archive.close_groups(NAMES)
    at += 50
    print(at, flush=True)
"""


def test_what_was_closed_before_a_kill_9_is_there_and_recording_goes_on(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert writer.stdout is not None
    told = 0
    for _ in range(20):
        told = int(writer.stdout.readline())
    with pytest.raises(NotReady, match="another process"):
        opened(tmp_path)
    os.kill(writer.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in writer.stdout.read().split())])
    writer.wait()
    (tmp_path / "2024-10-04" / "000999.part").write_bytes(b"PAR1 half a gro")
    archive = opened(tmp_path)
    archive.add(ticks(TODAY + 10**9))
    archive.close_groups(NAMES)
    archive.finish_days(Nanos(TODAY + DAY))
    found = in_file(tmp_path / "2024-10-04.parquet")
    times = found["received_at"][found["instrument"] == 1].tolist()
    # One group more may have been closed than it had time to tell.
    assert times[-1] == TODAY + 10**9
    assert times[:-1] == list(range(TODAY, TODAY + len(times) - 1))
    assert TODAY + len(times) - 1 in (told, told + 50)
    assert files(tmp_path) == [".lock", "2024-10-04.parquet"]


def test_a_group_is_due_by_age_or_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = TickArchive(tmp_path)
    assert not archive.is_due(Nanos(TODAY * 2))
    archive.add(ticks(TODAY))
    assert not archive.is_due(Nanos(TODAY + GROUP_AGE - 1))
    assert archive.is_due(Nanos(TODAY + GROUP_AGE))
    monkeypatch.setattr(tick_archive, "ROWS_PER_GROUP", 4)
    archive.add(ticks(TODAY + 1))
    assert archive.is_due(Nanos(TODAY + 2))
    assert archive.numbers() == {1, 2}


def test_ticks_wait_for_a_disk_that_takes_none_and_the_oldest_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = opened(tmp_path)
    archive.add(ticks(TODAY))
    (tmp_path / "2024-10-04").write_text("a file where the folder should be")
    for _ in range(2):
        with pytest.raises(NotReady, match="cannot be written"):
            archive.close_groups(NAMES)
    archive.add(ticks(TODAY + 1))
    (tmp_path / "2024-10-04").unlink()
    assert archive.close_groups(NAMES) == 4
    assert (archive.written, archive.given_up) == (4, 0)
    archive.finish_days(Nanos(TODAY + DAY))
    assert same(in_file(tmp_path / "2024-10-04.parquet"), ticks(TODAY, TODAY + 1))
    monkeypatch.setattr(tick_archive, "MOST_WAITING", 4)
    for at in range(3):
        archive.add(ticks(TODAY + at))
    assert archive.given_up == 2


def test_a_group_that_the_disk_has_spoilt_is_set_aside_and_the_others_are_kept(tmp_path: Path) -> None:
    archive = opened(tmp_path)
    for at in range(3):
        archive.add(ticks(TODAY + at))
        archive.close_groups(NAMES)
    (tmp_path / "2024-10-04" / "000002.parquet").write_bytes(b"PAR1 nothing more of it PAR1")
    archive.finish_days(Nanos(TODAY + DAY))
    assert same(in_file(tmp_path / "2024-10-04.parquet"), ticks(TODAY, TODAY + 2))
    assert files(tmp_path) == [".lock", "2024-10-04.parquet", "2024-10-04/000002.damaged"]


def test_a_day_of_which_nothing_can_be_read_stops_nothing(tmp_path: Path) -> None:
    archive = opened(tmp_path)
    archive.add(ticks(TODAY))
    archive.close_groups(NAMES)
    (tmp_path / "2024-10-04" / "000001.parquet").write_bytes(b"nothing")
    (tmp_path / "2024-10-04.parquet").write_bytes(b"nothing either")
    assert archive.finish_days(Nanos(TODAY + DAY)) == []
    assert files(tmp_path) == [".lock", "2024-10-04.damaged", "2024-10-04/000001.damaged"]
    archive.add(ticks(TODAY + 1))
    archive.close_groups(NAMES)
    archive.finish_days(Nanos(TODAY + DAY))
    assert same(in_file(tmp_path / "2024-10-04.parquet"), ticks(TODAY + 1))
