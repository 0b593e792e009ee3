"""Algos on real nodes: good ones trade, bad ones fail alone and say why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.books import settle
from tests.support.deck import SECOND_NODE, DeckUnderTest
from trading.errors import Refused

pytestmark = pytest.mark.cluster

RAISES = '''
from strategies import Strategy


class Raises(Strategy):
    """Raises at its tenth tick; before the first it knows the last ones."""

    def on_start(self):
        self.seen = 0
        last = self.last(self.instruments[0])
        self.log(f"LAST {last.price} {last.bid} {last.ask} {self.now - last.received_at}")

    def on_tick(self, tick):
        self.seen += 1
        if self.seen == 10:
            raise RuntimeError("the tenth tick was too much")
'''

BLOCKS = '''
import time

from strategies import Strategy


class Blocks(Strategy):
    """Blocks its loop for a while at its first tick."""

    def on_start(self):
        self.done = False

    def on_tick(self, tick):
        if not self.done:
            self.done = True
            time.sleep(15)
'''

EATS = """
from strategies import Strategy


class Eats(Strategy):
    def on_start(self):
        self.log("hungry")
        self.hoard = b"x" * (600 << 20)
"""

RESTS_THEN_HANGS = """
import time

from strategies import Strategy


class RestsThenHangs(Strategy):
    def set_up(self):
        self.mine = None

    def on_tick(self, tick):
        if tick.is_trade and self.mine is None:
            size = tick.instrument.round_quantity(50 / tick.price)
            self.mine = self.buy(tick.instrument, size, limit=tick.instrument.round_price(tick.price * 0.9))

    def on_order(self, order):
        if order.state == "submitted":
            time.sleep(600)
"""

MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}


def make(deck: DeckUnderTest, name: str, strategy: str, account: str, **more: Any) -> None:
    """Create and start an algo."""
    body = {
        "id": name,
        "strategy": strategy,
        "account": account,
        "feed": "main",
        "instruments": ["BINANCE:BTCUSDT"],
        "parameters": {},
        "start": True,
        **more,
    }
    deck.api.post("/algos", body)


def algo(deck: DeckUnderTest, name: str) -> dict[str, Any]:
    return dict(deck.api.get(f"/algos/{name}"))


def remove(deck: DeckUnderTest, name: str) -> None:
    """Stop and delete an algo."""
    deck.api.post(f"/algos/{name}/stop")
    deck.wait(f"{name} stopped", lambda: algo(deck, name)["state"] in ("stopped", "failed"), 40)
    deck.wait(
        f"no process of {name}",
        lambda: not any(a["name"].startswith(f"algo/{name}/") for a in deck.api.get("/cluster")["actors"]),
        40,
    )
    deck.api.delete(f"/algos/{name}")


def test_a_market_maker_trades_on_the_second_node_stops_and_starts_again(deck: DeckUnderTest, alice: str) -> None:
    make(deck, "maker", "market-maker", alice, node=SECOND_NODE, parameters=MAKER)

    def trades() -> dict[str, Any] | None:
        now = algo(deck, "maker")
        return now if now["state"] == "running" and (now["live"] or {}).get("fills", 0) > 0 else None

    shown = deck.wait("fills of a running algo", trades, 60)
    assert shown["live"]["node"] == SECOND_NODE
    assert shown["live"]["tick_to_strategy_ms"]["p50"] > 0
    deck.api.post("/algos/maker/stop")
    deck.wait("the stop", lambda: algo(deck, "maker")["state"] == "stopped", 40)
    still_open = (
        "SELECT count(*) FROM orders WHERE algo = 'maker' "
        "AND state IN ('pending', 'submitted', 'partially_filled', 'unknown')"
    )
    deck.wait("the end of its orders", lambda: deck.rows(still_open) == [(0,)], 20)
    settle(deck, alice)
    before = deck.rows("SELECT count(*) FROM orders WHERE algo = 'maker'")[0][0]
    deck.api.post("/algos/maker/start")
    deck.wait(
        "new orders after the restart",
        lambda: deck.rows("SELECT count(*) FROM orders WHERE algo = 'maker'")[0][0] > before,
        60,
    )
    remove(deck, "maker")
    settle(deck, alice)


def test_a_strategy_that_eats_memory_is_ended_and_says_what_it_took(deck: DeckUnderTest, alice: str) -> None:
    deck.api.post("/strategies", {"name": "eats", "source": EATS, "smoke": False})
    make(deck, "glutton", "eats", alice, placement={"memory_mb": 500})
    deck.wait("its end", lambda: algo(deck, "glutton")["state"] == "failed", 60)
    assert "500 are allowed it" in algo(deck, "glutton")["reason"]
    remove(deck, "glutton")


def test_a_strategy_knows_the_last_values_at_its_start_and_fails_alone_with_its_traceback(
    deck: DeckUnderTest, alice: str, bob: str
) -> None:
    deck.api.post("/strategies", {"name": "raises", "source": RAISES, "smoke": False})
    make(deck, "good", "market-maker", bob, parameters=MAKER)
    make(deck, "bad", "raises", alice)
    deck.wait("the failure", lambda: algo(deck, "bad")["state"] == "failed", 60)
    assert "the tenth tick was too much" in algo(deck, "bad")["reason"]

    def logged() -> str:
        return "\n".join(line["text"] for line in deck.api.get("/algos/bad/logs", limit=100)["items"])

    # The failure may be known a moment before its log is written.
    text = deck.wait("the traceback", lambda: found if "Traceback" in (found := logged()) else "", 10)
    assert "RuntimeError: the tenth tick was too much" in text
    price, bid, ask, age = map(float, text.partition("LAST ")[2].splitlines()[0].split(" "))
    assert price > 0
    assert 0 < bid < ask
    assert age < 10e9
    deck.wait("the other one still running", lambda: algo(deck, "good")["state"] == "running", 30)
    remove(deck, "good")
    remove(deck, "bad")


def test_a_strategy_that_blocks_its_loop_is_shown_so(deck: DeckUnderTest, alice: str) -> None:
    deck.api.post("/strategies", {"name": "blocks", "source": BLOCKS, "smoke": False})
    make(deck, "stuck", "blocks", alice)
    deck.wait("the word 'blocked'", lambda: "blocked" in algo(deck, "stuck")["reason"], 60)
    deck.wait("the end of it", lambda: algo(deck, "stuck")["reason"] == "", 60)
    remove(deck, "stuck")


def test_an_algo_that_hangs_for_ever_leaves_no_order_open_when_it_is_stopped(deck: DeckUnderTest, alice: str) -> None:
    deck.api.post("/strategies", {"name": "rests-then-hangs", "source": RESTS_THEN_HANGS, "smoke": False})
    make(deck, "hung", "rests-then-hangs", alice)
    deck.wait("the word 'blocked'", lambda: "blocked" in algo(deck, "hung")["reason"], 60)
    assert states(deck, "hung") == ["submitted"]
    remove(deck, "hung")
    deck.wait("the cancel", lambda: states(deck, "hung") == ["cancelled"], 20)


def states(deck: DeckUnderTest, name: str) -> list[str]:
    """States of all orders of an algo."""
    return [o["state"] for o in deck.api.get("/orders", algo=name)["items"]]


def test_bad_strategies_and_algos_are_refused_by_name_and_field(deck: DeckUnderTest, alice: str) -> None:
    with pytest.raises(Refused, match="line 3"):
        deck.api.post("/strategies", {"name": "broken", "source": "x = 1\ny = 2\ndef f(:\n"})
    with pytest.raises(Refused, match="no-such-strategy"):
        make(deck, "never", "no-such-strategy", alice)
    with pytest.raises(Refused, match="no-such-node"):
        make(deck, "never", "market-maker", alice, node="no-such-node")
    with pytest.raises(Refused, match="half_spread_bps"):
        make(deck, "never", "market-maker", alice, parameters={"half_spread_bps": "wide"})
    with pytest.raises(Refused, match="BINANCE:XRPUSDT"):
        make(deck, "never", "market-maker", alice, instruments=["BINANCE:XRPUSDT"])
    assert "never" not in {a["id"] for a in deck.api.get("/algos", limit=1000)["items"]}


def test_changed_parameters_take_effect_by_a_new_incarnation(deck: DeckUnderTest, bob: str) -> None:
    make(deck, "tuned", "market-maker", bob, parameters=MAKER)
    deck.wait("it running", lambda: algo(deck, "tuned")["state"] == "running", 60)
    epoch = algo(deck, "tuned")["epoch"]
    deck.api.patch("/algos/tuned", {"parameters": {**MAKER, "allow_short": False}})
    deck.wait(
        "a new epoch running",
        lambda: algo(deck, "tuned")["epoch"] > epoch and algo(deck, "tuned")["state"] == "running",
        60,
    )
    assert algo(deck, "tuned")["parameters"]["allow_short"] is False
    remove(deck, "tuned")
    settle(deck, bob)
