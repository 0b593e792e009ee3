"""The shapes of Alpaca's wire: requests, responses, and the JSON objects in them.

Sources: the OpenAPI documents of the trading, orders, positions and accounts APIs, the AsyncAPI document of the
streams, and "Websocket Streaming" of Alpaca's documentation.  Field names are the wire's.  Numbers come as strings
in live answers and as numbers in some documented ones; both are taken, exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from trading.ids import Nanos

#: Characters of a client_order_id that Alpaca takes at the most.
LONGEST_CLIENT_ID: Final = 48
#: Statuses of orders that will not trade any more.
ENDED: Final = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
_TAG: Final = re.compile(r"([A-Z2-7]{16})(?:\.[A-Z2-7]{16})?")
_SECOND: Final = 1_000_000_000
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:?\d\d)")
#: How much of a body is kept where it is quoted.
_KEPT: Final = 2_000


class Request(msgspec.Struct, frozen=True):
    """One HTTP request to the trading API, without host and credentials."""

    method: str
    #: From the first slash, such as ``/v2/orders``.
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def value(self, name: str) -> str | None:
        """The last query parameter of this name."""
        return dict(self.query).get(name)

    def flag(self, name: str) -> bool:
        """Whether a query parameter says true, however it is written."""
        return (self.value(name) or "").lower() == "true"


class Response(msgspec.Struct, frozen=True):
    """One HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is of the 200s."""
        return 200 <= self.status < 300

    @property
    def raw(self) -> str:
        """Status and body for the record, cut where they are long."""
        return f"{self.status} {self.body[:_KEPT].decode('utf-8', 'replace')}"


class OrderRow(msgspec.Struct, kw_only=True):
    """An order as REST and ``trade_updates`` show it."""

    id: str
    client_order_id: str = ""
    symbol: str = ""
    side: str = ""
    type: str = ""
    order_type: str = ""
    time_in_force: str = ""
    status: str = ""
    qty: Decimal | None = None
    notional: Decimal | None = None
    filled_qty: Decimal | None = None
    filled_avg_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    #: Best price of a trailing stop; a documented sample has the word "string" here.
    hwm: str | int | float | None = None
    order_class: str | None = None
    extended_hours: bool = False
    created_at: str | None = None
    updated_at: str | None = None
    submitted_at: str | None = None
    filled_at: str | None = None
    expired_at: str | None = None
    canceled_at: str | None = None
    failed_at: str | None = None
    replaced_at: str | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    asset_id: str | None = None
    asset_class: str | None = None
    position_intent: str | None = None
    legs: list[OrderRow] | None = None

    @property
    def changed_at(self) -> Nanos:
        """When it last changed, as far as it says."""
        for text in (self.updated_at, self.submitted_at, self.created_at):
            if text:
                return nanos(text)
        return Nanos(0)


class TradeUpdate(msgspec.Struct, kw_only=True):
    """The data of one ``trade_updates`` message."""

    event: str
    order: OrderRow
    execution_id: str | None = None
    timestamp: str | None = None
    at: str | None = None
    price: Decimal | None = None
    qty: Decimal | None = None
    position_qty: Decimal | None = None


class FillActivity(msgspec.Struct, kw_only=True):
    """A row of ``/v2/account/activities/FILL``: one execution."""

    #: ``<time>::<uuid>``; the uuid is the ``execution_id`` of the stream.
    id: str
    order_id: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    transaction_time: str
    activity_type: str = "FILL"
    type: str = ""
    cum_qty: Decimal | None = None
    leaves_qty: Decimal | None = None
    order_status: str = ""


class PositionRow(msgspec.Struct, kw_only=True):
    """A row of ``/v2/positions``."""

    symbol: str
    qty: Decimal
    side: str = "long"
    avg_entry_price: Decimal | None = None
    asset_id: str = ""
    asset_class: str = ""
    exchange: str = ""
    qty_available: Decimal | None = None
    market_value: Decimal | None = None
    cost_basis: Decimal | None = None
    current_price: Decimal | None = None
    lastday_price: Decimal | None = None
    unrealized_pl: Decimal | None = None


class AccountRow(msgspec.Struct, kw_only=True):
    """``/v2/account``, as far as it is used."""

    id: str
    cash: Decimal
    currency: str = "USD"
    status: str = ""
    account_number: str = ""
    equity: Decimal | None = None
    last_equity: Decimal | None = None
    buying_power: Decimal | None = None
    multiplier: Decimal | None = None
    shorting_enabled: bool = False
    trading_blocked: bool = False
    account_blocked: bool = False
    trade_suspended_by_user: bool = False


class AssetRow(msgspec.Struct, kw_only=True):
    """A row of ``/v2/assets``."""

    id: str
    symbol: str
    asset_class: str = msgspec.field(name="class", default="")
    exchange: str = ""
    name: str | None = None
    status: str = ""
    tradable: bool = False
    fractionable: bool = False
    shortable: bool = False
    marginable: bool = False
    easy_to_borrow: bool = False
    #: Steps of crypto pairs; shares have none.
    min_order_size: Decimal | None = None
    min_trade_increment: Decimal | None = None
    price_increment: Decimal | None = None


class ErrorBody(msgspec.Struct, kw_only=True):
    """Alpaca's error envelope.  401 and 403 of the gateway come without a code."""

    message: str
    code: int | None = None


def tag_of(client_order_id: str) -> str:
    """The tag in a ``client_order_id``; "" where it is not one of ours.  (`codec` says how ours are made.)"""
    match = _TAG.fullmatch(client_order_id)
    return match.group(1) if match else ""


def nanos(text: str) -> Nanos:
    """UTC nanoseconds of an RFC 3339 time, to its last digit.  Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is not an RFC 3339 time")
    day, clock, fraction, zone = match.groups()
    whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone == 'Z' else zone}")
    return Nanos(int(whole.timestamp()) * _SECOND + int((fraction or "").ljust(9, "0")))


def rfc3339(at: int) -> str:
    """An instant as Alpaca writes it."""
    seconds, fraction = divmod(at, _SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def plain(number: Decimal) -> str:
    """A number as Alpaca writes it: no exponent, no zeros behind."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def as_json(value: Any) -> bytes:
    """JSON of plain values; decimals become strings, as on the wire."""
    return msgspec.json.encode(value)
