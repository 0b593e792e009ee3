"""What ``POST /simulator/<command>`` does to the simulator, each with a JSON object.

``start`` {moving}; ``trade`` {instrument, price, size}; ``book`` {instrument, bids, asks: [[price, size, orders]]};
``drop`` cuts all tickers; ``mute`` keeps them open and sends nothing more, heartbeats neither; ``logout`` ends all
access tokens; ``delist`` {instrument}; ``raw`` {hex} sends bytes as a binary message; ``text`` {type, data}.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from connectors.kite.simulated_login import LogIn, Refusal
from connectors.kite.simulated_market import Listing, SimulatedMarket
from connectors.kite.simulated_wire import Line, Request
from trading.ids import Nanos

Wish = dict[str, Any]


class Ticker(Protocol):
    """A connection of the simulator."""

    key: str
    modes: dict[int, str]


class Controlled(Protocol):
    """What is controlled."""

    market: SimulatedMarket
    log_ins: dict[str, LogIn]
    is_moving: bool
    counts: Counter[str]

    @property
    def tickers(self) -> Mapping[Line, Ticker]:
        """Open tickers."""

    def clock(self) -> Nanos:
        """The time."""

    def changed(self, listing: Listing) -> None:
        """An instrument has changed."""

    def text(self, line: Line, kind: str, data: Any) -> None:
        """Send a text message."""


class Controls:
    """The controls of one simulator."""

    def __init__(self, simulator: Controlled) -> None:
        self._simulator = simulator
        self._commands: Final[dict[str, Callable[[Wish], Any]]] = {
            "start": self._start,
            "trade": self._trade,
            "book": self._book,
            "drop": lambda wish: self._each(Line.abort),
            "mute": lambda wish: self._each(Line.mute),
            "logout": self._logout,
            "delist": lambda wish: simulator.market.expire(wish["instrument"]),
            "raw": lambda wish: self._each(lambda line: line.send(bytes.fromhex(wish["hex"]))),
            "text": lambda wish: self._each(lambda line: simulator.text(line, str(wish["type"]), wish.get("data"))),
        }

    def answer(self, request: Request) -> Any:
        """Do what is asked; returns what to say.  Raises `Refusal`."""
        name = request.path.removeprefix("/simulator/")
        if request.method == "GET" and name == "stats":
            return self.stats()
        command = self._commands.get(name)
        if request.method != "POST" or command is None:
            raise Refusal(404, "GeneralException", f"no such control: use {', '.join(self._commands)}")
        try:
            return command(msgspec.json.decode(request.body or b"{}", type=Wish))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise Refusal(400, "InputException", f"{name}: {type(error).__name__} {error}") from error

    def stats(self) -> dict[str, Any]:
        """What ``GET /simulator/stats`` answers."""
        return {
            "tickers": [
                {"key": each.key, "tokens": len(each.modes), "modes": Counter(each.modes.values())}
                for each in self._simulator.tickers.values()
            ],
            "counts": dict(sorted(self._simulator.counts.items())),
        }

    def _start(self, wish: Wish) -> None:
        self._simulator.is_moving = bool(wish.get("moving", True))

    def _logout(self, wish: Wish) -> None:
        for log_in in self._simulator.log_ins.values():
            log_in.end()

    def _trade(self, wish: Wish) -> None:
        listing = self._simulator.market.by_id[wish["instrument"]]
        size = int(wish.get("size", listing.lot))
        listing.trade(_price(wish["price"], listing), size, self._simulator.clock())
        self._simulator.changed(listing)

    def _book(self, wish: Wish) -> None:
        listing = self._simulator.market.by_id[wish["instrument"]]
        bids, asks = (
            [(_price(price, listing), int(size), int(orders)) for price, size, orders in wish.get(side, [])[:5]]
            for side in ("bids", "asks")
        )
        listing.show(bids, asks, self._simulator.clock())
        self._simulator.changed(listing)

    def _each(self, act: Callable[[Line], None]) -> int:
        lines = list(self._simulator.tickers)
        for line in lines:
            act(line)
        return len(lines)


def _price(given: Any, listing: Listing) -> int:
    price = float(given)
    if not math.isfinite(price) or not 0 < round(price * listing.scale) < 1 << 32:
        raise ValueError(f"price {given}")
    return round(price * listing.scale)
