"""How values look in JSON: decimals as strings, times in ISO 8601 with offset, lists in pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from api.plain_text import unfit_place
from trading.amounts import FORM, is_amount
from trading.errors import BadInput

T = TypeVar("T")

#: Beyond this exponent a decimal is a mistake, and its plain notation would be megabytes long.
_LARGEST_EXPONENT: Final = 30
#: Characters of an amount: more than its digits and leading zeros can need.
_LONGEST_AMOUNT: Final = 100
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:([Zz])|([+-])(\d\d):?(\d\d))")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Days whose every moment, and the day after them, can be counted.
_FIRST_DAY: Final = date(1970, 1, 1)
_LAST_DAY: Final = date(2261, 12, 31)


def _amount(value: object) -> object:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool | float):
        raise ValueError('write numbers as strings, such as "0.01": a JSON number cannot keep every decimal')
    if not isinstance(value, str | int):
        raise ValueError('write a number as a string, such as "0.01"')
    text = str(value)
    if len(text) > _LONGEST_AMOUNT:
        raise ValueError(f"more than {_LONGEST_AMOUNT} characters are no amount")
    if not is_amount(text):
        raise ValueError(f"{text[:40]!r} is not a number; {FORM}")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r} is out of range") from None
    if amount and not -_LARGEST_EXPONENT <= amount.adjusted() <= _LARGEST_EXPONENT:
        raise ValueError(f"{amount} is out of range")
    if len(amount.as_tuple().digits) > 2 * _LARGEST_EXPONENT:
        raise ValueError(f"more than {2 * _LARGEST_EXPONENT} digits")
    return amount


def time_text(at: int) -> str:
    """Nanoseconds since the Unix epoch as ISO 8601 in UTC, to the nanosecond."""
    seconds, nanos = divmod(at, 1_000_000_000)
    # Not strftime: it writes the year 987 with three digits.
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{nanos:09d}+00:00"


def parse_time(text: object) -> int:
    """Nanoseconds since the Unix epoch of an ISO 8601 time with offset; ValueError says what is wrong."""
    # A '+' that was not escaped in a URL arrives as a blank.
    match = _TIME.fullmatch(re.sub(r" (\d\d:?\d\d)$", r"+\1", text)) if isinstance(text, str) else None
    if match is None:
        raise ValueError("write a time with its offset from UTC, such as 2026-01-31T09:15:00Z")
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = match.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"no such time: {error}") from None
    elapsed = moment - _EPOCH
    shift = (int(hours) * 3600 + int(minutes) * 60) * (1 if sign == "+" else -1) if sign else 0
    at = (elapsed.days * 86_400 + elapsed.seconds - shift) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
    if not 0 <= at < 2**63:
        raise ValueError("give a time between 1970 and 2262: nanoseconds are counted from 1970 in 63 bits")
    return at


def _day(value: date) -> date:
    if not _FIRST_DAY <= value <= _LAST_DAY:
        raise ValueError(f"give a day from {_FIRST_DAY} to {_LAST_DAY}: nanoseconds are counted from 1970 in 63 bits")
    return value


#: An exact number; a string both ways.
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str),
    WithJsonSchema({"type": "string", "format": "decimal", "examples": ["0.01"]}),
]

_TIME_SCHEMA = WithJsonSchema(
    {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:15:00.000000000+00:00"]}
)

#: A time that we tell: nanoseconds inside, ISO 8601 outside.
Instant = Annotated[int, PlainSerializer(time_text, return_type=str), _TIME_SCHEMA]

#: A time that may not have come; 0 inside.
InstantOrNone = Annotated[
    int,
    PlainSerializer(lambda at: time_text(at) if at else None, return_type=str | None),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]

#: A name that may be missing; "" inside.
NameOrNone = Annotated[
    str,
    PlainSerializer(lambda name: name or None, return_type=str | None),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]}),
]

#: A time that a client tells, in nanoseconds once read.
GivenInstant = Annotated[int, BeforeValidator(parse_time), _TIME_SCHEMA]


#: A date that a client tells.
GivenDay = Annotated[date, AfterValidator(_day)]


class Body(BaseModel):
    """Base of what clients send; fields that do not exist are refused, and so is text that cannot be kept, anywhere in
    it (`api.plain_text`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_plain(cls, given: Any) -> Any:
        wrong = unfit_place(given)
        if wrong is not None:
            place, words = wrong
            # Never the input: it may be a password.
            details = InitErrorDetails(type=PydanticCustomError("unfit_text", words), loc=place, input=None)
            raise ValidationError.from_exception_data(cls.__name__, [details])
        return given


class Shown(BaseModel):
    """Base of what we answer; made from the structs of `storage` and `trading`."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Page(BaseModel, Generic[T]):
    """A part of a list.  ``next`` is the cursor of the following part, null at the end."""

    items: list[T]
    next: str | None = None


Limit = Annotated[int, Query(ge=1, le=1000, description="Items on a page")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]


def page_of(things: Iterable[T], key: Callable[[T], str], limit: int, cursor: str | None) -> dict[str, Any]:
    """The page of ``things``, in the order of ``key`` (unique), that follows ``cursor``."""
    after = _read_cursor(cursor) if cursor is not None else ""
    rest = sorted((thing for thing in things if key(thing) > after), key=key)
    following = _make_cursor(key(rest[limit - 1])) if len(rest) > limit else None
    return {"items": rest[:limit], "next": following}


def _make_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _read_cursor(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise BadInput("cursor", f"{text[:40]!r} is not a cursor: take `next` of the page before") from None
