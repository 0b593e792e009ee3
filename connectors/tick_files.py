"""Ticks as tables: CSV (plain or gzip) and Parquet, with the columns of `trading.ticks.TICK`.

The instrument is its id in text; fields that do not apply are empty.  Reading is tolerant: a bad row is
reported by its line (CSV, the header is line 1) or row (Parquet, from 1) and left out, the others are used.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from connectors.recordings import Problems, numbered_lines, open_binary
from trading.errors import BadInput
from trading.ids import InstrumentId, instrument_id
from trading.ticks import QUOTE, TICK, TRADE, TickArray, empty

COLUMNS: Final[tuple[str, ...]] = tuple(TICK.names or ())
_FLOATS: Final = ("price", "size", "bid", "bid_size", "ask", "ask_size")
ROWS_PER_GROUP: Final = 100_000


def write_ticks(path: str | Path, ticks: TickArray, names: Mapping[int, InstrumentId]) -> None:
    """Write ``ticks`` to ``path`` (.csv, .csv.gz, .parquet); ``names`` gives the id of each number.

    Raises `BadInput` for another ending, an unwritable path or a number without a name.
    """
    target = Path(path)
    unknown = sorted(set(ticks["instrument"].tolist()) - set(names))
    if unknown:
        raise BadInput("names", f"no instrument has the number {unknown[0]}")
    kind = _kind(target)
    try:
        if kind == "parquet":
            _write_parquet(target, ticks, names)
        else:
            _write_csv(target, ticks, names)
    except OSError as error:
        raise BadInput("path", f"cannot write {target}: {error.strerror or error}") from error


def read_ticks(path: str | Path, numbers: Mapping[InstrumentId, int], problems: Problems) -> TickArray:
    """The good rows of a file, in its order; ``numbers`` gives the number of each instrument.

    Raises `BadInput` for another ending, an unreadable path or missing columns.
    """
    source = Path(path)
    rows = _parquet_rows(source, problems) if _kind(source) == "parquet" else _csv_rows(source, problems)
    good: list[tuple[Any, ...]] = []
    for number, row in rows:
        try:
            good.append(_tick(row, numbers))
        except ValueError as error:
            problems.add(number, str(error))
    return np.array(good, dtype=TICK) if good else empty()


class NumberedAsSeen(dict[InstrumentId, int]):
    """Numbers for `read_ticks` of a file whose instruments are not known before: 1, 2, … as they come."""

    def get(self, key: InstrumentId, default: Any = None) -> Any:
        """The number of ``key``; a malformed id has none."""
        if key not in self:
            try:
                self[instrument_id(key)] = len(self) + 1
            except BadInput:
                return default
        return self[key]


def is_tick_file(path: str | Path) -> bool:
    """Whether the name ends as a table of ticks does."""
    return Path(path).name.endswith((".csv", ".csv.gz", ".parquet"))


def _kind(path: Path) -> str:
    if path.name.endswith(".parquet"):
        return "parquet"
    if path.name.endswith((".csv", ".csv.gz")):
        return "csv"
    raise BadInput("path", f"{path.name!r} ends neither in .csv, .csv.gz nor .parquet")


def _tick(row: Sequence[Any], numbers: Mapping[InstrumentId, int]) -> tuple[Any, ...]:
    """One row as TICK's fields; ValueError says what is wrong with it."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"it has {len(row)} fields, not {len(COLUMNS)}")
    named = dict(zip(COLUMNS, row, strict=True))
    number = numbers.get(InstrumentId(str(named["instrument"])))
    if number is None:
        raise ValueError(f"instrument {str(named['instrument'])[:40]!r} is not known")
    values: dict[str, Any] = {"instrument": number}
    for name in COLUMNS[1:]:
        text = named[name]
        try:
            if name in _FLOATS:
                values[name] = math.nan if text is None or text == "" else float(text)
            else:
                values[name] = int(text)
        except (TypeError, ValueError):
            raise ValueError(f"{name} {str(text)[:40]!r} is not a number") from None
    flags = values["flags"]
    if not 0 < flags < 2**32 or not flags & (TRADE | QUOTE):
        raise ValueError(f"flags {flags} say neither trade nor quote")
    needed = ("price", "size") if flags & TRADE else ("bid", "bid_size", "ask", "ask_size")
    for name in needed:
        if not math.isfinite(values[name]) or values[name] < 0:
            raise ValueError(f"{name} {named[name]!r} is not a number from 0")
    for name in ("exchange_at", "received_at", "sequence"):
        if not 0 <= values[name] < 2**63:
            raise ValueError(f"{name} {values[name]} is out of range")
    return tuple(values[name] for name in COLUMNS)


def _write_csv(path: Path, ticks: TickArray, names: Mapping[int, InstrumentId]) -> None:
    with path.open("wb") as file, _maybe_packed(file, path) as packed:
        text = io.TextIOWrapper(packed, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in ticks.tolist():
            cells = ["" if isinstance(value, float) and math.isnan(value) else value for value in row]
            writer.writerow([names[int(row[0])], *cells[1:]])
        text.flush()
        text.detach()


def _maybe_packed(file: Any, path: Path) -> Any:
    return gzip.GzipFile(fileobj=file, mode="wb") if path.suffix == ".gz" else file


def _csv_rows(path: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    lines = numbered_lines(path, problems, "path")
    _, header = next(lines, (0, b""))
    found = next(csv.reader([header.decode("utf-8", "replace")]), [])
    if tuple(found) != COLUMNS:
        raise BadInput("path", f"{path.name} starts with {found[:4]}…; its columns must be {', '.join(COLUMNS)}")
    for number, line in lines:
        if not line:
            continue
        try:
            yield number, next(csv.reader([line.decode("utf-8")]))
        except (UnicodeDecodeError, csv.Error) as error:
            problems.add(number, f"not CSV text: {error}")


def tick_table(ticks: TickArray, names: Mapping[int, InstrumentId]) -> Any:
    """The `pyarrow.Table` of ``ticks`` as it stands in a Parquet file; KeyError for a number without a name."""
    import pyarrow as pa

    numbers, places = np.unique(ticks["instrument"], return_inverse=True)
    ids = pa.array([names[number] for number in numbers.tolist()], pa.string())
    columns: dict[str, Any] = {"instrument": ids.take(pa.array(places))}
    for name in COLUMNS[1:]:
        values = np.ascontiguousarray(ticks[name])
        columns[name] = pa.array(values, mask=np.isnan(values) if name in _FLOATS else None)
    return pa.table(columns)


def _write_parquet(path: Path, ticks: TickArray, names: Mapping[int, InstrumentId]) -> None:
    import pyarrow.parquet as pq

    with path.open("wb") as file:
        pq.write_table(tick_table(ticks, names), file, row_group_size=ROWS_PER_GROUP, compression="zstd")


def _parquet_rows(path: Path, problems: Problems) -> Iterator[tuple[int, tuple[Any, ...]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_binary(path, "path") as file:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            # Its index stands at the end: without that nothing can be found in it.
            problems.add(0, f"it is no Parquet file, or a truncated one: {error}")
            return
        missing = [name for name in COLUMNS if name not in table.schema_arrow.names]
        if missing:
            raise BadInput("path", f"{path.name} has no column {missing[0]!r}: it needs {', '.join(COLUMNS)}")
        first = 1
        for group in range(table.num_row_groups):
            size = table.metadata.row_group(group).num_rows
            try:
                rows = table.read_row_group(group, columns=list(COLUMNS))
                columns = [rows.column(name).to_pylist() for name in COLUMNS]
            except (pa.ArrowException, OSError) as error:
                problems.add(first, f"rows {first} to {first + size - 1} are damaged: {error}")
            else:
                for offset, row in enumerate(zip(*columns, strict=True)):
                    yield first + offset, row
            first += size
