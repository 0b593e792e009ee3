"""What Alpaca can do, and where it is reached.  No sockets: sessions ask this too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from trading.broker import Capabilities
from trading.errors import BadInput
from trading.orders import OrderType, TimeInForce

#: What the secrets store must have of an account.
SECRETS: Final = ("key", "secret")
_HOSTS: Final = {"paper": "https://paper-api.alpaca.markets", "live": "https://api.alpaca.markets"}
_DATA_HOST: Final = "https://data.alpaca.markets"
_DATA_STREAM_HOST: Final = "wss://stream.data.alpaca.markets"


class AlpacaAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an account at Alpaca; its key and secret are in the secrets store, never here."""

    environment: Literal["paper", "live"] = "paper"
    #: Another server, such as the simulator's ``http://127.0.0.1:9444``.
    base_url: str = ""
    #: Seconds within which a request must be answered; without an answer its outcome is unknown.
    timeout_s: float = 8.0

    @property
    def host(self) -> str:
        """Where the trading API is."""
        return (self.base_url or _HOSTS[self.environment]).rstrip("/")

    @property
    def stream_url(self) -> str:
        """Where the order stream is."""
        return "ws" + self.host.removeprefix("http") + "/stream"


class AlpacaData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a feed from Alpaca.  ``account`` names the account whose key is used."""

    account: str = ""
    environment: Literal["paper", "live"] = "paper"
    base_url: str = ""
    #: ``iex`` is one exchange, free; ``sip`` is all of them, with a subscription.
    feed: Literal["iex", "sip", "delayed_sip", "boats", "overnight"] = "iex"
    #: Symbols that the plan allows on one connection (30 on the free one).
    symbols: int = 30

    @property
    def trading_host(self) -> str:
        """Where assets are listed."""
        return (self.base_url or _HOSTS[self.environment]).rstrip("/")

    @property
    def host(self) -> str:
        """Where history is."""
        return (self.base_url or _DATA_HOST).rstrip("/")

    @property
    def stream_url(self) -> str:
        """Where ticks come from."""
        host = "ws" + self.base_url.removeprefix("http").rstrip("/") if self.base_url else _DATA_STREAM_HOST
        return f"{host}/v2/{self.feed}"


def account_settings(settings: Mapping[str, Any]) -> AlpacaAccount:
    """Settings of an account, checked.  Raises `BadInput`."""
    chosen: AlpacaAccount = _convert(settings, AlpacaAccount)
    _check_url(chosen.base_url)
    if not 0.1 <= chosen.timeout_s <= 60:
        raise BadInput("timeout_s", f"{chosen.timeout_s:g}: use 0.1 to 60 seconds")
    return chosen


def data_settings(settings: Mapping[str, Any]) -> AlpacaData:
    """Settings of a feed, checked.  Raises `BadInput`."""
    chosen: AlpacaData = _convert(settings, AlpacaData)
    _check_url(chosen.base_url)
    if not 1 <= chosen.symbols <= 100_000:
        raise BadInput("symbols", f"{chosen.symbols}: use 1 to 100000")
    return chosen


def capabilities(settings: Mapping[str, Any]) -> Capabilities:
    """What an account with these settings can do.

    200 requests a minute are for everything; orders may use four fifths, so that reports and look-ups find some left.
    """
    chosen = account_settings(settings)
    return Capabilities(
        order_types=frozenset(OrderType),
        times_in_force=frozenset(TimeInForce),
        native_modify=True,
        deduplicates=True,
        # A gateway may hold a request that nobody waits for any more.
        late_arrival_s=chosen.timeout_s + 2.0,
        orders_per_s=2.0,
        order_burst=40,
        trade_date_cash=True,
    )


def _convert(settings: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(dict(settings), kind)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise BadInput("settings", f"{error}; Alpaca knows {known}") from error


def _check_url(url: str) -> None:
    if url and not url.startswith(("http://", "https://")):
        raise BadInput("base_url", f"{url[:80]!r}: write http://host:port")
