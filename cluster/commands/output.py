"""How commands print: tables for people, JSON for programs, one line and an exit code for errors."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trading.errors import BadInput, NeedsOperator, NotReady, TradeError, Unreachable

#: Into a file or pipe nothing is folded.
out = Console(width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True)
_LONG_NUMBER = 14
_NUMBER = re.compile(r"-?\d+\.\d+")

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
        err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        raise typer.Exit(code) from None


def show(data: Any, as_json: bool, columns: Sequence[tuple[str, str]], rows: Sequence[Any], title: str = "") -> None:
    """Print ``data`` as JSON or ``rows`` as a table of ``(heading, key)`` columns; keys may be dotted."""
    if as_json:
        out.print_json(json.dumps(data))
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading, _ in columns:
        # Folded, never cut: what is shown is meant to be given to the next command.
        table.add_column(heading, overflow="fold")
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
        return ", ".join(str(v.get("id", v)) if isinstance(v, dict) else str(v) for v in value)
    if isinstance(value, str) and len(value) > _LONG_NUMBER and _NUMBER.fullmatch(value):
        return f"{Decimal(value):.8f}".rstrip("0").rstrip(".")
    return str(value)
