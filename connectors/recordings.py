"""Raw recordings: what a feed sent, byte for byte, with the time it arrived.

One message per line, ``<receive time, UTC ns> <combined stream JSON>``, plain or gzip (also several gzip
members one after another, which is what appending makes).  Reading is tolerant: what is damaged is reported
by line, and everything before and between is used.
"""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from connectors.base import BookDelta, FeedConnection, FeedSink
from trading.bars import Bar
from trading.depth import DepthArray
from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import TickBuffer

_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 64 * 1024
_LONGEST_LINE: Final = 16 * 1024 * 1024
_MOST_PROBLEMS: Final = 1000


class Line(NamedTuple):
    """One good line: its number from 1, when it arrived (UTC ns), its stream, the JSON as it came."""

    number: int
    received_at: Nanos
    stream: str
    payload: bytes


class Problem(NamedTuple):
    """Something wrong with a file.

    ``line`` is the line it is in, or after which nothing more was readable.
    """

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class Problems:
    """The problems of one file: the first thousand in words, all of them counted."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, line: int, reason: str) -> None:
        """Take note of a problem."""
        self.count += 1
        if self.count <= _MOST_PROBLEMS:
            self.found.append(Problem(line, reason))


class _Envelope(msgspec.Struct):
    stream: str
    data: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope).decode


def open_binary(path: Path, field: str = "recording") -> IO[bytes]:
    """The file, open for reading; `BadInput` naming ``field`` where that cannot be."""
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(field, f"cannot read {path}: {error.strerror or error}") from error


def read(path: str | Path, problems: Problems) -> Iterator[Line]:
    """The good lines of a recording in order; what is not good goes to ``problems``.

    Raises `BadInput` where the file cannot be opened.
    """
    number = 0
    last = 0
    for number, line in numbered_lines(Path(path), problems):
        if not line:
            continue
        stamp, _, payload = line.partition(b" ")
        if not stamp.isdigit() or not 1 <= len(stamp) <= 19:
            problems.add(number, f"it starts with {stamp[:30]!r}, not with a receive time in nanoseconds")
            continue
        try:
            stream = _envelope(payload).stream
        except ValueError as error:
            problems.add(number, f"its message is not combined stream JSON: {error}")
            continue
        received_at = int(stamp)
        if received_at < last:
            problems.add(number, f"its time is {last - received_at} ns before the line above; order kept")
            received_at = last
        last = received_at
        yield Line(number, Nanos(received_at), stream, payload)
    if number == 0:
        problems.add(0, "the file is empty")


def numbered_lines(path: Path, problems: Problems, field: str = "recording") -> Iterator[tuple[int, bytes]]:
    """``(number, line)`` of a plain or gzip text file without line ends; a torn last line is reported."""
    number = 0
    #: The same number, where `_plain` sees it.
    so_far = [0]
    rest = b""
    with open_binary(path, field) as file:
        for chunk in _plain(file, problems, so_far):
            rest += chunk
            if len(rest) > _LONGEST_LINE and b"\n" not in rest:
                problems.add(number + 1, f"longer than {_LONGEST_LINE} bytes, so no such file; stopped here")
                return
            *lines, rest = rest.split(b"\n")
            for line in lines:
                number += 1
                so_far[0] = number
                yield number, line.rstrip(b"\r")
    if rest:
        # Without its line end a line may be torn; whoever parses it will see.
        yield number + 1, rest.rstrip(b"\r")


def _plain(file: IO[bytes], problems: Problems, so_far: list[int]) -> Iterator[bytes]:
    """The file's bytes, unpacked if they are gzip, up to where they can be."""
    data = file.read(_CHUNK)
    if not data.startswith(_GZIP):
        while data:
            yield data
            data = file.read(_CHUNK)
        return
    unpack = zlib.decompressobj(wbits=31)
    while data:
        before = unpack.copy()
        try:
            out = unpack.decompress(data)
        except zlib.error as error:
            # Once more byte by byte, to get everything before the damage.
            yield _until_damage(before, data)
            problems.add(so_far[0] + 1, f"the gzip data is damaged ({error}); nothing after it can be read")
            return
        if out:
            yield out
        if unpack.eof and unpack.unused_data:
            data = unpack.unused_data
            if not data.startswith(_GZIP[: len(data)]):
                problems.add(so_far[0] + 1, f"{len(data)} bytes after the end of the gzip data are no gzip")
                return
            unpack = zlib.decompressobj(wbits=31)
            continue
        if unpack.eof:
            data = file.read(_CHUNK)
            if data:
                unpack = zlib.decompressobj(wbits=31)
            continue
        data = file.read(_CHUNK)
    if not unpack.eof:
        out = unpack.flush()
        if out:
            yield out
        problems.add(so_far[0] + 1, "the gzip data ends too early: the file is truncated")


def _until_damage(unpack: Any, data: bytes) -> bytes:
    good = []
    for i in range(len(data)):
        try:
            good.append(unpack.decompress(data[i : i + 1]))
        except zlib.error:
            break
    return b"".join(good)


def _check_whole(path: Path) -> None:
    """Raise `BadInput` for a packed file whose end is missing: what is appended to it could not be read."""
    if path.suffix != ".gz" or not path.is_file() or not path.stat().st_size:
        return
    try:
        with gzip.open(path, "rb") as packed:
            while packed.read(1 << 20):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise BadInput(
            "path", f"{path} ends in the middle (its writer was killed?): {error}; record to another file"
        ) from error


class RecordingWriter:
    """Appends messages to a recording; ``.gz`` paths are packed.  Close it, or use it as a context."""

    def __init__(self, path: str | Path, flush_after_s: float = 2.0) -> None:
        self._path = Path(path)
        _check_whole(self._path)
        try:
            plain = self._path.open("ab")
        except OSError as error:
            raise BadInput("path", f"cannot write {self._path}: {error.strerror or error}") from error
        self._plain = plain
        self._packed = gzip.GzipFile(fileobj=plain, mode="ab", compresslevel=5) if self._path.suffix == ".gz" else None
        self._file: gzip.GzipFile | IO[bytes] = self._packed or plain
        self._flush_after = flush_after_s
        self._flushed_at = time.monotonic()
        self.lines = 0
        self.bytes = 0

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, received_at: Nanos, payload: bytes) -> None:
        """Append one message.  A line break inside it (legal JSON white space) becomes a space."""
        if b"\n" in payload or b"\r" in payload:
            payload = payload.replace(b"\r", b" ").replace(b"\n", b" ")
        self._file.write(b"%d %b\n" % (received_at, payload))
        self.lines += 1
        self.bytes += len(payload)

    def flush_if_due(self) -> None:
        """Bring what was written to the disk when it is time, so that a crash costs seconds at most."""
        now = time.monotonic()
        if now - self._flushed_at >= self._flush_after:
            self._flushed_at = now
            if self._packed is not None:
                self._packed.flush()
            self._plain.flush()

    def close(self) -> None:
        """Write everything out."""
        if self._packed is not None:
            self._packed.close()
        self._plain.close()


# Recording a live feed

Tap = Callable[[Nanos, bytes], None]


@runtime_checkable
@runtime_checkable
class RecordableMarket(Protocol):
    """A provider whose feeds can show their raw messages."""

    name: str

    async def instruments(self) -> Sequence[Instrument]:
        """Everything the provider lists."""

    def tapped_feed(self, sink: FeedSink, tap: Tap) -> FeedConnection:
        """A feed that also gives every stream message to ``tap``, as it came."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a recording is."""

    lines: int
    bytes: int
    seconds: float
    connected: bool
    note: str


class _RecordingSink:
    """Counts what goes wrong; the ticks themselves are in the file."""

    def __init__(self) -> None:
        self.ticks = TickBuffer()
        self.connected = False
        self.note = "connecting"
        self.refusals: dict[InstrumentId, str] = {}

    def wake(self) -> None:
        self.ticks.take()

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        pass

    def book(self, delta: BookDelta) -> None:
        pass

    def depth(self, books: DepthArray) -> None:
        pass

    def opened(self) -> None:
        self.connected, self.note = True, ""

    def closed(self, reason: str) -> None:
        self.connected, self.note = False, reason

    def garbage(self, raw: bytes, reason: str) -> None:
        self.note = f"not decoded: {reason}"

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        self.refusals[instrument] = reason
        self.note = f"{instrument} refused: {reason}"


async def record(
    market: RecordableMarket,
    instruments: Sequence[InstrumentId],
    channels: Sequence[str],
    path: str | Path,
    seconds: float | None,
    on_progress: Callable[[Progress], None],
) -> Mapping[str, int]:
    """Write the raw messages of ``instruments`` to ``path`` for ``seconds`` (None: until cancelled).

    Returns ``{"lines", "bytes"}``.  Raises `BadInput` for an unknown instrument or an unwritable path, before
    anything is recorded, and when all instruments are refused.
    """
    listed = {instrument.id: instrument for instrument in await market.instruments()}
    for one in instruments:
        if one not in listed:
            raise BadInput("instruments", f"{one} is not listed by {market.name}")
    if not instruments:
        raise BadInput("instruments", "name at least one")
    # Numbers only tell the instruments apart here; nothing of them is written.
    chosen = [msgspec.structs.replace(listed[one], number=i) for i, one in enumerate(dict.fromkeys(instruments), 1)]
    sink = _RecordingSink()
    started = time.monotonic()
    with RecordingWriter(path) as writer:
        feed = market.tapped_feed(sink, writer.write)
        await feed.subscribe(chosen, channels)
        running = asyncio.create_task(feed.run())
        try:
            while seconds is None or time.monotonic() - started < seconds:
                left = 1.0 if seconds is None else min(1.0, seconds - (time.monotonic() - started))
                done, _ = await asyncio.wait({running}, timeout=max(0.0, left))
                if done:
                    running.result()
                writer.flush_if_due()
                if len(sink.refusals) == len(chosen):
                    raise BadInput("instruments", "; ".join(sink.refusals.values()))
                on_progress(
                    Progress(
                        lines=writer.lines,
                        bytes=writer.bytes,
                        seconds=time.monotonic() - started,
                        connected=sink.connected,
                        note=sink.note,
                    )
                )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return {"lines": writer.lines, "bytes": writer.bytes}
