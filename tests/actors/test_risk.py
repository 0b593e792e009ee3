"""Central risk and the kill switch on a real deck."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support import orders
from tests.support.deck import DeckUnderTest
from tests.support.patience import PATIENCE
from trading.errors import NotReady, Refused, TradeError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
FEED = "risky"
_keys = itertools.count(1)


@pytest.fixture(scope="module")
def kay(deck: DeckUnderTest) -> str:
    """An account that pays one percent of all it trades."""
    deck.feed(FEED, deck.market, [BTC, ETH])
    return deck.account("kay", FEED, fee_bps="100")


@pytest.fixture(autouse=True)
def lifted(deck: DeckUnderTest, kay: str) -> Iterator[None]:
    """Leave no limit and no kill behind."""
    yield
    for kill in deck.api.get("/risk/kills"):
        if not kill["lifted_at"]:
            deck.api.post(f"/risk/kills/{kill['id']}/lift")
    for item in deck.api.get("/risk/limits", limit=1000)["items"]:
        if "kay" in item["scope"]:
            deck.api.put("/risk/limits", {k: item[k] for k in ("scope", "kind", "instrument")} | {"value": None})
    deck.wait("orders to pass again", lambda: not refusal(deck, kay, quantity="0.2"), 30)


def ask(deck: DeckUnderTest, account: str, **changes: Any) -> dict[str, Any]:
    """Place an order: a resting one far below the market, unless told otherwise."""
    order = {
        "account": account,
        "client_order_id": f"risk-{next(_keys)}",
        "instrument": BTC,
        "side": "buy",
        "type": "limit",
        "quantity": "0.01",
        "limit_price": "30000",
        "time_in_force": "gtc",
        **changes,
    }
    made: dict[str, Any] = deck.api.post("/orders", {k: v for k, v in order.items() if v is not None})
    return made


def market(deck: DeckUnderTest, account: str, side: str, quantity: str) -> dict[str, Any]:
    """Trade at once; returns the filled order."""
    return orders.filled(
        deck, lambda: ask(deck, account, side=side, type="market", quantity=quantity, limit_price=None)
    )


def level(deck: DeckUnderTest, scope: str) -> dict[str, Any]:
    """What central risk shows of a level ({} while it shows nothing)."""
    levels = deck.api.get("/risk/exposure", by=scope.partition(":")[0])["levels"]
    return next((dict(use) for use in levels if use["scope"] == scope), {})


def limit_of(deck: DeckUnderTest, scope: str, kind: str) -> dict[str, Any]:
    """A limit with its state."""
    items = deck.api.get("/risk/limits", limit=1000)["items"]
    return next(dict(item) for item in items if (item["scope"], item["kind"]) == (scope, kind))


def refusal(deck: DeckUnderTest, account: str, **changes: Any) -> str:
    """Why an order is refused; "" (and it is taken back) where it is not."""
    try:
        made = ask(deck, account, **changes)
    except (Refused, NotReady) as error:
        return str(error)
    try:
        deck.api.delete(f"/orders/{account}/{made['client_order_id']}")
    except TradeError as error:
        return f"could not be taken back: {error}"
    return ""


def flat(deck: DeckUnderTest, account: str) -> bool:
    return not deck.api.get("/positions", account=account)["items"]


def test_the_kill_switch_takes_back_closes_and_shows_the_proof(deck: DeckUnderTest, kay: str) -> None:
    for _ in range(5):
        ask(deck, kay)
    market(deck, kay, "buy", "0.02")
    thrown = deck.api.post("/risk/kill?wait_s=10", {"scope": "user:kay", "flatten": True, "reason": "a test"})
    path = f"/risk/kills/{thrown['id']}"
    thrown = deck.wait("the kill to be done", lambda: now if (now := deck.api.get(path))["done"] else None, 20)
    (shown,) = [each for each in thrown["accounts"] if each["account"] == kay]
    assert len(shown["cancelled"]) == thrown["cancelled"] == 5
    assert {order["state"] for order in shown["cancelled"]} == {"cancelled"}
    assert {order["state"] for order in shown["closing"] if not orders.is_passing(order["reason"])} == {"filled"}
    assert (shown["open_orders"], shown["positions"], thrown["silent"]) == (0, {}, [])
    print(f"cancels asked after {thrown['cancels_asked_ms']:.0f} ms, done after {thrown['took_ms']:.0f} ms")
    assert 0 < thrown["cancels_asked_ms"] < thrown["took_ms"] < 10_000 * PATIENCE
    assert flat(deck, kay)
    assert "halted is set on user:kay" in refusal(deck, kay)
    state = deck.wait(
        "the halt to hold everywhere",
        lambda: s if (s := limit_of(deck, "user:kay", "halted")["state"]) and s["holds"] else None,
    )
    assert state["waiting"] == []
    deck.api.post(f"/risk/kills/{thrown['id']}/lift")
    deck.wait("orders to pass again", lambda: not refusal(deck, kay), 20)


def test_a_kill_thrown_while_the_session_is_dead_is_carried_out_when_it_is_back(deck: DeckUnderTest, kay: str) -> None:
    for _ in range(3):
        made = ask(deck, kay)
        key = made["client_order_id"]
        deck.wait(f"{key} at the broker", lambda key=key: deck.order(kay, key)["state"] == "submitted", 20)
    # It stands still, so that the switch finds nobody; then it dies.
    pid = deck.kill("session/kay", number=signal.SIGSTOP)
    thrown = deck.api.post("/risk/kill?wait_s=0", {"scope": f"account:{kay}", "reason": "nobody is there"})
    assert thrown["silent"] == ["kay"]
    assert not thrown["done"]
    os.kill(pid, signal.SIGKILL)
    deck.wait_reborn("session/kay", pid)
    proof = deck.wait(
        "the kill to be done", lambda: p if (p := deck.api.get(f"/risk/kills/{thrown['id']}"))["done"] else None
    )
    assert (proof["cancelled"], proof["silent"]) == (3, [])
    assert "halted" in refusal(deck, kay)


def test_a_limit_below_what_is_used_is_taken_shown_and_only_reduced(deck: DeckUnderTest, kay: str) -> None:
    bought = market(deck, kay, "buy", "0.05")
    price = Decimal(bought["average_price"])
    held = 0.05 * float(price)
    deck.wait("the use to show", lambda: float(level(deck, "user:kay").get("gross", 0)) > held * 0.9)
    deck.api.put("/risk/limits", {"scope": "user:kay", "kind": "gross_exposure", "value": "1000"})
    state = deck.wait(
        "the limit to hold",
        lambda: s if (s := limit_of(deck, "user:kay", "gross_exposure")["state"]) and s["holds"] else None,
    )
    assert state["breached"]
    assert Decimal(state["used"]) > 1000
    assert state["since"]
    assert "gross_exposure" in refusal(deck, kay)
    market(deck, kay, "sell", "0.05")
    assert flat(deck, kay)


def test_a_days_loss_stops_entries_whatever_restarts_and_exits_pass(deck: DeckUnderTest, kay: str) -> None:
    market(deck, kay, "buy", "0.02")
    deck.wait("today's loss to show", lambda: Decimal(level(deck, f"account:{kay}").get("profit", "0")) < -10)
    deck.api.put("/risk/limits", {"scope": f"account:{kay}", "kind": "daily_loss", "value": "5"})
    said = deck.wait("the loss to bite", lambda: text if "daily_loss" in (text := refusal(deck, kay)) else "", 20)
    assert f"has reached the limit 5 of account:{kay}" in said
    for actor in ("session/kay", "risk/main"):
        pid = deck.kill(actor)
        deck.wait_reborn(actor, pid)
    said = deck.wait("an answer after the restarts", lambda: refusal(deck, kay), 30)
    assert any(words in said for words in ("daily_loss", "reconciled", "limits", "central risk")), said
    deck.wait("the loss to be remembered", lambda: "daily_loss" in refusal(deck, kay), 30)
    market(deck, kay, "sell", "0.02")
    assert flat(deck, kay)


def test_exposure_is_shown_level_by_level_and_its_maxima_are_kept(deck: DeckUnderTest, kay: str) -> None:
    market(deck, kay, "buy", "0.01")
    stop = ask(
        deck, kay, side="sell", type="stop", quantity="0.01", limit_price=None, stop_price="20000", time_in_force="gtc"
    )
    # Of the cluster there is no sum: others on it trade in other currencies.
    for scope in ("user:kay", f"account:{kay}"):
        deck.wait(f"{scope} to show it", lambda scope=scope: Decimal(level(deck, scope).get("gross") or "0") > 100)

    def counted() -> bool:
        """The stop alone: what was taken back a moment ago may still be among the orders that are told of."""
        mine = level(deck, f"account:{kay}")
        protected = 0 < Decimal(mine["money_at_risk"]) < Decimal(mine["gross"])
        return mine["open_orders"] == 1 and protected and Decimal(mine["long"]) == Decimal(mine["net"])

    deck.wait("the stop to count", counted)
    by_instrument = deck.api.get("/risk/exposure", by="instrument")["levels"]
    assert {u["instrument"] for u in by_instrument if u["scope"] == "user:kay"} >= {BTC}

    def sampled() -> bool:
        top = deck.api.get("/risk/maxima", days=2, scope=f"account:{kay}")
        whole = next((row for row in top if not row["instrument"]), None)
        return whole is not None and whole["open_orders"] >= 1 and Decimal(whole["gross"]) > 100

    deck.wait("the day's maxima", sampled, 20)
    deck.api.delete(f"/orders/{kay}/{stop['client_order_id']}")
    market(deck, kay, "sell", "0.01")
