"""How commands print: tables for people, JSON for programs, one line and an exit code for errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trading.errors import BadInput, NeedsOperator, NotReady, TradeError, Unreachable

out = Console()
err = Console(stderr=True)

#: Exit codes: 1 refused, 2 wrong input, 3 not ready or unreachable, 4 a person must act.
_CODES: tuple[tuple[type[TradeError], int], ...] = (
    (BadInput, 2),
    (NotReady, 3),
    (Unreachable, 3),
    (NeedsOperator, 4),
    (TradeError, 1),
)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn our errors into a line on stderr and an exit code."""
    try:
        yield
    except TradeError as error:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        err.print(Text.assemble(("error: ", "bold red"), str(error)))
        raise typer.Exit(code) from None


def show(data: Any, as_json: bool, columns: Sequence[tuple[str, str]], rows: Sequence[Any], title: str = "") -> None:
    """Print ``data`` as JSON or ``rows`` as a table of ``(heading, key)`` columns; keys may be dotted."""
    if as_json:
        out.print_json(json.dumps(data))
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading, _ in columns:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(_text(row, key)) for _, key in columns))
    out.print(table if rows else Text("none", style="dim"))


def _text(row: Any, dotted: str) -> str:
    value = row
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return str(value)
