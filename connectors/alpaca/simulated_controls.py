"""The simulator's own resources, ``/simulator/…``: what is true, and how it shall behave.

``GET /simulator/ledger?since=`` and ``GET /simulator/stats`` look; ``POST /simulator/<command>`` with a JSON body acts:

* ``quote`` {symbol, bid, bid_size, ask, ask_size, silent}, ``trade`` {symbol, price, size, silent}: the market moves;
  ``silent``: what it fills only REST shows.
* ``hold`` and ``start``: the synthetic prices stop and go on.
* ``misbehave``: a rule for requests (`simulated_faults.Rule`); ``frames``: faults of the order stream
  (`simulated_faults.FrameFaults`); ``lag`` {lists_s, lookups_s, replace_s, cancel_s}; ``behave``: all that ends.
* ``limit`` {requests_per_minute}: a number, or null for none.
* ``drop`` {streams: orders, data or all}: cut WebSockets; ``refuse`` {seconds}: cut everything, and every line at its
  first word, controls excepted; ``garbage`` {text}: a frame to every order stream.
* ``order`` {account, symbol, qty, …}: an order placed by hand; ``cancel`` {account, order_id}.
* ``transfer`` {account, symbol, qty, price, cash}: shares and money come (below 0: go) without an order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from connectors.alpaca.simulated_market import Listing
from connectors.alpaca.simulated_wire import CONTROLS
from connectors.alpaca.venue import AlpacaVenue
from connectors.alpaca.venue_checks import Refusal, answer
from connectors.alpaca.wire import Request, Response, as_json
from trading.errors import BadInput
from trading.ids import Nanos
from trading.orders import Side

if TYPE_CHECKING:
    from connectors.alpaca.simulator import AlpacaSimulator

_SECOND: Final = 1_000_000_000


class Controls:
    """Carries out commands."""

    def __init__(self, simulator: AlpacaSimulator) -> None:
        self._simulator = simulator

    def answer(self, request: Request) -> Response:
        """Carry out a command."""
        name = request.path.removeprefix(CONTROLS)
        if request.method == "GET" and name == "stats":
            return answer(200, self._simulator.stats())
        if request.method == "GET" and name == "ledger":
            since = request.value("since") or "0"
            if not since.isdecimal():
                return answer(400, {"message": f"since: {since[:40]!r} is no time in UTC nanoseconds"})
            return answer(200, self._simulator.ledger(int(since)))
        commands: dict[str, Callable[[dict[str, Any]], Any]] = {
            "quote": self._do_quote,
            "trade": self._do_trade,
            "hold": self._do_hold,
            "start": self._do_start,
            "misbehave": lambda wish: msgspec.to_builtins(self._simulator.rules.add(wish)),
            "frames": lambda wish: msgspec.to_builtins(self._simulator.frames.set(wish)),
            "behave": self._do_behave,
            "lag": self._do_lag,
            "limit": self._do_limit,
            "drop": self._do_drop,
            "refuse": self._do_refuse,
            "garbage": self._do_garbage,
            "order": self._do_order,
            "cancel": self._do_cancel,
            "transfer": self._do_transfer,
        }
        command = commands.get(name)
        if command is None or request.method != "POST":
            return answer(404, {"message": f"no command {name!r}: POST one of {', '.join(commands)}"})
        try:
            done = command(msgspec.json.decode(request.body or b"{}", type=dict[str, Any]))
        except Refusal as refusal:
            return refusal.response
        except (msgspec.MsgspecError, BadInput, KeyError, TypeError, ValueError, ArithmeticError) as problem:
            return answer(400, {"message": f"{name}: {type(problem).__name__} {problem}"})
        self._simulator.push()
        return answer(200, done)

    def _do_quote(self, wish: dict[str, Any]) -> dict[str, Any]:
        now, listing = _wall_clock(), self._listing(wish)
        bid, ask = Decimal(str(wish["bid"])), Decimal(str(wish["ask"]))
        sizes = [Decimal(str(wish.get(side, 100))) for side in ("bid_size", "ask_size")]
        tick = listing.quote(bid, sizes[0], ask, sizes[1], now)
        listing.price = float((bid + ask) / 2)
        self._simulator.show(listing, tick, now, bool(wish.get("silent")))
        return {"quoted": listing.asset.symbol}

    def _do_trade(self, wish: dict[str, Any]) -> dict[str, Any]:
        now, listing = _wall_clock(), self._listing(wish)
        price, size = Decimal(str(wish["price"])), Decimal(str(wish.get("size", 100)))
        if not price.is_finite() or price <= 0:
            raise BadInput("price", f"{price} is no price")
        tick = listing.trade(price, size, now)
        self._simulator.show(listing, tick, now, bool(wish.get("silent")))
        return {"traded": listing.asset.symbol}

    def _do_hold(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._simulator.prices_go.clear()
        return {"held": True}

    def _do_start(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._simulator.prices_go.set()
        return {"started": True}

    def _do_behave(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._simulator.rules.clear()
        self._simulator.frames.set({})
        self._do_lag({})
        return {"behaving": True}

    def _do_lag(self, wish: dict[str, Any]) -> dict[str, Any]:
        lags = {name: float(wish.get(name, 0.0)) for name in ("lists_s", "lookups_s", "replace_s", "cancel_s")}
        for venue in self._simulator.venues.values():
            venue.list_lag = int(lags["lists_s"] * _SECOND)
            venue.lookup_lag = int(lags["lookups_s"] * _SECOND)
            venue.replace_takes = int(lags["replace_s"] * _SECOND)
            venue.cancel_takes = int(lags["cancel_s"] * _SECOND)
        return lags

    def _do_limit(self, wish: dict[str, Any]) -> dict[str, Any]:
        limit = wish["requests_per_minute"]
        for venue in self._simulator.venues.values():
            venue.requests_per_minute = None if limit is None else int(limit)
        return {"requests_per_minute": limit}

    def _do_drop(self, wish: dict[str, Any]) -> dict[str, Any]:
        which = wish.get("streams", "all")
        lines = [*self._simulator.order_streams] if which in ("orders", "all") else []
        lines += [*self._simulator.data_streams] if which in ("data", "all") else []
        for line in lines:
            line.abort()
        return {"dropped": len(lines)}

    def _do_refuse(self, wish: dict[str, Any]) -> dict[str, Any]:
        seconds = float(wish["seconds"])
        self._simulator.is_deaf = True
        loop = asyncio.get_running_loop()
        # After the answer to this very request has gone out.
        loop.call_later(0.01, self._cut_all)
        loop.call_later(seconds, self._hear)
        return {"refusing_s": seconds}

    def _cut_all(self) -> None:
        for line in list(self._simulator.lines):
            line.abort()

    def _hear(self) -> None:
        self._simulator.is_deaf = False

    def _do_garbage(self, wish: dict[str, Any]) -> dict[str, Any]:
        text = str(wish.get("text", "{not json")).encode()
        for stream in self._simulator.order_streams.values():
            stream.push(text)
        return {"sent": len(self._simulator.order_streams)}

    def _do_order(self, wish: dict[str, Any]) -> Any:
        venue = self._venue(wish.pop("account", None))
        response = venue.handle(Request("POST", "/v2/orders", body=as_json(wish)), _wall_clock())
        return msgspec.json.decode(response.body)

    def _do_cancel(self, wish: dict[str, Any]) -> Any:
        response = self._venue(wish.get("account")).handle(
            Request("DELETE", f"/v2/orders/{wish['order_id']}"), _wall_clock()
        )
        return {"status": response.status}

    def _do_transfer(self, wish: dict[str, Any]) -> Any:
        ledger = self._venue(wish.get("account")).ledger
        qty, cash = Decimal(str(wish.get("qty", 0))), Decimal(str(wish.get("cash", 0)))
        price = Decimal(str(wish.get("price", 1)))
        if not (qty.is_finite() and cash.is_finite() and price.is_finite() and price > 0):
            raise BadInput("transfer", "give numbers, and a price above 0")
        if qty:
            held = ledger.held(self._listing(wish).asset.symbol)
            held.apply(Side.BUY if qty > 0 else Side.SELL, abs(qty), price)
        ledger.cash += cash
        return {"cash": str(ledger.cash)}

    def _venue(self, number: str | None) -> AlpacaVenue:
        for key, account in self._simulator.accounts.items():
            if number in (None, account.number):
                return self._simulator.venues[key]
        raise BadInput(
            "account", f"{number} is not one of {', '.join(a.number for a in self._simulator.accounts.values())}"
        )

    def _listing(self, wish: dict[str, Any]) -> Listing:
        listing = self._simulator.market.listings.get(str(wish["symbol"]))
        if listing is None:
            raise BadInput("symbol", f"{wish['symbol']} is not one of {', '.join(self._simulator.market.listings)}")
        return listing


def _wall_clock() -> Nanos:
    return Nanos(time.time_ns())
