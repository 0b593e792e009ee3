"""A seeded market: correlated random walks with jumps, spreads and a burst at the open.

The same seed, settings and start give the same bytes, message for message.  Prices walk on the tick grid; one
common shock moves all symbols, another each of them alone.  Messages are quotes, trades at the touch, and
book changes every 100 ms.  Minutes before the start are generated backwards from the first price, so a
strategy finds history that runs into the live market without a seam.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from connectors.binance.product import SPOT, USDM, Product
from connectors.binance.source import Event, MinuteBar, SymbolSpec
from trading.errors import BadInput

_MS: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_DEPTH_EVERY: Final = 100 * _MS
_LEVELS: Final = 5

#: Names for the first symbols, with the price each starts at.
_NAMES: Final = (
    ("BTC", 61_800.0), ("ETH", 2_680.0), ("SOL", 158.0), ("BNB", 512.0), ("XRP", 0.6012), ("DOGE", 0.1043),
    ("ADA", 0.3491), ("AVAX", 22.4), ("LINK", 10.62), ("DOT", 4.713), ("LTC", 59.8), ("BCH", 347.0),
    ("TRX", 0.1287), ("ATOM", 5.127), ("UNI", 5.961), ("NEAR", 4.009), ("APT", 6.021), ("ARB", 0.5624),
    ("OP", 1.417), ("FIL", 3.801), ("ICP", 7.634), ("ETC", 19.12), ("XLM", 0.1003), ("INJ", 18.3),
)  # fmt: skip


class SyntheticSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the market is like; volatilities are standard deviations of log returns over one second."""

    seed: int = 1
    symbols: int = 20
    #: Quotes and trades of all symbols together, on average after the open.
    ticks_per_s: float = 1000.0
    #: ``binance-spot`` or ``binance-usdm``.
    futures: bool = False
    trade_share: float = 0.3
    volatility: float = 2e-4
    #: Share of a symbol's variance that is common to all.
    correlation: float = 0.6
    #: Jumps per symbol and hour, each of 0.2 to 0.6 %.
    jumps_per_hour: float = 6.0
    #: The rate at the open is this many times the mean, and falls back with the time constant below.
    open_burst: float = 4.0
    burst_s: float = 5.0
    history_minutes: int = 3000
    #: Market time at which it ends; None for never.
    duration_s: float | None = None
    #: Market time (UTC ns) of the start; 0 for when the simulator starts.
    start_at: int = 0


class SyntheticSource:
    """A market made from a seed (`connectors.binance.source.Source`)."""

    def __init__(self, settings: SyntheticSettings | None = None) -> None:
        chosen = settings or SyntheticSettings()
        _check(chosen)
        self._settings = chosen
        self.product: Product = USDM if chosen.futures else SPOT
        self._specs = [_spec(i) for i in range(chosen.symbols)]
        self._start_price = [_NAMES[i][1] if i < len(_NAMES) else 10.0 + i for i in range(chosen.symbols)]
        self._start = chosen.start_at

    def prepare(self, now: int) -> Sequence[SymbolSpec]:
        """The symbols; fixes the start."""
        self._start = self._settings.start_at or now // _MS * _MS
        return self._specs

    def begin(self, now: int) -> None:
        """Start now, unless the settings say when."""
        self._start = self._settings.start_at or now // _MS * _MS

    def describe(self) -> dict[str, Any]:
        """The settings."""
        return {"kind": "synthetic", **msgspec.to_builtins(self._settings)}

    def history(self, symbol: str) -> Sequence[MinuteBar]:
        """Minutes before the start; the last one is unfinished unless the start is a whole minute."""
        index = next(i for i, spec in enumerate(self._specs) if spec.symbol == symbol)
        settings = self._settings
        count = settings.history_minutes
        if count == 0:
            return ()
        common = np.random.default_rng([settings.seed, 11]).standard_normal(count)
        own = np.random.default_rng([settings.seed, 12, index])
        rho = math.sqrt(settings.correlation)
        shocks = rho * common + math.sqrt(1 - settings.correlation) * own.standard_normal(count)
        returns = shocks * settings.volatility * math.sqrt(60.0)
        # Backwards: the newest close is the price that the live market starts with.
        closes = self._start_price[index] * np.exp(-np.cumsum(returns))
        newest_first = np.concatenate([[self._start_price[index]], closes])
        reach = settings.volatility * math.sqrt(60.0) * np.abs(own.standard_normal((2, count)))
        volume = self._mean_size(index) * self._per_symbol(index) * 60 * own.gamma(2.0, 0.5, count)
        trades = own.poisson(max(0.01, self._per_symbol(index) * 60), count)
        spec = self._specs[index]
        tick = float(spec.tick)
        places = _places(spec.tick)
        minute = self._start // (60 * _SECOND) * 60_000
        if self._start % (60 * _SECOND) == 0:
            minute -= 60_000
        bars = []
        for k in range(count - 1, -1, -1):
            close = round(round(newest_first[k] / tick) * tick, places)
            opened = round(round(newest_first[k + 1] / tick) * tick, places)
            high = round(round(max(close, opened) * (1 + reach[0, k]) / tick) * tick, places)
            low = round(round(min(close, opened) * (1 - reach[1, k]) / tick) * tick, places)
            bars.append(
                MinuteBar(
                    minute - 60_000 * k,
                    opened,
                    max(high, opened, close),
                    min(low, opened, close),
                    close,
                    round(float(volume[k]), _places(spec.lot)),
                    int(trades[k]),
                )
            )
        return bars

    def events(self) -> Iterator[Event]:
        """All messages, from the start; the generator can be made anew and gives the same again."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, 1])
        writers = [
            _Writer(spec, price, settings.futures) for spec, price in zip(self._specs, self._start_price, strict=True)
        ]
        weights = self._weights()
        number = 0
        at = self._start
        end = math.inf if settings.duration_s is None else at + int(settings.duration_s * _SECOND)
        # Blocks of about 200 messages keep both the cost per block and the work at once small.
        block = int(min(0.1, max(0.005, 200.0 / settings.ticks_per_s)) * _SECOND)
        next_depth = at + _DEPTH_EVERY
        while at < end:
            seconds = (at - self._start) / _SECOND
            burst = 1.0 + (settings.open_burst - 1.0) * math.exp(-seconds / settings.burst_s)
            self._walk(rng, writers, block / _SECOND)
            count = int(rng.poisson(settings.ticks_per_s * burst * block / _SECOND))
            offsets = np.sort(rng.integers(0, block, count)).tolist()
            who = rng.choice(len(writers), count, p=weights).tolist()
            draws = rng.random((count, 4)).tolist()
            for offset, index, draw in zip(offsets, who, draws, strict=True):
                due = at + offset
                if due >= end:
                    return
                number += 1
                yield writers[index].tick(due, draw, settings.trade_share, number)
            at += block
            if at >= next_depth and at < end:
                next_depth += _DEPTH_EVERY
                for writer in writers:
                    sizes = rng.random((2, _LEVELS)).tolist()
                    event = writer.depth(at, sizes, number + 1)
                    if event is not None:
                        number += 1
                        yield event

    def _walk(self, rng: np.random.Generator, writers: list[_Writer], seconds: float) -> None:
        settings = self._settings
        common = rng.standard_normal()
        own = rng.standard_normal(len(writers))
        rho = settings.correlation
        step = (math.sqrt(rho) * common + math.sqrt(1 - rho) * own) * settings.volatility * math.sqrt(seconds)
        jumps = rng.random(len(writers)) < settings.jumps_per_hour / 3600.0 * seconds
        sizes = rng.uniform(0.002, 0.006, len(writers)) * rng.choice((-1.0, 1.0), len(writers))
        for writer, change in zip(writers, (step + jumps * sizes).tolist(), strict=True):
            writer.move(change)

    def _weights(self) -> npt.NDArray[np.float64]:
        # The first symbols trade most, as everywhere.
        weights = 1.0 / (np.arange(self._settings.symbols) + 3.0)
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def _per_symbol(self, index: int) -> float:
        settings = self._settings
        return float(settings.ticks_per_s * settings.trade_share * self._weights()[index])

    def _mean_size(self, index: int) -> float:
        return 500.0 / self._start_price[index]


class _Writer:
    """The state of one symbol, and its messages as bytes."""

    def __init__(self, spec: SymbolSpec, price: float, futures: bool) -> None:
        self._symbol = spec.symbol
        self._lower = spec.symbol.lower()
        self._futures = futures
        self._tick = float(spec.tick)
        self._price_places = _places(spec.tick)
        self._lot = float(spec.lot)
        self._size_places = _places(spec.lot)
        self._log = math.log(price)
        self._mean_lots = max(1.0, 500.0 / price / self._lot)
        self._bid = round(price / self._tick)
        self._spread = 1
        self._bid_lots = self._ask_lots = int(self._mean_lots)
        self._update = 1_000_000
        self._trade = 1_000_000
        self._told = self._update
        self._bids_told: list[int] = []
        self._asks_told: list[int] = []

    def move(self, change: float) -> None:
        self._log += change

    def _quote(self, draw: list[float]) -> None:
        middle = math.exp(self._log) / self._tick
        self._spread = 1 if draw[1] < 0.7 else 2 if draw[1] < 0.93 else 3
        self._bid = max(1, int(middle - self._spread / 2 + draw[2]))
        self._bid_lots = 1 + int(-math.log(1.0 - draw[3]) * 4 * self._mean_lots)
        self._ask_lots = 1 + int(-math.log(max(draw[3], 1e-9)) * 4 * self._mean_lots)

    def tick(self, due: int, draw: list[float], trade_share: float, line: int) -> Event:
        ms = due // _MS
        if draw[0] >= trade_share:
            self._quote(draw)
            self._update += 1
            bid = self._price(self._bid)
            ask = self._price(self._bid + self._spread)
            stream = self._lower + "@bookTicker"
            head = '"e":"bookTicker",' if self._futures else ""
            times = f',"T":{ms},"E":{ms}' if self._futures else ""
            text = (
                f'{{"stream":"{stream}","data":{{{head}"u":{self._update},"s":"{self._symbol}","b":"{bid}",'
                f'"B":"{self._size(self._bid_lots)}","a":"{ask}","A":"{self._size(self._ask_lots)}"{times}}}}}'
            )
            return Event(due, stream, text.encode(), line)
        seller = draw[1] < 0.5
        price = self._price(self._bid if seller else self._bid + self._spread)
        lots = 1 + int(-math.log(1.0 - draw[2]) * self._mean_lots)
        self._trade += 1
        stream = self._lower + "@trade"
        tail = ',"X":"MARKET"' if self._futures else ""
        maker = "true" if seller else "false"
        also = "" if self._futures else ',"M":true'
        text = (
            f'{{"stream":"{stream}","data":{{"e":"trade","E":{ms},"s":"{self._symbol}","t":{self._trade},'
            f'"p":"{price}","q":"{self._size(lots)}","T":{ms}{tail},"m":{maker}{also}}}}}'
        )
        return Event(due, stream, text.encode(), line)

    def depth(self, due: int, sizes: list[list[float]], line: int) -> Event | None:
        """The book around the touch, if a quote has moved since the last time."""
        if self._update == self._told:
            return None
        ms = due // _MS
        first, before, self._told = self._told + 1, self._told, self._update
        ask = self._bid + self._spread
        bid_prices = [self._bid - i for i in range(_LEVELS) if self._bid > i]
        ask_prices = [ask + i for i in range(_LEVELS)]
        bids = self._levels(bid_prices, self._bid_lots, sizes[0], self._bids_told)
        asks = self._levels(ask_prices, self._ask_lots, sizes[1], self._asks_told)
        self._bids_told, self._asks_told = bid_prices, ask_prices
        stream = self._lower + "@depth@100ms"
        more = f'"T":{ms},' if self._futures else ""
        chain = f'"pu":{before},' if self._futures else ""
        text = (
            f'{{"stream":"{stream}","data":{{"e":"depthUpdate","E":{ms},{more}"s":"{self._symbol}",'
            f'"U":{first},"u":{self._update},{chain}"b":[{bids}],"a":[{asks}]}}}}'
        )
        return Event(due, stream, text.encode(), line)

    def _levels(self, prices: list[int], top: int, sizes: list[float], told: list[int]) -> str:
        lots = [top] + [1 + int(size * 10 * self._mean_lots) for size in sizes[1:]]
        levels = dict(zip(prices, lots, strict=False))
        # Size 0 takes away what was told before and is no more: else a reader's book would grow and cross.
        levels.update((price, 0) for price in told if price not in levels)
        return ",".join(f'["{self._price(price)}","{self._size(lot)}"]' for price, lot in levels.items())

    def _price(self, ticks: int) -> str:
        return f"{ticks * self._tick:.{self._price_places}f}"

    def _size(self, lots: int) -> str:
        return f"{lots * self._lot:.{self._size_places}f}"


def _places(step: Decimal) -> int:
    exponent = step.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _spec(index: int) -> SymbolSpec:
    name, price = _NAMES[index] if index < len(_NAMES) else (f"SYN{index + 1:03d}", 10.0 + index)
    # Six digits of price, and lots worth some cents to some tens of cents.
    tick = Decimal(1).scaleb(math.floor(math.log10(price)) - 5)
    lot = Decimal(1).scaleb(-math.floor(math.log10(price)) - 1)
    return SymbolSpec(name + "USDT", name, "USDT", tick, min(lot, Decimal(1)))


def _check(settings: SyntheticSettings) -> None:
    def need(condition: bool, field: str, detail: str) -> None:
        if not condition:
            raise BadInput(field, detail)

    rate = settings.ticks_per_s
    need(1 <= settings.symbols <= 500, "symbols", f"{settings.symbols}: use 1 to 500")
    need(0 < rate <= 1_000_000, "ticks_per_s", f"{rate:g}: use a number above 0, up to 1000000")
    need(0 <= settings.trade_share <= 1, "trade_share", f"{settings.trade_share:g}: use 0 to 1")
    need(0 <= settings.correlation <= 1, "correlation", f"{settings.correlation:g}: use 0 to 1")
    need(0 <= settings.volatility <= 0.1, "volatility", f"{settings.volatility:g}: use 0 to 0.1")
    need(0 <= settings.jumps_per_hour <= 3600, "jumps_per_hour", f"{settings.jumps_per_hour:g}: use 0 to 3600")
    need(1 <= settings.open_burst <= 1000, "open_burst", f"{settings.open_burst:g}: use 1 to 1000")
    need(0 < settings.burst_s <= 3600, "burst_s", f"{settings.burst_s:g}: use more than 0, up to 3600")
    need(0 <= settings.history_minutes <= 100_000, "history_minutes", "use 0 to 100000")
    need(settings.duration_s is None or settings.duration_s > 0, "duration_s", "use more than 0, or none")
    need(settings.seed >= 0, "seed", f"{settings.seed}: use 0 or more")
