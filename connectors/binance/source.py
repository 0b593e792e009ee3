"""Where the simulator's messages come from: the interface, and recordings as one kind of source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import gcd
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from connectors.binance.product import SPOT, USDM, Product
from connectors.recordings import Problems, read
from trading.errors import BadInput

_QUOTES: Final = (
    "FDUSD",
    "USDT",
    "USDC",
    "BUSD",
    "TUSD",
    "USD1",
    "BTC",
    "ETH",
    "BNB",
    "EUR",
    "TRY",
    "BRL",
    "USD",
)
#: So many different values make their greatest common divisor a credible step.
_ENOUGH: Final = 100


class SymbolSpec(NamedTuple):
    """A symbol that a source streams."""

    symbol: str
    base: str
    quote: str
    tick: Decimal
    lot: Decimal


class Event(NamedTuple):
    """A message that is due.

    ``due`` is market time in UTC ns, ``payload`` combined stream JSON, ``line`` its number from 1.
    """

    due: int
    stream: str
    payload: bytes
    line: int


class MinuteBar(NamedTuple):
    """A minute: open time (UTC ms), prices, volume, number of trades."""

    opened: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int


class Source(Protocol):
    """A market for the simulator to serve."""

    product: Product

    def prepare(self, now: int) -> Sequence[SymbolSpec]:
        """Get ready; ``now`` (UTC ns) is when the market would start if it starts now.  May take seconds."""

    def begin(self, now: int) -> None:
        """The market starts now (UTC ns), maybe long after `prepare`; one whose times are fixed passes it over."""

    def events(self) -> Iterator[Event]:
        """All messages in order of time, from the start."""

    def history(self, symbol: str) -> Sequence[MinuteBar]:
        """Minutes before the start, oldest first; the last may be unfinished."""

    def describe(self) -> dict[str, Any]:
        """Facts for the simulator's statistics."""


class RecordingSource:
    """A recording in the raw format, with the instruments that are in it."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.product = SPOT
        self.problems = Problems()
        self.lines = 0
        self._symbols: list[SymbolSpec] = []

    def prepare(self, now: int) -> Sequence[SymbolSpec]:
        """Read it through once for symbols, steps and problems.

        `BadInput` where nothing of it can be used.
        """
        self.problems = Problems()
        self.lines = 0
        futures = False
        steps: dict[str, tuple[StepFinder, StepFinder]] = {}
        for line in read(self._path, self.problems):
            self.lines += 1
            symbol, _, kind = line.stream.partition("@")
            price, size = steps.setdefault(symbol.upper(), (StepFinder(), StepFinder()))
            if kind == "bookTicker" or kind == "trade" or kind == "aggTrade":
                # Futures quotes carry a time, futures trades an execution type; spot's have neither.
                futures = futures or b'"e":"bookTicker"' in line.payload or b'"X":"' in line.payload
                values = _VALUES.findall(line.payload)
                for key, text in values:
                    (size if key in b"BAq" else price).see(text)
            elif kind.startswith("depth"):
                futures = futures or b'"pu":' in line.payload
        if not steps:
            first = self.problems.found[0] if self.problems.found else "it is empty"
            raise BadInput("recording", f"nothing in {self._path} can be replayed: {first}")
        self.product = USDM if futures else SPOT
        self._symbols = [
            SymbolSpec(symbol, *assets(symbol), price.step(), size.step())
            for symbol, (price, size) in sorted(steps.items())
        ]
        return self._symbols

    def begin(self, now: int) -> None:
        """Nothing: a recording has its own times."""

    def events(self) -> Iterator[Event]:
        """The good lines, due when they were received."""
        for line in read(self._path, Problems()):
            yield Event(line.received_at, line.stream, line.payload, line.number)

    def history(self, symbol: str) -> Sequence[MinuteBar]:
        """Nothing: a recording knows only what is in it."""
        return ()

    def describe(self) -> dict[str, Any]:
        """The file, its usable lines and its problems."""
        return {
            "kind": "recording",
            "file": self._path.name,
            "lines": self.lines,
            "problems": len(self.problems),
            "first_problems": [str(problem) for problem in self.problems.found[:20]],
        }


_VALUES: Final = re.compile(rb'"([bBaApq])":"([0-9.]+)"')


class StepFinder:
    """Finds the step of which all values seen are multiples."""

    def __init__(self) -> None:
        self._places = 0
        self._texts: set[bytes] = set()

    def see(self, text: bytes) -> None:
        """Take note of a value."""
        if len(self._texts) < 20_000:
            self._texts.add(text)

    def step(self) -> Decimal:
        """The step so far."""
        values = [Decimal(text.decode()) for text in self._texts]
        values = [value for value in values if value]
        if not values:
            return Decimal("0.00000001")
        places = max(0, *(-_exponent(value) for value in values))
        common = 1
        if len(values) >= _ENOUGH:
            # With fewer, 0.5 cannot be told from 0.1, and the last digit in use is surely fine enough.
            common = gcd(*(int(value.scaleb(places)) for value in values))
        return Decimal(common).scaleb(-places).normalize() + 0


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return exponent


def assets(symbol: str) -> tuple[str, str]:
    plain = symbol.partition("_")[0]
    for quote in _QUOTES:
        if plain.endswith(quote) and len(plain) > len(quote):
            return plain[: -len(quote)], quote
    return plain[:-3] or plain, plain[-3:]


_TIME: Final = re.compile(rb'"([ET])":(\d{13})(?=[,}])')


def restamped(payload: bytes, shift_ms: int) -> bytes:
    """``payload`` with its event and trade times moved by ``shift_ms``."""
    return _TIME.sub(lambda found: b'"%b":%d' % (found[1], int(found[2]) + shift_ms), payload)
