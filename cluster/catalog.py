"""What there is to choose from: providers and their listings, brokers, strategies and their parameters.

The API asks here, since it reaches neither connectors nor strategies.  What users wrote is in `cluster.submissions`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from cluster.specs import DECK_SETTINGS, NUMBER_SETTINGS
from connectors import registry
from connectors.base import FeedLimits
from storage.database import Database
from storage.paper_ledger import PaperLedger
from storage.records import StrategyRecord
from strategies import loader
from trading.bars import Bar
from trading.credentials import flaw_in
from trading.errors import BadInput, NotReady, Unreachable
from trading.ids import AccountId, AlgoId, Epoch, Nanos
from trading.instruments import Instrument

#: Longest id of an algo: its orders' keys are ``<algo>-<n>`` and must fit 48 characters.
LONGEST_ALGO_ID: Final = 36
LISTING_S: Final = 30.0
#: Names that built-in strategies have.
BUILTIN: Final = frozenset(loader.BUILTIN)


async def feed_limits(provider: str, settings: Mapping[str, Any]) -> FeedLimits:
    """What a provider allows.  Raises `UnknownThing` for its name, `BadInput` for its settings."""
    market = registry.market_data(provider, settings)
    try:
        return market.limits
    finally:
        await market.close()


async def listing(
    provider: str, settings: Mapping[str, Any], credentials: Mapping[str, str] | None = None
) -> Sequence[Instrument]:
    """Everything a provider lists now, numbers unassigned; `NotReady` where it does not answer."""
    market = registry.market_data(provider, settings, credentials)
    try:
        async with asyncio.timeout(LISTING_S):
            return await market.instruments()
    except Unreachable as error:
        # Asking for a list has no outcome that could be unknown: it can simply be asked for again.
        raise NotReady(f"{provider} did not give its list of instruments: {error.detail}", 5.0) from error
    except TimeoutError:
        raise NotReady(f"{provider} did not give its list of instruments within {LISTING_S:g} s", 5.0) from None
    finally:
        await market.close()


async def history(
    provider: str,
    settings: Mapping[str, Any],
    credentials: Mapping[str, str],
    instrument: Instrument,
    interval: str,
    start: Nanos,
    end: Nanos,
) -> Sequence[Bar]:
    """Closed bars of a provider with ``start <= opened_at < end``; raises what `MarketData.history` does."""
    market = registry.market_data(provider, settings, credentials)
    try:
        return await market.history(instrument, interval, start, end)
    finally:
        await market.close()


def check_account(connector: str, account: AccountId, settings: Mapping[str, Any], *, enabled: bool = True) -> None:
    """Raise `UnknownThing` (broker) or `BadInput` (settings) unless such an account could connect."""
    if registry.is_data_only(connector):
        check_may_trade(connector, enabled)
        _data_account(connector, settings)
        return
    for field in NUMBER_SETTINGS:
        value = settings.get(field)
        if value is None and field not in settings:
            continue
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
        if field == "day_starts_at_h":
            if not 0 <= number < 24:
                raise BadInput(f"settings.{field}", f"{value!r} is not an hour of the day (UTC): use 0 to 23.99")
        elif field == "cash_tolerance":
            if not 0 <= number < 1e9:
                raise BadInput(f"settings.{field}", f"{value!r} is not a sum of money from 0")
        elif not 0 < number < 1e9:
            raise BadInput(f"settings.{field}", f"{value!r} is not a number above 0")
    if not isinstance(settings.get("feed", ""), str):
        raise BadInput("settings.feed", "give the id of a feed")
    own = {name: value for name, value in settings.items() if name not in DECK_SETTINGS}
    # Made and dropped: nothing connects before `connect`.
    ledger = PaperLedger(Database(""))
    try:
        registry.broker(connector, account, own, {}, ledger, Epoch(0), lambda: Nanos(time.time_ns()))
    except BadInput as error:
        field = error.field if error.field.startswith("settings") else f"settings.{error.field}"
        raise BadInput(field, error.detail) from error


def check_may_trade(connector: str, enabled: bool) -> None:
    """Raise `BadInput` where an account is to trade at a provider that only gives market data."""
    if enabled and registry.is_data_only(connector):
        raise BadInput("enabled", f"{connector} gives market data only: its account lends feeds its log-in, send false")


def _data_account(connector: str, settings: Mapping[str, Any]) -> None:
    # Made and dropped: nothing connects before it is asked.
    try:
        registry.market_data(connector, settings)
    except BadInput as error:
        raise BadInput(f"settings.{error.field.removeprefix('settings.')}", error.detail) from error


async def finish_log_in(connector: str, settings: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """The credentials to keep of those that were given: a token that works once is exchanged here.

    Raises `BadInput` for what no broker's key looks like, `NeedsOperator` or `Unreachable` where the broker does not
    give what it should.
    """
    for name, value in given.items():
        flaw = flaw_in(value) if value else None
        if flaw is not None:
            raise BadInput(f"credentials.{name}", flaw)
    try:
        async with asyncio.timeout(LISTING_S):
            return await registry.log_in(connector, settings, given)
    except TimeoutError:
        raise Unreachable(connector, f"the log-in was not finished within {LISTING_S:g} s") from None


def check_credentials(connector: str, credentials: Mapping[str, str], field: str = "credentials") -> None:
    """Raise `BadInput` unless ``credentials`` are what an account of this broker logs in with."""
    needed = registry.secrets_of(connector)
    for name in credentials:
        if name not in needed:
            takes = f"takes {' and '.join(needed)}" if needed else "takes none"
            raise BadInput(f"{field}.{name}", f"an account at {connector} {takes}")
    for name in needed:
        if not credentials.get(name, "").strip():
            raise BadInput(f"{field}.{name}", f"an account at {connector} logs in with it; it is missing or empty")


class Connector(msgspec.Struct, frozen=True, kw_only=True):
    """A broker, a provider of market data, or both; settings as JSON schemas, None where there is nothing to set."""

    name: str
    #: Whether accounts there can trade.
    trades: bool
    market_data: bool
    #: Names of what an account logs in with.
    credentials: tuple[str, ...]
    account_settings: dict[str, Any] | None
    feed_settings: dict[str, Any] | None


def connectors() -> list[Connector]:
    """All that there are, by name.  Loads every one's settings: not for a process that must stay small."""
    brokers, providers = set(registry.brokers()), set(registry.providers())
    found = []
    for each in sorted(brokers | providers):
        account = registry.account_settings(each) if each in brokers or registry.is_data_only(each) else None
        if account is not None and each in brokers:
            account = {**account, "properties": account["properties"] | _DECK_PROPERTIES}
        found.append(
            Connector(
                name=each,
                trades=each in brokers,
                market_data=each in providers,
                credentials=registry.secrets_of(each),
                account_settings=account,
                feed_settings=registry.feed_settings(each) if each in providers else None,
            )
        )
    return found


#: What the deck itself reads of an account's settings.
_DECK_PROPERTIES: Final[dict[str, Any]] = {
    "feed": {"type": "string", "default": "", "description": "Feed whose prices a paper account trades at"},
    **{each: {"type": "number"} for each in NUMBER_SETTINGS},
}


def needed_credentials(connector: str) -> tuple[str, ...]:
    """What an account of this broker logs in with; () where it has no log-in."""
    return registry.secrets_of(connector)


def check_algo_id(algo: str) -> AlgoId:
    """``algo`` if its orders' keys can be built from it; `BadInput` where it is too long."""
    if len(algo) > LONGEST_ALGO_ID:
        raise BadInput(
            "id",
            f"{algo[:60]!r} has {len(algo)} characters; use at most {LONGEST_ALGO_ID}, for the keys of its orders "
            "are made from it",
        )
    return AlgoId(algo)


def builtin_strategies() -> list[StrategyRecord]:
    """The strategies that come with this release, as they are registered."""
    return [_record(loader.load_builtin(name)) for name in loader.BUILTIN]


def _record(loaded: loader.LoadedStrategy) -> StrategyRecord:
    return StrategyRecord(
        name=loaded.name,
        version=loaded.version,
        entry=loaded.entry,
        builtin=True,
        schema=loaded.schema,
        created_at=Nanos(time.time_ns()),
    )


async def check_builtin_parameters(strategy: str, parameters: Mapping[str, Any]) -> None:
    """Raise `BadInput` naming the parameter unless a built-in strategy takes these."""
    loaded = await asyncio.to_thread(loader.load_builtin, strategy)
    loader.check_parameters(loaded.strategy_class, parameters)
