"""Orders through the whole system: API, session, risk, journal, connection, paper broker, and back."""

from __future__ import annotations

import itertools
import time
from decimal import Decimal
from typing import Any

import pytest

from tests.support import orders
from tests.support.books import settle
from tests.support.deck import DeckUnderTest
from trading.errors import Refused

pytestmark = pytest.mark.cluster

BTC = "BINANCE:BTCUSDT"
_keys = itertools.count(1)


def limit_order(account: str, **changes: Any) -> dict[str, Any]:
    """A resting order far below the market."""
    order = {
        "account": account,
        "client_order_id": f"t-{next(_keys)}",
        "instrument": BTC,
        "side": "buy",
        "type": "limit",
        "quantity": "0.01",
        "limit_price": "30000",
        "time_in_force": "gtc",
    }
    return {**order, **changes}


def wait_state(deck: DeckUnderTest, order: dict[str, Any], *states: str) -> dict[str, Any]:
    """Wait until an order is in one of ``states``; returns it."""

    def found() -> dict[str, Any] | None:
        now = deck.order(order["account"], order["client_order_id"])
        return now if now["state"] in states else None

    result: dict[str, Any] = deck.wait(f"order {order['client_order_id']} in {states}", found, 20)
    return result


def test_a_resting_order_is_placed_changed_and_cancelled(deck: DeckUnderTest, alice: str) -> None:
    placed = limit_order(alice)
    made = deck.api.post("/orders", placed)
    assert made["state"] in ("pending", "submitted")
    wait_state(deck, placed, "submitted")
    path = f"/orders/{alice}/{placed['client_order_id']}"
    deck.api.patch(path, {"quantity": "0.02", "limit_price": "31000"})
    deck.wait("the change", lambda: Decimal(deck.api.get(path)["limit_price"]) == 31000, 20)
    assert Decimal(deck.api.get(path)["quantity"]) == Decimal("0.02")
    deck.api.delete(path)
    ended = wait_state(deck, placed, "cancelled")
    kinds = [event["kind"] for event in ended["events"]]
    assert kinds[:2] == ["pending", "submitted"]
    assert kinds[-1] == "cancelled"
    assert {"modify_requested", "modified", "cancel_requested"} <= set(kinds)
    settle(deck, alice)


def test_a_market_order_fills_and_makes_a_position_that_equals_the_brokers(deck: DeckUnderTest, alice: str) -> None:
    before = {
        p["instrument"]: Decimal(p["quantity"]) for p in deck.api.get("/positions")["items"] if p["account"] == alice
    }

    def at_market(**more: Any) -> dict[str, Any]:
        order = limit_order(alice, type="market", quantity="0.003", limit_price=None, **more)
        made: dict[str, Any] = deck.api.post("/orders", {k: v for k, v in order.items() if v is not None})
        return made

    filled = orders.filled(deck, at_market)
    assert Decimal(filled["filled_quantity"]) == Decimal("0.003")
    assert Decimal(filled["average_price"]) > 0
    settle(deck, alice)
    after = {
        p["instrument"]: Decimal(p["quantity"]) for p in deck.api.get("/positions")["items"] if p["account"] == alice
    }
    assert after[BTC] == before.get(BTC, Decimal(0)) + Decimal("0.003")
    orders.filled(deck, lambda: at_market(side="sell", reduce_only=True))
    settle(deck, alice)


def test_the_same_key_acts_once(deck: DeckUnderTest, alice: str) -> None:
    order = limit_order(alice)
    first = deck.api.post("/orders", order)
    again = deck.api.post("/orders", order)
    assert again["client_order_id"] == first["client_order_id"]
    wait_state(deck, order, "submitted")
    count = deck.rows(
        "SELECT count(*) FROM paper_orders WHERE account = %(a)s AND tag = "
        "(SELECT tag FROM orders WHERE account = %(a)s AND client_order_id = %(k)s)",
        {"a": alice, "k": order["client_order_id"]},
    )
    assert count == [(1,)]
    with pytest.raises(Refused, match=order["client_order_id"]):
        deck.api.post("/orders", {**order, "quantity": "0.05"})
    deck.api.delete(f"/orders/{alice}/{order['client_order_id']}")
    wait_state(deck, order, "cancelled")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"quantity": "0"}, "quantity"),
        ({"quantity": "NaN"}, "quantity"),
        ({"quantity": "0.0000001"}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"limit_price": "30000.00001"}, "limit_price"),
        ({"limit_price": None}, "limit_price"),
        ({"type": "market"}, "limit_price"),
        ({"side": "hold"}, "side"),
        ({"time_in_force": "later"}, "time_in_force"),
        ({"instrument": "btcusdt"}, "instrument"),
        ({"client_order_id": "has space"}, "client_order_id"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_made(
    deck: DeckUnderTest, alice: str, change: dict[str, Any], field: str
) -> None:
    order = limit_order(alice, **change)
    with pytest.raises(Refused, match=field):
        deck.api.post("/orders", {k: v for k, v in order.items() if v is not None})
    assert deck.rows("SELECT 1 FROM orders WHERE client_order_id = %(k)s", {"k": order["client_order_id"]}) == []


def test_an_unknown_instrument_or_account_is_refused(deck: DeckUnderTest, alice: str) -> None:
    with pytest.raises(Refused, match="BINANCE:NOSUCH"):
        deck.api.post("/orders", limit_order(alice, instrument="BINANCE:NOSUCH"))
    with pytest.raises(Refused, match="nobody-paper"):
        deck.api.post("/orders", limit_order("nobody-paper"))


def test_limits_deny_with_every_reason_and_their_values(deck: DeckUnderTest, bob: str) -> None:
    deck.api.put("/risk/limits", {"scope": f"account:{bob}", "kind": "order_quantity", "value": "0.5"})
    deck.api.put("/risk/limits", {"scope": f"account:{bob}", "kind": "order_notional", "value": "20000"})
    try:

        def denied() -> str | None:
            order = limit_order(bob, quantity="1")
            try:
                deck.api.post("/orders", order)
            except Refused as error:
                # A session may hear of the first limit before the second is set.
                named = all(kind in str(error) for kind in ("order_quantity", "order_notional"))
                return str(error) if named else None
            deck.api.delete(f"/orders/{bob}/{order['client_order_id']}")
            return None

        said = deck.wait("both new limits to bite", denied, 15)
        assert "0.5" in said
        assert "20000" in said
        assert f"account:{bob}" in said
    finally:
        for kind in ("order_quantity", "order_notional"):
            deck.api.put("/risk/limits", {"scope": f"account:{bob}", "kind": kind, "value": None})


def test_a_cluster_limit_holds_over_two_users(deck: DeckUnderTest, alice: str, bob: str) -> None:
    """Both rest orders of some 12,000 at the market; the cluster allows about three of them."""

    def line() -> dict[str, Any]:
        lines = deck.api.get("/risk/exposure")["exposure"]
        return next((dict(x) for x in lines if (x["scope"], x["kind"]) == ("cluster", "gross_exposure")), {})

    def used() -> Decimal:
        return Decimal(line().get("used", "0"))

    def own() -> Decimal:
        """What the two use of it, of which central risk is told once a second."""
        mine = {f"session/{account.removesuffix('-paper')}" for account in (alice, bob)}
        return sum((Decimal(x) for name, x in line().get("by_session", {}).items() if name in mine), Decimal(0))

    deck.wait("what earlier tests placed to be off the books", lambda: own() < 1000, 30)

    def at_rest() -> bool:
        before = used()
        time.sleep(3)
        return abs(used() - before) < 2_000

    # Beyond what other tests' accounts hold, once what they gave up is off the books.
    deck.wait("what others hold to be at rest", at_rest, 60)
    before = own()
    limit = max(used(), Decimal(line().get("lent", "0"))) + 40_000
    deck.api.put("/risk/limits", {"scope": "cluster", "kind": "gross_exposure", "value": str(limit)})

    def holds() -> bool:
        """Whether every session has heard of it and is lent no more than it allows."""
        limits = deck.api.get("/risk/limits", limit=1000)["items"]
        found = [each for each in limits if (each["scope"], each["kind"]) == ("cluster", "gross_exposure")]
        return any(each["state"] and each["state"]["holds"] for each in found)

    placed, denied = [], []
    try:
        deck.wait("the limit to hold", holds, 20)
        for number in range(6):
            order = limit_order((alice, bob)[number % 2], quantity="0.2")
            try:
                deck.api.post("/orders", order)
                placed.append(order)
            except Refused as error:
                denied.append(str(error))
            # What others hold is worth more or less by the moment, so only what these two use is told apart.
            assert own() - before <= 40_000
        assert placed
        assert denied, "six orders of 12,000 cannot fit into 40,000"
        assert all("gross_exposure" in text and "cluster" in text for text in denied), denied
        time.sleep(3)  # what is used is told once a second, and shown so
        assert own() - before <= 40_000
    finally:
        deck.api.put("/risk/limits", {"scope": "cluster", "kind": "gross_exposure", "value": None})
        for account in (alice, bob):
            deck.api.post(f"/accounts/{account}/cancel-all")
    for order in placed:
        wait_state(deck, order, "cancelled")
    settle(deck, alice)
    settle(deck, bob)


def test_cancel_all_leaves_nothing_open(deck: DeckUnderTest, alice: str) -> None:
    orders = [limit_order(alice) for _ in range(10)]
    for order in orders:
        deck.api.post("/orders", order)
    deck.api.post(f"/accounts/{alice}/cancel-all")
    for order in orders:
        wait_state(deck, order, "cancelled")
    settle(deck, alice)


def test_cancel_of_a_final_or_unknown_order_says_so(deck: DeckUnderTest, alice: str) -> None:
    order = limit_order(alice)
    deck.api.post("/orders", order)
    path = f"/orders/{alice}/{order['client_order_id']}"
    deck.api.delete(path)
    wait_state(deck, order, "cancelled")
    with pytest.raises(Refused, match="cancelled"):
        deck.api.delete(path)
    with pytest.raises(Refused, match="no-such-key"):
        deck.api.delete(f"/orders/{alice}/no-such-key")
