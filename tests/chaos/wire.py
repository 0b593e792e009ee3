"""Misbehaviour on the wire to a broker's simulator, and of the market's."""

from __future__ import annotations

import random
import time
from typing import Any, Protocol

import httpx

from tests.support.deck import Simulator


class Wire(Protocol):
    """What can be made to go wrong between the deck and the world."""

    def misbehave(self, chance: random.Random) -> str:
        """Begin one misbehaviour; says which, its first word naming the kind."""

    def heal(self) -> None:
        """End all of it."""


class MarketWire:
    """The market data of a Binance simulator."""

    def __init__(self, market: Simulator) -> None:
        self._market = market

    def misbehave(self, chance: random.Random) -> str:
        what = chance.choice(["drop", "garbage"])
        self._market.control(what)
        return f"market-{what} on the market data streams"

    def heal(self) -> None:
        """Nothing of it lasts."""


class AlpacaWire:
    """An Alpaca simulator: see `connectors.alpaca.simulated_controls`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def command(self, name: str, **body: Any) -> None:
        """One of its commands.  It may be refusing connections for a while: then once it takes them again."""
        until = time.monotonic() + 10
        while True:
            try:
                httpx.post(f"{self._url}/simulator/{name}", json=body, timeout=10).raise_for_status()
                return
            except httpx.TransportError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def misbehave(self, chance: random.Random) -> str:
        kind = chance.choice(["frames", "answers", "silence", "rejects", "lag", "slow", "drop", "refuse", "garbage"])
        return str(getattr(self, f"_{kind}")(chance))

    def heal(self) -> None:
        """Behave, and let nothing that was lost on the stream stay unseen: a stream that is cut is reconciled."""
        self.command("behave")
        self.command("drop", streams="orders")

    def _frames(self, chance: random.Random) -> str:
        faults = {"drop": 0.3, "duplicate": 0.3, "reorder": 0.4, "truncate": 0.05}
        chosen = {name: share for name, share in faults.items() if chance.random() < 0.6}
        delay = chance.choice([0.0, 0.2, 1.0])
        self.command("frames", **chosen, delay_s=delay, seed=chance.getrandbits(31))
        return f"frames {chosen} delayed by up to {delay:g} s"

    def _answers(self, chance: random.Random) -> str:
        status = chance.choice([429, 500, 502, 504, None, None])
        rule: dict[str, Any] = {"method": chance.choice(["POST", "PATCH", "DELETE", ""]), "times": chance.randint(1, 8)}
        rule["effect"] = chance.random() < 0.5
        if status is not None:
            rule["status"] = status
        elif chance.random() < 0.5:
            rule["no_answer" if chance.random() < 0.4 else "reset"] = True
            rule["effect"] = True
        else:
            rule["cut"] = chance.randint(0, 60)
            rule["effect"] = True
        self.command("misbehave", **rule)
        return f"answers {rule}"

    def _silence(self, chance: random.Random) -> str:
        times = chance.randint(2, 15)
        self.command("misbehave", silent=True, times=times)
        return f"silence about what {times} requests cause: only REST shows it"

    def _rejects(self, chance: random.Random) -> str:
        times = chance.randint(1, 6)
        self.command("misbehave", method="POST", rejects=True, times=times)
        return f"rejects {times} orders after accepting them"

    def _lag(self, chance: random.Random) -> str:
        seconds = round(chance.uniform(0.2, 1.5), 2)
        takes = {"replace_s": chance.choice([0, 0.3]), "cancel_s": chance.choice([0, 0.3])}
        self.command("lag", lists_s=seconds, lookups_s=seconds, **takes)
        return f"lag of lists and look-ups of {seconds:g} s"

    def _slow(self, chance: random.Random) -> str:
        delay = round(chance.uniform(0.2, 3.0), 2)
        self.command("misbehave", delay_s=delay, times=chance.randint(2, 10))
        return f"slow answers, {delay:g} s late"

    def _drop(self, chance: random.Random) -> str:
        which = chance.choice(["orders", "data", "all"])
        self.command("drop", streams=which)
        return f"drop of streams ({which})"

    def _refuse(self, chance: random.Random) -> str:
        seconds = round(chance.uniform(0.5, 2.5), 2)
        self.command("refuse", seconds=seconds)
        return f"refuse connections for {seconds:g} s"

    def _garbage(self, chance: random.Random) -> str:
        text = chance.choice(["{not json", '{"stream":"trade_updates","data":{"event":"dance"}}', "\x00\x01", "[]"])
        self.command("garbage", text=text)
        return f"garbage on the order stream: {text!r}"


class AllWires:
    """One of several, by chance."""

    def __init__(self, wires: list[tuple[float, Wire]]) -> None:
        self._wires = wires

    def misbehave(self, chance: random.Random) -> str:
        (wire,) = chance.choices([w for _, w in self._wires], [share for share, _ in self._wires])
        return wire.misbehave(chance)

    def heal(self) -> None:
        for _, wire in self._wires:
            wire.heal()
