"""Connectors by name.  Each is imported when it is first asked for, so a process loads only what it uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from connectors.base import Broker, Clock, MarketData, PaperAccount, paper_capabilities
from connectors.paper.ledger import PaperLedger
from trading.amounts import FORM, is_amount
from trading.broker import Capabilities
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, Epoch, InstrumentId
from trading.instruments import Instrument


def _binance_spot(settings: Mapping[str, Any], credentials: Mapping[str, str]) -> MarketData:
    from connectors.binance.market import BinanceMarket
    from connectors.binance.product import SPOT

    return BinanceMarket(SPOT, settings)


def _binance_usdm(settings: Mapping[str, Any], credentials: Mapping[str, str]) -> MarketData:
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
    credentials: Mapping[str, str],
) -> Broker:
    from connectors.paper.broker import PaperBroker, check_settings

    chosen = _paper_settings(settings)
    check_settings(chosen)
    return PaperBroker(account, chosen, instruments, ledger, epoch, clock)


def _paper_capabilities(settings: Mapping[str, Any]) -> Capabilities:
    return paper_capabilities(_paper_settings(settings))


def _paper_settings(settings: Mapping[str, Any]) -> PaperAccount:
    known = {field.name: field.type for field in msgspec.structs.fields(PaperAccount)}
    for name, value in settings.items():
        if name not in known:
            raise BadInput(name, f"a paper account has no such setting: use {', '.join(sorted(known))}")
        if known[name] is Decimal and isinstance(value, str) and not is_amount(value):
            raise BadInput(name, f"{value[:40]!r} is not a number; {FORM}")
    try:
        return msgspec.convert(dict(settings), PaperAccount, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput("settings", str(error)) from error


def _alpaca(
    account: AccountId,
    settings: Mapping[str, Any],
    instruments: Mapping[InstrumentId, Instrument],
    ledger: PaperLedger,
    epoch: Epoch,
    clock: Clock,
    credentials: Mapping[str, str],
) -> Broker:
    from connectors.alpaca.orders import AlpacaBroker

    return AlpacaBroker(account, settings, credentials, clock)


def _alpaca_capabilities(settings: Mapping[str, Any]) -> Capabilities:
    from connectors.alpaca.capabilities import capabilities

    return capabilities(settings)


def _alpaca_market(settings: Mapping[str, Any], credentials: Mapping[str, str]) -> MarketData:
    from connectors.alpaca.market import AlpacaMarket

    return AlpacaMarket(settings, credentials)


def _kite_market(settings: Mapping[str, Any], credentials: Mapping[str, str]) -> MarketData:
    from connectors.kite.market import KiteMarket

    return KiteMarket(settings, credentials)


_PROVIDERS: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], MarketData]]] = {
    "binance-spot": _binance_spot,
    "binance-usdm": _binance_usdm,
    "alpaca": _alpaca_market,
    "kite": _kite_market,
}

_BROKERS: Final[dict[str, Callable[..., Broker]]] = {"paper": _paper, "alpaca": _alpaca}
_CAPABILITIES: Final[dict[str, Callable[[Mapping[str, Any]], Capabilities]]] = {
    "paper": _paper_capabilities,
    "alpaca": _alpaca_capabilities,
}
#: Names of the secrets that an account of a broker logs in with.
_SECRETS: Final[dict[str, tuple[str, ...]]] = {
    "alpaca": ("key", "secret"),
    "kite": ("api_key", "api_secret", "access_token"),
}


async def _kite_log_in(settings: Mapping[str, Any], credentials: Mapping[str, str]) -> dict[str, str]:
    from connectors.kite.login import finish

    return await finish(settings, credentials)


#: How what a person gives becomes what an account logs in with, where that is not the same.
_LOG_INS: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], Awaitable[dict[str, str]]]]] = {
    "kite": _kite_log_in
}


def providers() -> tuple[str, ...]:
    """Names of the market data providers."""
    return tuple(_PROVIDERS)


def brokers() -> tuple[str, ...]:
    """Names of the brokers."""
    return tuple(_BROKERS)


def market_data(provider: str, settings: Mapping[str, Any], credentials: Mapping[str, str] | None = None) -> MarketData:
    """A market data provider; {} means its public servers.  Without ``credentials`` it may lack what needs a log-in.

    The mapping may change while the provider lives: one whose tokens end each day looks into it for each log-in.

    Raises `UnknownThing` for a name that is not registered, `BadInput` for settings it does not take.
    """
    factory = _PROVIDERS.get(provider)
    if factory is None:
        raise UnknownThing("provider", provider, f"use one of {', '.join(_PROVIDERS)}")
    return factory(settings, credentials or {})


def secrets_of(broker_name: str) -> tuple[str, ...]:
    """What the secrets store must have of an account of this broker; () where it has no log-in."""
    return _SECRETS.get(broker_name, ())


def account_settings(name: str) -> dict[str, Any]:
    """What settings an account of this broker takes, as a JSON schema; raises `UnknownThing` for its name."""
    if name == "paper":
        return _schema(PaperAccount)
    if name == "alpaca":
        from connectors.alpaca.capabilities import AlpacaAccount

        return _schema(AlpacaAccount)
    if is_data_only(name):
        return feed_settings(name)
    raise UnknownThing("broker", name, f"use one of {', '.join(_BROKERS)}")


def feed_settings(name: str) -> dict[str, Any]:
    """What settings a feed of this provider takes, as a JSON schema; raises `UnknownThing` for its name."""
    if name in ("binance-spot", "binance-usdm"):
        from connectors.binance.market import MarketSettings as BinanceSettings

        return _schema(BinanceSettings)
    if name == "alpaca":
        from connectors.alpaca.capabilities import AlpacaData

        return _schema(AlpacaData)
    if name == "kite":
        from connectors.kite.market import MarketSettings as KiteSettings

        return _schema(KiteSettings)
    raise UnknownThing("provider", name, f"use one of {', '.join(_PROVIDERS)}")


def _schema(settings: type[msgspec.Struct]) -> dict[str, Any]:
    (found,), parts = msgspec.json.schema_components([settings], ref_template="#/{name}")
    name = found["$ref"].rpartition("/")[2]
    return {**parts[name], "additionalProperties": False}


def is_data_only(name: str) -> bool:
    """Whether an account there lends its log-in to feeds and cannot trade."""
    return name in _SECRETS and name not in _BROKERS


async def log_in(name: str, settings: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """The credentials to keep of those that were given; some brokers want a step of log-in finished first.

    Raises `NeedsOperator` where the broker refuses, `Unreachable` where it does not answer: ask a person for new ones.
    """
    finish = _LOG_INS.get(name)
    return dict(given) if finish is None else await finish(settings, given)


def capabilities(name: str, settings: Mapping[str, Any]) -> Capabilities:
    """What a broker can do for an account with these settings.

    Raises `UnknownThing` for a name that is not registered, `BadInput` for settings it does not take.
    """
    found = _CAPABILITIES.get(name)
    if found is None:
        raise UnknownThing("broker", name, f"use one of {', '.join(_BROKERS)}")
    return found(settings)


def broker(
    name: str,
    account: AccountId,
    settings: Mapping[str, Any],
    instruments: Mapping[InstrumentId, Instrument],
    ledger: PaperLedger,
    epoch: Epoch,
    clock: Clock,
    credentials: Mapping[str, str] | None = None,
) -> Broker:
    """A connection of ``account`` to a broker; `connect` it.  Only the paper broker uses ``ledger``.

    Raises `UnknownThing` for a name that is not registered, `BadInput` for settings it does not take.
    """
    factory = _BROKERS.get(name)
    if factory is None:
        raise UnknownThing("broker", name, f"use one of {', '.join(_BROKERS)}")
    return factory(account, settings, instruments, ledger, epoch, clock, credentials or {})
