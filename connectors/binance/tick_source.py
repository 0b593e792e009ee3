"""A table of ticks (CSV or Parquet) as a source for the simulator: its rows as Binance's messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from connectors.binance.product import SPOT, USDM, Product
from connectors.binance.source import Event, MinuteBar, StepFinder, SymbolSpec, assets
from connectors.recordings import Problems
from connectors.tick_files import NumberedAsSeen, read_ticks
from trading.errors import BadInput
from trading.ticks import BUYER_MAKER, TRADE, TickArray, empty

_MS = 1_000_000


class TickFileSource:
    """Ticks of one venue (``BINANCE`` or ``BINANCE-USDM``), due when they were received."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.product: Product = SPOT
        self.problems = Problems()
        self._ticks: TickArray = empty()
        self._symbols: dict[int, str] = {}

    def prepare(self, now: int) -> Sequence[SymbolSpec]:
        """Read the table.  `BadInput` where nothing of it can be used, or where it is of another venue."""
        self.problems = Problems()
        numbers = NumberedAsSeen()
        ticks = read_ticks(self._path, numbers, self.problems)
        if not len(ticks):
            first = self.problems.found[0] if self.problems.found else "it is empty"
            raise BadInput("recording", f"nothing in {self._path} can be replayed: {first}")
        venues = {name.partition(":")[0] for name in numbers}
        if len(venues) != 1 or not venues <= {"BINANCE", "BINANCE-USDM"}:
            raise BadInput(
                "recording", f"it has instruments of {', '.join(sorted(venues))}; use one of BINANCE and BINANCE-USDM"
            )
        self.product = USDM if venues == {"BINANCE-USDM"} else SPOT
        self._symbols = {number: name.partition(":")[2] for name, number in numbers.items()}
        self._ticks = ticks[ticks["received_at"].argsort(kind="stable")]
        steps = {number: (StepFinder(), StepFinder()) for number in self._symbols}
        for row in self._ticks.tolist():
            price, size = steps[row[0]]
            for finder, values in ((price, (row[2], row[4], row[6])), (size, (row[3], row[5], row[7]))):
                for value in values:
                    if value == value:  # not NaN
                        finder.see(_text(value).encode())
        return [
            SymbolSpec(symbol, *assets(symbol), steps[number][0].step(), steps[number][1].step())
            for number, symbol in sorted(self._symbols.items(), key=lambda item: item[1])
        ]

    def begin(self, now: int) -> None:
        """Nothing: a file has its own times."""

    def events(self) -> Iterator[Event]:
        """One message a row."""
        futures = self.product is USDM
        counted: Counter[tuple[int, bool]] = Counter()
        for line, row in enumerate(self._ticks.tolist(), 1):
            number, flags, price, size, bid, bid_size, ask, ask_size, exchange_at, received_at, sequence = row
            symbol = self._symbols[number]
            is_trade = bool(flags & TRADE)
            counted[number, is_trade] += 1
            sequence = sequence or counted[number, is_trade]
            at = (exchange_at or received_at) // _MS
            if is_trade:
                stream = f"{symbol.lower()}@trade"
                maker = "true" if flags & BUYER_MAKER else "false"
                tail = '"X":"MARKET",' if futures else ""
                data = (
                    f'{{"e":"trade","E":{at},"T":{at},"s":"{symbol}","t":{sequence},"p":"{_text(price)}",'
                    f'"q":"{_text(size)}",{tail}"m":{maker}}}'
                )
            else:
                stream = f"{symbol.lower()}@bookTicker"
                head = '"e":"bookTicker",' if futures else ""
                tail = f',"T":{at},"E":{at}' if futures else ""
                data = (
                    f'{{{head}"u":{sequence},"s":"{symbol}","b":"{_text(bid)}","B":"{_text(bid_size)}",'
                    f'"a":"{_text(ask)}","A":"{_text(ask_size)}"{tail}}}'
                )
            yield Event(received_at, stream, f'{{"stream":"{stream}","data":{data}}}'.encode(), line)

    def history(self, symbol: str) -> Sequence[MinuteBar]:
        """Nothing: a table knows only what is in it."""
        return ()

    def describe(self) -> dict[str, Any]:
        """The file, its usable rows and its problems."""
        return {
            "kind": "ticks",
            "file": self._path.name,
            "lines": len(self._ticks),
            "problems": len(self.problems),
            "first_problems": [str(problem) for problem in self.problems.found[:20]],
        }


def _text(value: float) -> str:
    """The shortest plain decimal text that reads back as ``value``."""
    return f"{Decimal(repr(value)):f}"
