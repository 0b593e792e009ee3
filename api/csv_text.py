"""Lists as CSV (RFC 4180), line by line, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from api.formats import time_text

#: A spreadsheet takes a cell that begins with one of these for a formula; the wide ones are those of East Asia.
_FORMULA: Final = frozenset("=+-@\t\r\n＝＋－＠")
_MARK: Final = "'"


class Column(NamedTuple):
    """A column: its heading, and the text of its cell in a row."""

    name: str
    text: Callable[[Any], str]


def safe(text: str) -> str:
    """``text`` so that no spreadsheet runs it: marked with an apostrophe where it could be a formula.

    What begins with an apostrophe itself is marked too, so whoever takes one leading apostrophe away gets ``text``.
    """
    begins = text.lstrip(" ")[:1]
    return _MARK + text if begins in _FORMULA or begins == _MARK else text


def plain(marked: str) -> str:
    """The text that `safe` was given."""
    return marked.removeprefix(_MARK)


def heading(columns: Sequence[Column]) -> str:
    """The first line."""
    return _lines([[column.name for column in columns]])


def lines(columns: Sequence[Column], rows: Iterable[Any]) -> str:
    """A line for each row."""
    texts = [column.text for column in columns]
    return _lines([text(row) for text in texts] for row in rows)


def _lines(rows: Iterable[Sequence[str]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def _text(value: str | None) -> str:
    return safe(value) if value else ""


def _amount(value: Decimal | None) -> str:
    # A number is no formula, a negative one neither.
    return "" if value is None else f"{value:f}"


def _flag(value: bool) -> str:
    return "true" if value else "false"


#: As `api.shapes.OrderShown`.
ORDER: Final = (
    Column("account", lambda order: _text(order.account)),
    Column("client_order_id", lambda order: _text(order.client_order_id)),
    Column("instrument", lambda order: _text(order.instrument)),
    Column("side", lambda order: order.side.value),
    Column("type", lambda order: order.type.value),
    Column("quantity", lambda order: _amount(order.quantity)),
    Column("limit_price", lambda order: _amount(order.limit_price)),
    Column("stop_price", lambda order: _amount(order.stop_price)),
    Column("trail_price", lambda order: _amount(order.trail_price)),
    Column("trail_percent", lambda order: _amount(order.trail_percent)),
    Column("time_in_force", lambda order: order.time_in_force.value),
    Column("reduce_only", lambda order: _flag(order.reduce_only)),
    Column("algo", lambda order: _text(order.algo)),
    Column("state", lambda order: order.state.value),
    Column("reason", lambda order: _text(order.reason)),
    Column("cancelling", lambda order: _flag(order.cancelling)),
    Column("broker_order_id", lambda order: _text(order.broker_order_id)),
    Column("filled_quantity", lambda order: _amount(order.filled_quantity)),
    Column("open_quantity", lambda order: _amount(order.open_quantity)),
    Column("average_price", lambda order: _amount(order.average_price)),
    Column("created_at", lambda order: time_text(order.created_at)),
    Column("updated_at", lambda order: time_text(order.updated_at)),
)

#: As `api.shapes.FillOfOrder`, laid flat.
FILL: Final = (
    Column("account", lambda record: _text(record.account)),
    Column("client_order_id", lambda record: _text(record.client_order_id)),
    Column("instrument", lambda record: _text(record.instrument)),
    Column("side", lambda record: record.side.value),
    Column("algo", lambda record: _text(record.algo)),
    Column("execution_id", lambda record: _text(record.fill.execution_id)),
    Column("quantity", lambda record: _amount(record.fill.quantity)),
    Column("price", lambda record: _amount(record.fill.price)),
    Column("at", lambda record: time_text(record.fill.at)),
    Column("fee", lambda record: _amount(record.fill.fee)),
    Column("fee_currency", lambda record: _text(record.fill.fee_currency)),
)

#: As `api.routes.history.BarShown`; figures as they are kept, with as many digits as they need.
BAR: Final = (
    Column("opened_at", lambda bar: time_text(bar.opened_at)),
    Column("open", lambda bar: repr(bar.open)),
    Column("high", lambda bar: repr(bar.high)),
    Column("low", lambda bar: repr(bar.low)),
    Column("close", lambda bar: repr(bar.close)),
    Column("volume", lambda bar: repr(bar.volume)),
    Column("trades", lambda bar: str(bar.trades)),
)
