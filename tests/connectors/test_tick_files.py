from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.recordings import Problems
from connectors.tick_files import COLUMNS, read_ticks, write_ticks
from trading.errors import BadInput
from trading.ids import InstrumentId
from trading.ticks import TickArray, TickBuffer, decode

NAMES = {1: InstrumentId("BINANCE:BTCUSDT"), 7: InstrumentId("NSE:M&M")}
NUMBERS = {name: number for number, name in NAMES.items()}
ENDINGS = ["a.csv", "a.csv.gz", "a.parquet"]


def some(count: int = 50) -> TickArray:
    buffer = TickBuffer()
    for i in range(count):
        if i % 3:
            buffer.quote(7, 1.5 + i, 0.1, 2.5 + i, 3.0, 0, 0, 10**18 + i, i)
        else:
            buffer.trade(1, 61800.2 + i, 0.001, 4, 10**18 + i, 10**18 + i, 2**62 + i)
    return decode(buffer.take())


@pytest.mark.parametrize("name", ENDINGS)
def test_what_was_written_is_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    ticks, problems = some(), Problems()
    write_ticks(tmp_path / name, ticks, NAMES)
    assert read_ticks(tmp_path / name, NUMBERS, problems).tobytes() == ticks.tobytes()
    assert not problems.found


@given(st.lists(st.floats(0, 1e300, allow_subnormal=False), min_size=6, max_size=6))
def test_every_float_survives_the_text(values: list[float]) -> None:
    buffer = TickBuffer()
    buffer.trade(1, values[0], values[1], 0, 1, 2, 3)
    buffer.quote(1, *values[2:], 0, 1, 2, 3)
    ticks = decode(buffer.take())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "floats.csv"
        write_ticks(path, ticks, NAMES)
        assert read_ticks(path, NUMBERS, Problems()).tobytes() == ticks.tobytes()


def test_bad_rows_are_reported_by_line_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_ticks(path, some(4), NAMES)
    lines = path.read_text().splitlines()
    good = lines[1]
    bad = [
        good.replace("BINANCE:BTCUSDT", "NYSE:X"),
        good.replace("61800.2", "abc"),
        good.replace("61800.2", "-1"),
        good.replace("61800.2", ""),
        good + ",more",
        good.replace(",5,", ",0,", 1),
        good.replace(str(10**18), "1.5", 1),
    ]
    path.write_text("\n".join([lines[0], good, *bad, lines[2]]) + "\n")
    problems = Problems()
    ticks = read_ticks(path, NUMBERS, problems)
    assert len(ticks) == 2
    assert [problem.line for problem in problems.found] == [3, 4, 5, 6, 7, 8, 9]
    assert "NYSE:X" in problems.found[0].reason
    assert "price" in problems.found[1].reason


def test_a_truncated_csv_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    write_ticks(path, some(5000), NAMES)
    path.write_bytes(path.read_bytes()[:-300])
    problems = Problems()
    ticks = read_ticks(path, NUMBERS, problems)
    assert 1000 < len(ticks) < 5000
    assert ticks.tobytes() == some(5000)[: len(ticks)].tobytes()
    assert any("truncated" in problem.reason for problem in problems.found)


def test_a_truncated_parquet_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_ticks(path, some(500), NAMES)
    path.write_bytes(path.read_bytes()[:-100])
    problems = Problems()
    assert len(read_ticks(path, NUMBERS, problems)) == 0
    assert "truncated" in problems.found[0].reason


def test_wrong_endings_columns_and_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither in"):
        write_ticks(tmp_path / "a.txt", some(), NAMES)
    with pytest.raises(BadInput, match="number 7"):
        write_ticks(tmp_path / "a.csv", some(), {1: NAMES[1]})
    (tmp_path / "b.csv").write_text("time,price\n1,2\n")
    with pytest.raises(BadInput, match="its columns must be"):
        read_ticks(tmp_path / "b.csv", NUMBERS, Problems())
    with pytest.raises(BadInput, match="cannot read"):
        read_ticks(tmp_path / "none.csv", NUMBERS, Problems())
    assert np.dtype([(name, "f8") for name in COLUMNS]).names == COLUMNS
