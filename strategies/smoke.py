"""The smoke test: a submitted strategy over a small made-up market, by the runner that runs it live.  Pure.

It shows that the callbacks run, not that the strategy is any good.  The market is the same each time: a walk of a
minute in ticks, then of two hours in bars of a minute, in as many instruments as are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np

from strategies.base import Strategy
from strategies.loader import check_parameters
from strategies.runner import Runner
from strategies.simulate import SimulatedAccount, simulate
from trading.bars import Bar, interval_ns
from trading.errors import BadInput
from trading.ids import AccountId, AlgoId, InstrumentId, Nanos, instrument_id
from trading.instruments import Instrument
from trading.ticks import BUYER_MAKER, TickArray, TickBuffer, decode

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
#: A Wednesday at 14:00 UTC, at the full hour.
START: Final = Nanos(1_700_056_800 * _SECOND)
DEFAULT: Final = ("SMOKE:AAA", "SMOKE:BBB")
MOST_INSTRUMENTS: Final = 10
_TICKS: Final = 600
_BARS: Final = 120
#: Bars that a strategy may ask for to warm up.
_MOST_HISTORY: Final = 5_000


class SmokeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried, and what the strategy did.  ``skipped``: why it was not tried, "" where it was."""

    skipped: str = ""
    instruments: tuple[str, ...] = ()
    ticks: int = 0
    bars: int = 0
    orders: int = 0
    fills: int = 0
    log_lines: int = 0


def smoke(
    strategy_class: type[Strategy[Any]], parameters: Mapping[str, Any], instruments: Sequence[str] = ()
) -> SmokeReport:
    """Run a strategy over the made-up market.

    Raises `BadInput`: for ``parameters.<name>`` that do not fit, for ``smoke`` with the end of the traceback where a
    callback raised.  Where a parameter has no default and is not given, nothing is tried and the report says so.
    """
    missing = sorted(
        name
        for name, field in strategy_class.Parameters.model_fields.items()
        if field.is_required() and name not in parameters and field.alias not in parameters
    )
    if missing:
        return SmokeReport(skipped=f"parameter {', '.join(missing)} has no default: give parameters to have it tried")
    check_parameters(strategy_class, parameters)
    names = tuple(instruments) or DEFAULT
    if len(names) > MOST_INSTRUMENTS:
        raise BadInput("instruments", f"{len(names)} are too many to try it with; name at most {MOST_INSTRUMENTS}")
    market = [_instrument(name, number) for number, name in enumerate(names, 1)]
    before = _history(strategy_class, parameters, market)
    ticks = _ticks(market)
    bars = {each.id: _bars(each.number, _MINUTE, _BARS, START) for each in market}
    account = SimulatedAccount(cash=Decimal(1_000_000), latency_ms=5.0)
    runs = [
        simulate(strategy_class, parameters, data, market, account, history=before)
        for data in (ticks, dict(bars.items()))
    ]
    for run, of in zip(runs, ("ticks", "bars"), strict=True):
        if run.failed:
            raise BadInput(
                "smoke",
                f"it raised over made-up {of} of {', '.join(names)}: {_end_of(run.failed)}; mend it, name the "
                "instruments or give the parameters that it needs, or submit it without this test",
            )
    return SmokeReport(
        instruments=names,
        ticks=len(ticks),
        bars=_BARS * len(market),
        orders=sum(len(run.orders) for run in runs),
        fills=sum(len(run.fills) for run in runs),
        log_lines=sum(len(run.log) for run in runs),
    )


def _end_of(traceback_text: str) -> str:
    """The end of a traceback: the last place, and what was raised."""
    lines = [line.strip() for line in traceback_text.strip().splitlines()]
    last = max((n for n, line in enumerate(lines) if line.startswith("File ")), default=0)
    return " | ".join(line for line in lines[last:] if line.strip("~^ "))[:1500]


def _instrument(name: str, number: int) -> Instrument:
    id = instrument_id(name, "instruments")
    return Instrument(
        id=id,
        provider_symbol=id.partition(":")[2],
        provider="smoke",
        tick_size=Decimal("0.01"),
        lot_size=Decimal("0.001"),
        currency="USD",
        number=number,
    )


def _history(
    strategy_class: type[Strategy[Any]], parameters: Mapping[str, Any], market: Sequence[Instrument]
) -> dict[tuple[InstrumentId, str], Sequence[Bar]]:
    """The closed bars that it wants to begin with."""
    runner = Runner(strategy_class, parameters, AlgoId("smoke"), AccountId("smoke"), market)
    if runner.failed is not None:
        raise BadInput("smoke", f"set_up raised: {_end_of(runner.failed.traceback_text)}")
    return {
        (each.id, interval): _bars(
            each.number,
            interval_ns(interval),
            min(count, _MOST_HISTORY),
            Nanos(START - min(count, _MOST_HISTORY) * interval_ns(interval)),
        )
        for interval, count in runner.wanted_history().items()
        for each in market
    }


def _walk(number: int, steps: int) -> list[float]:
    """Prices about 100 that swing, so that what waits for a turn gets one."""
    random = np.random.default_rng(number)
    swing = np.sin(np.arange(steps) / max(steps / 8, 1.0)) * 0.02
    return [round(100 * number * (1 + s + r), 2) for s, r in zip(swing, random.normal(0, 5e-4, steps), strict=True)]


def _ticks(market: Sequence[Instrument]) -> TickArray:
    buffer = TickBuffer()
    walks = {each.number: _walk(each.number, _TICKS) for each in market}
    for i in range(_TICKS):
        at = START + i * _SECOND // 10
        for number, walk in walks.items():
            price = walk[i]
            if i % 2:
                buffer.trade(number, price, 1.0 + i % 5, BUYER_MAKER * (i // 2 % 2), at, at, i)
            else:
                buffer.quote(number, round(price - 0.01, 2), 5.0, round(price + 0.01, 2), 6.0, 0, at, at, i)
    return decode(buffer.take())


def _bars(number: int, length: int, count: int, start: Nanos) -> list[Bar]:
    walk = _walk(number, 4 * count)
    return [
        Bar(
            opened_at=Nanos(start + i * length),
            open=(part := walk[4 * i : 4 * i + 4])[0],
            high=max(part),
            low=min(part),
            close=part[3],
            volume=10.0,
            trades=4,
        )
        for i in range(count)
    ]
