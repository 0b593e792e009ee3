"""Connectors by name.  Each is imported when it is first asked for, so a process loads only what it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from connectors.base import Broker, Clock, MarketData, PaperAccount
from connectors.paper.ledger import PaperLedger
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, Epoch, InstrumentId
from trading.instruments import Instrument


def _binance_spot(settings: Mapping[str, Any]) -> MarketData:
    from connectors.binance.market import BinanceMarket
    from connectors.binance.product import SPOT

    return BinanceMarket(SPOT, settings)


def _binance_usdm(settings: Mapping[str, Any]) -> MarketData:
    from connectors.binance.market import BinanceMarket
    from connectors.binance.product import USDM

    return BinanceMarket(USDM, settings)


def _paper(
    account: AccountId,
    settings: Mapping[str, Any],
    instruments: Mapping[InstrumentId, Instrument],
    ledger: PaperLedger,
    epoch: Epoch,
    clock: Clock,
) -> Broker:
    from connectors.paper.broker import PaperBroker, check_settings

    known = {field.name for field in msgspec.structs.fields(PaperAccount)}
    for name in settings:
        if name not in known:
            raise BadInput(name, f"a paper account has no such setting: use {', '.join(sorted(known))}")
    try:
        chosen = msgspec.convert(dict(settings), PaperAccount, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput("settings", str(error)) from error
    check_settings(chosen)
    return PaperBroker(account, chosen, instruments, ledger, epoch, clock)


_PROVIDERS: Final[dict[str, Callable[[Mapping[str, Any]], MarketData]]] = {
    "binance-spot": _binance_spot,
    "binance-usdm": _binance_usdm,
}

_BROKERS: Final[dict[str, Callable[..., Broker]]] = {"paper": _paper}


def providers() -> tuple[str, ...]:
    """Names of the market data providers."""
    return tuple(_PROVIDERS)


def brokers() -> tuple[str, ...]:
    """Names of the brokers."""
    return tuple(_BROKERS)


def market_data(provider: str, settings: Mapping[str, Any]) -> MarketData:
    """A market data provider; {} means its public servers.

    Raises `UnknownThing` for a name that is not registered, `BadInput` for settings it does not take.
    """
    factory = _PROVIDERS.get(provider)
    if factory is None:
        raise UnknownThing("provider", provider, f"use one of {', '.join(_PROVIDERS)}")
    return factory(settings)


def broker(
    name: str,
    account: AccountId,
    settings: Mapping[str, Any],
    instruments: Mapping[InstrumentId, Instrument],
    ledger: PaperLedger,
    epoch: Epoch,
    clock: Clock,
) -> Broker:
    """A connection of ``account`` to a broker; `connect` it.  Only the paper broker uses ``ledger``.

    Raises `UnknownThing` for a name that is not registered, `BadInput` for settings it does not take.
    """
    factory = _BROKERS.get(name)
    if factory is None:
        raise UnknownThing("broker", name, f"use one of {', '.join(_BROKERS)}")
    return factory(account, settings, instruments, ledger, epoch, clock)
