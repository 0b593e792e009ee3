"""A strategy slower than its feed: the newest ticks only where it asks for that, and every one left out counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.deck import DeckUnderTest

pytestmark = pytest.mark.cluster

SLOW = '''
import time

from strategies import Strategy


class Slow(Strategy):
    """Takes its time over each batch."""

    conflate = True
    bars = ("1s",)

    def set_up(self):
        self.seen = self.traded = 0

    def on_ticks(self, ticks):
        self.seen += len(ticks)
        time.sleep(0.2)

    def on_bar(self, instrument, bar, interval):
        self.traded += bar.trades
        self.log(f"SEEN {self.seen} {self.traded}")
'''


def test_a_slow_strategy_sees_the_newest_and_what_it_did_not_see_is_counted(
    deck: DeckUnderTest, feed: str, alice: str
) -> None:
    deck.api.post("/strategies", {"name": "slow", "source": SLOW, "smoke": False})
    body = {"id": "slow", "strategy": "slow", "account": alice, "feed": feed, "instruments": ["BINANCE:BTCUSDT"],
            "parameters": {}, "start": True}  # fmt: skip
    deck.api.post("/algos", body)

    def live() -> dict[str, Any]:
        return dict(deck.api.get("/algos/slow").get("live") or {})

    deck.wait("ticks left out", lambda: live().get("conflated", 0) > 20, 60)

    def told() -> list[tuple[int, int]]:
        lines = [line["text"] for line in deck.api.get("/algos/slow/logs", limit=1000)["items"]]
        return [(int(words[1]), int(words[2])) for words in map(str.split, lines) if words[0] == "SEEN"]

    deck.wait("bars", lambda: len(told()) > 3, 30)
    deck.api.post("/algos/slow/stop")
    deck.wait("the stop", lambda: deck.api.get("/algos/slow")["state"] == "stopped", 40)
    final = live()
    seen, traded = max(told())
    assert final["batches_lost"] == 0
    assert seen <= final["ticks"] - final["conflated"] <= final["ticks"]
    # Bars are made of all trades, also those that it did not see.
    assert traded > 0
    assert final["conflated"] > final["ticks"] // 4
    deck.api.delete("/algos/slow")
