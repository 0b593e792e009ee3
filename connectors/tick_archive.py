"""Raw ticks of a feed on disk, a Parquet file for each day (UTC, by receive time), with `trading.ticks.TICK`'s columns.

``2026-01-31/000001.parquet``, ``000002`` … are the row groups of a day under way: each a whole file that appears under
its name once all of it is on the disk.  A process that is killed loses what it had not closed yet, and nothing else.
When the day is over they become ``2026-01-31.parquet``, which likewise appears whole; only then do they go.  At every
point in between a second start carries on: the day's file says up to which group it has taken them in.

All calls block, so make them from a thread; one at a time, `add` excepted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from connectors.tick_files import ROWS_PER_GROUP, tick_table
from trading.errors import NotReady
from trading.ids import InstrumentId, Nanos
from trading.ticks import TickArray, empty

log = logging.getLogger("quarterdeck")

DAY: Final = 86_400_000_000_000
#: A group is closed when it has so many rows or its oldest tick is so old: what a kill can cost.
GROUP_AGE: Final = 30_000_000_000
#: Ticks that wait while the disk takes none; beyond, the oldest are given up and counted.
MOST_WAITING: Final = 1_000_000
_TAKEN: Final = b"quarterdeck.last_group"


class TickArchive:
    """The one writer of a folder.  The constructor does no IO; `open` first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Ticks given up because the disk took none for too long.
        self.given_up = 0
        #: Ticks in closed groups, since `open`.
        self.written = 0
        self._lock = threading.Lock()
        self._waiting: list[TickArray] = []
        self._rows = 0
        self._oldest_at = 0
        self._held: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<TickArchive {self.folder.name} waiting={self._rows} written={self.written} given_up={self.given_up}>"

    def open(self) -> None:
        """Take the folder and clear away what a killed writer left half done.

        Raises `NotReady` while another process writes there, or where the disk cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = (self.folder / ".lock").open("ab")
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.close()
                raise NotReady(f"another process records ticks into {self.folder}", 2.0) from None
            self._held = held
            for left in self.folder.rglob("*.part"):
                left.unlink()
        except OSError as error:
            raise self._trouble(error) from error

    def close(self) -> None:
        """Let others write there; close groups before."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def add(self, ticks: TickArray) -> None:
        """Take ticks in, in order of arrival."""
        if not len(ticks):
            return
        with self._lock:
            if not self._rows:
                self._oldest_at = int(ticks["received_at"][0])
            self._waiting.append(ticks)
            self._rows += len(ticks)
            while self._rows > MOST_WAITING:
                gone = len(self._waiting.pop(0))
                self._rows -= gone
                self.given_up += gone

    def is_due(self, now: Nanos) -> bool:
        """Whether there is a group to close."""
        return self._rows >= ROWS_PER_GROUP or (self._rows > 0 and now - self._oldest_at >= GROUP_AGE)

    def numbers(self) -> set[int]:
        """The instruments among the ticks that wait."""
        with self._lock:
            return {number for ticks in self._waiting for number in np.unique(ticks["instrument"]).tolist()}

    def close_groups(self, names: Mapping[int, InstrumentId]) -> int:
        """Put on the disk all that waits; returns how many ticks.  ``names`` gives the id of each number.

        Raises `NotReady` where the disk does not take it: it waits on.
        """
        with self._lock:
            waiting, self._waiting, self._rows = self._waiting, [], 0
        ticks = np.concatenate(waiting) if waiting else empty()
        done = 0
        try:
            days = ticks["received_at"] // DAY
            for day in np.unique(days).tolist():
                own = ticks[days == day]
                self._write_group(int(day), own, names)
                done += len(own)
                ticks = ticks[days != day]
                days = days[days != day]
        except OSError as error:
            raise self._trouble(error) from error
        finally:
            self.written += done
            if len(ticks):
                with self._lock:
                    self._waiting.insert(0, ticks)
                    self._rows += len(ticks)
        return done

    def _write_group(self, day: int, ticks: TickArray, names: Mapping[int, InstrumentId]) -> None:
        import pyarrow.parquet as pq

        folder = self.folder / _name(day)
        folder.mkdir(exist_ok=True)
        groups = _groups(folder)
        number = 1 + max([_taken(self._whole(day)), *groups])
        partial = folder / f"{number:06}.part"
        with partial.open("wb") as file:
            pq.write_table(tick_table(ticks, names), file, row_group_size=ROWS_PER_GROUP, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / f"{number:06}.parquet")
        _sync(folder)

    def finish_days(self, now: Nanos) -> list[Path]:
        """Make one file of each day that is over; returns those that are new or have grown.

        Call it some minutes after midnight.  Raises `NotReady` where the disk does not take it; nothing is lost.
        """
        made = []
        try:
            for folder in sorted(each for each in self.folder.iterdir() if each.is_dir()):
                if folder.name < _name(now // DAY) and self._finish(folder):
                    made.append(folder.with_name(f"{folder.name}.parquet"))
        except OSError as error:
            raise self._trouble(error) from error
        return made

    def _finish(self, folder: Path) -> bool:
        """Take the groups of a day into its file; False where there are none that it lacks."""
        import pyarrow.parquet as pq

        whole = folder.with_name(f"{folder.name}.parquet")
        taken = _taken(whole)
        groups = {number: path for number, path in _groups(folder).items() if number > taken}
        if groups:
            partial = whole.with_suffix(".part")
            writer = None
            with partial.open("wb") as file:
                for table in _packed([*([whole] if whole.exists() else []), *groups.values()]):
                    if writer is None:
                        schema = table.schema.with_metadata({_TAKEN: str(max(groups)).encode()})
                        writer = pq.ParquetWriter(file, schema, compression="zstd")
                    writer.write_table(table.replace_schema_metadata(writer.schema.metadata))
                if writer is not None:
                    writer.close()
                file.flush()
                os.fsync(file.fileno())
            if writer is None:
                partial.unlink()
                return False
            partial.replace(whole)
            _sync(self.folder)
        # What could not be read stays, under another name, for somebody to look at.
        for path in _groups(folder).values():
            path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
        return bool(groups)

    def drop_before(self, day: Nanos) -> int:
        """Delete the days that ended before the day of ``day``; returns how many."""
        gone = 0
        last = _name(day // DAY)
        try:
            for path in sorted(self.folder.iterdir()):
                if path.name.startswith(".") or path.name[:10] >= last:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                gone += 1
        except OSError as error:
            raise self._trouble(error) from error
        return gone

    def _whole(self, day: int) -> Path:
        return self.folder / f"{_name(day)}.parquet"

    def _trouble(self, error: OSError) -> NotReady:
        return NotReady(f"ticks cannot be written to {self.folder}: {error.strerror or error}", 5.0)


def _name(day: int) -> str:
    return str(np.datetime64(int(day), "D"))


def _groups(folder: Path) -> dict[int, Path]:
    """The closed groups of a day by their number, in order."""
    if not folder.exists():
        return {}
    return {int(path.stem): path for path in sorted(folder.glob("*.parquet")) if path.stem.isdigit()}


def _taken(whole: Path) -> int:
    """Number of the last group that a day's file has taken in; 0 where there is no such file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not whole.exists():
        return 0
    try:
        metadata = pq.read_schema(whole).metadata or {}
    except pa.ArrowInvalid as error:
        _set_aside(whole, error)
        return 0
    return int(metadata.get(_TAKEN, b"0"))


def _set_aside(path: Path, error: Exception) -> None:
    """Files appear whole, so the disk itself has failed."""
    log.error("%s cannot be read and is set aside: %s", path, error)
    path.rename(path.with_suffix(".damaged"))


def _packed(paths: list[Path]) -> Iterator[Any]:
    """The tables of these files in order, as row groups of a good size.  A file that cannot be read is set aside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[Any] = []
    rows = 0
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group).replace_schema_metadata(None)
                    waiting.append(table)
                    rows += table.num_rows
                    if rows >= ROWS_PER_GROUP:
                        yield pa.concat_tables(waiting)
                        waiting, rows = [], 0
        except pa.ArrowInvalid as error:
            _set_aside(path, error)
    if waiting:
        yield pa.concat_tables(waiting)


def _sync(folder: Path) -> None:
    """Make names in ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
