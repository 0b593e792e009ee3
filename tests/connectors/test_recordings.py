from __future__ import annotations

import asyncio
import gzip
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.binance.codec import Codec
from connectors.binance.market import BinanceMarket
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.source import RecordingSource
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from connectors.recordings import Problems, Progress, RecordingWriter, read, record
from tests.connectors.support import Sink, data_file
from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos

GOOD = [b'{"stream":"x@trade","data":{"t":%d}}' % number for number in range(2000)]


def write(path: Path, count: int = 2000) -> None:
    with RecordingWriter(path) as writer:
        for number in range(count):
            writer.write(Nanos(1_000_000_000 + number), GOOD[number])


@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
def test_what_was_written_is_read_and_appending_goes_on(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, 10)
    with RecordingWriter(path) as writer:
        writer.write(Nanos(2_000_000_000), b'{"stream":"y@trade",\n"data":{}}')
    problems = Problems()
    lines = list(read(path, problems))
    assert [line.payload for line in lines[:10]] == GOOD[:10]
    assert lines[10] == (11, 2_000_000_000, "y@trade", b'{"stream":"y@trade", "data":{}}')
    assert not problems.found


def test_bad_lines_are_reported_by_number_and_the_others_used(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(
        b"1000 " + GOOD[0] + b"\nrubbish\n\n2000 {broken\n1500 " + GOOD[1] + b"\n3000 " + GOOD[2] + b'\n4000 {"str'
    )
    problems = Problems()
    lines = list(read(path, problems))
    assert [(line.number, line.payload) for line in lines] == [(1, GOOD[0]), (5, GOOD[1]), (6, GOOD[2])]
    assert [problem.line for problem in problems.found] == [2, 4, 7]
    path.write_bytes(b"2000 " + GOOD[0] + b"\n1000 " + GOOD[1] + b"\n")
    problems = Problems()
    assert [line.received_at for line in read(path, problems)] == [2000, 2000]
    assert "before the line above" in problems.found[0].reason


@given(st.integers(1, 400))
def test_a_truncated_gzip_yields_its_good_part(cut: int) -> None:
    whole = b"".join(b"%d %b\n" % (1000 + i, payload) for i, payload in enumerate(GOOD))
    packed = gzip.compress(whole)
    problems = Problems()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truncated.gz"
        path.write_bytes(packed[: len(packed) - cut * len(packed) // 401])
        lines = list(read(path, problems))
    assert [line.payload for line in lines] == GOOD[: len(lines)]
    assert problems.found
    assert problems.found[0].line >= len(lines)
    assert cut > 380 or lines


def test_damage_inside_a_gzip_keeps_everything_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    packed = bytearray(gzip.compress(b"".join(b"%d %b\n" % (1000 + i, p) for i, p in enumerate(GOOD))))
    middle = len(packed) // 2
    packed[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(packed)
    problems = Problems()
    lines = list(read(path, problems))
    assert 200 < len(lines) < 2000
    right = [line for line in lines if line.payload == GOOD[line.number - 1]]
    assert len(right) > 200
    assert any("damaged" in problem.reason for problem in problems.found)


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"\x00\x01\x02 not text", "starts with")])
def test_files_that_are_no_recordings_are_refused_for_replay(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        RecordingSource(path).prepare(0)


def test_a_missing_file_and_an_unwritable_path_name_themselves(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.gz"):
        list(read(tmp_path / "nothing.gz", Problems()))
    with pytest.raises(BadInput, match="cannot write"):
        RecordingWriter(tmp_path / "no" / "such" / "folder.gz")


def test_the_real_recordings_are_read_whole_and_fast() -> None:
    for name, count in (("usdm", 93953), ("spot", 41248)):
        problems = Problems()
        path = data_file(f"market/crypto_binance_raw_ws/examples_{name}_btcusdt_20240808.gz")
        assert sum(1 for _ in read(path, problems)) == count
        # One line of each is the REST snapshot its recorder took at the start.
        assert problems.count == 1


async def test_a_live_feed_is_recorded_byte_for_byte(tmp_path: Path) -> None:
    settings = SyntheticSettings(symbols=2, ticks_per_s=1000.0, futures=True, history_minutes=0, duration_s=0.8)
    simulator = BinanceSimulator(SyntheticSource(settings))
    await simulator.start()
    market = BinanceMarket(simulator.product, {"base_url": simulator.url})
    path = tmp_path / "live.gz"
    progress: list[Progress] = []
    try:
        ids = [one.id for one in await market.instruments()]
        with pytest.raises(BadInput, match="not listed"):
            await record(market, [InstrumentId("BINANCE-USDM:NOPE")], ["trade"], path, 1.0, progress.append)
        assert not path.exists()
        began = time.time_ns()
        result = await record(market, ids, ["trade", "quote"], path, 1.6, progress.append)
        stats = simulator.stats()
    finally:
        await market.close()
        await simulator.stop()
    assert result["lines"] == stats["sent"] > 300
    assert progress[-1].lines == result["lines"]
    assert progress[-1].connected
    problems = Problems()
    lines = list(read(path, problems))
    assert len(lines) == result["lines"]
    assert not problems.found
    assert began < lines[0].received_at < time.time_ns()
    # The recording is a market again.
    specs = RecordingSource(path).prepare(0)
    assert [spec.symbol for spec in specs] == ["BTCUSDT", "ETHUSDT"]
    again = Codec()
    for stream in {line.stream for line in lines}:
        again.add(stream, 1)
    sink = Sink()
    for line in lines:
        again.decode(line.payload, line.received_at, sink)
    assert len(sink.all()) == len(lines)


async def test_recording_ends_when_everything_is_refused(tmp_path: Path) -> None:
    simulator = BinanceSimulator(SyntheticSource(SyntheticSettings(symbols=1)), streams_per_connection=1)
    await simulator.start()
    market = BinanceMarket(simulator.product, {"base_url": simulator.url})
    try:
        ids = [one.id for one in await market.instruments()]
        with pytest.raises(BadInput, match="too many streams"):
            await asyncio.wait_for(record(market, ids, ["trade", "quote"], tmp_path / "a.gz", 5.0, lambda _: None), 10)
    finally:
        await market.close()
        await simulator.stop()


def test_progress_is_a_plain_value() -> None:
    one = Progress(lines=1, bytes=2, seconds=3.0, connected=True, note="")
    assert msgspec.json.decode(msgspec.json.encode(one), type=Progress) == one


def test_nothing_is_appended_to_a_packed_file_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "torn.gz"
    with RecordingWriter(path) as writer:
        for n in range(1000):
            writer.write(Nanos(n), b'{"stream":"btcusdt@trade","data":{}}')
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="another file"):
        RecordingWriter(path)
    path.write_bytes(whole)
    RecordingWriter(path).close()
