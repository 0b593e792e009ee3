"""Kite's list of instruments in our words: ``exchange:tradingsymbol`` is the id, the token the provider's symbol.

Source: "Market quotes and instruments" of the Kite Connect v3 documentation: CSV, made anew each day before trading.
Tokens of contracts that have expired are given to others, so a token is worth nothing without its day.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from connectors.kite.codec import SEGMENTS
from trading.errors import BadInput, Unreachable
from trading.ids import instrument_id
from trading.instruments import Instrument

PROVIDER: Final = "kite"
EXCHANGES: Final = ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCO")
#: Hours that exchange_calendars knows of India's venues: the shares' and their derivatives'.  Currencies and
#: commodities trade longer; for them these hours refuse too much rather than too little.
CALENDAR: Final = "XBOM"
_COLUMNS: Final = frozenset(
    {"instrument_token", "tradingsymbol", "name", "expiry", "strike", "tick_size", "lot_size", "instrument_type"}
    | {"segment", "exchange"}
)
#: Indices are not traded and have no tick.
_INDEX_TICK: Final = Decimal("0.01")


class Listing(NamedTuple):
    """What a list had in it: instruments, and why others were left out."""

    instruments: tuple[Instrument, ...]
    skipped: tuple[str, ...]


def token_of(instrument: Instrument) -> int:
    """The token of an instrument.  Raises `BadInput` for one of another provider."""
    text = instrument.provider_symbol
    if instrument.provider != PROVIDER or not text.isdecimal() or not 0 < int(text) < 1 << 32:
        raise BadInput("instruments", f"{instrument.id} is not one of Kite's: list it anew")
    return int(text)


def parse_instruments(body: bytes, today: date) -> Listing:
    """The instruments of a CSV list, numbers unassigned; expired ones and those that cannot be written are left out.

    Raises `Unreachable` where it is no such list.
    """
    try:
        reader = csv.DictReader(io.StringIO(body.decode()))
        missing = _COLUMNS - set(reader.fieldnames or ())
        if missing:
            raise Unreachable("kite", f"the list of instruments has no column {', '.join(sorted(missing))}")
        made = list(_made(reader, today))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreachable("kite", f"the list of instruments cannot be read: {error}") from error
    return Listing(
        tuple(each for each in made if isinstance(each, Instrument)),
        tuple(each for each in made if isinstance(each, str)),
    )


def _made(rows: Iterator[dict[str, str]] | csv.DictReader[str], today: date) -> Iterator[Instrument | str]:
    for row in rows:
        try:
            yield _instrument(row, today)
        except (BadInput, InvalidOperation, ValueError, TypeError) as error:
            yield f"{row.get('exchange')}:{row.get('tradingsymbol')}: {error}"


def _instrument(row: Mapping[str, str], today: date) -> Instrument:
    token = int(row["instrument_token"])
    if token & 0xFF not in SEGMENTS or not 0 < token < 1 << 32:
        raise ValueError(f"token {token} is of no known segment")
    expiry = row["expiry"].strip()
    if expiry and date.fromisoformat(expiry) < today:
        raise ValueError(f"expired on {expiry}")
    is_index = row["segment"] == "INDICES" or token & 0xFF == 9
    tick, lot = Decimal(row["tick_size"] or 0), Decimal(row["lot_size"] or 0)
    if tick <= 0 and not is_index:
        raise ValueError("it has no tick size")
    return Instrument(
        id=instrument_id(f"{row['exchange']}:{row['tradingsymbol']}"),
        provider_symbol=str(token),
        provider=PROVIDER,
        tick_size=tick if tick > 0 else _INDEX_TICK,
        lot_size=lot if lot > 0 else Decimal(1),
        currency="INR",
        calendar=CALENDAR,
        description=_description(row, expiry, is_index),
        expires_on=expiry,
    )


def _description(row: Mapping[str, str], expiry: str, is_index: bool) -> str:
    kind = "index" if is_index else {"FUT": "future", "CE": "call", "PE": "put"}.get(row["instrument_type"], "")
    strike = f"{Decimal(row['strike'] or 0).normalize():f}" if row["instrument_type"] in ("CE", "PE") else ""
    words = [row["name"].strip(), strike, kind, f"expires {expiry}" if expiry else ""]
    return " ".join(word for word in words if word)
