"""The deck at a glance, heat, curves, surveillance and flattening on a whole deck."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.actors.test_order_path import BTC, limit_order, wait_state
from tests.support import orders
from tests.support.books import settle
from tests.support.deck import DeckUnderTest

pytestmark = pytest.mark.cluster

D = Decimal


def shown(deck: DeckUnderTest, account: str) -> dict[str, Any]:
    """The account on the deck ({}: not there yet)."""
    found: list[dict[str, Any]] = deck.api.get("/deck")["accounts"]
    return next((each for each in found if each["account"] == account), {})


def market(deck: DeckUnderTest, account: str, quantity: str, **more: Any) -> None:
    """A market order, filled."""

    def place() -> dict[str, Any]:
        order = limit_order(account, type="market", limit_price=None, quantity=quantity, **more)
        made: dict[str, Any] = deck.api.post("/orders", {k: v for k, v in order.items() if v is not None})
        return made

    orders.filled(deck, place)


def test_what_is_held_is_shown_judged_and_closed_on_request(deck: DeckUnderTest, bob: str) -> None:
    deck.wait("the account", lambda: shown(deck, bob).get("state") == "ready", 60)
    market(deck, bob, "0.01")
    resting = limit_order(bob)
    deck.api.post("/orders", resting)
    wait_state(deck, resting, "submitted")

    def told() -> bool:
        now = shown(deck, bob)
        return now["gross"] is not None and D(now["gross"]) > 0 and now["equity"] is not None

    def heated() -> bool:
        cells = deck.api.get("/risk/heat")["cells"]
        return any(cell["instrument"] == BTC and cell["algo"] == "" for cell in cells)

    deck.wait("what is held on the deck", told, 20)
    deck.wait("what is open on the deck", lambda: deck.api.get("/deck")["open_orders"] >= 1, 20)
    deck.wait("its heat", heated, 20)
    deck.wait("the levels of risk", lambda: deck.api.get("/risk/tree")["children"], 20)

    # Surveillance: an order of a large part of the equity, refused by nobody, is told of.
    cash = D(shown(deck, bob)["equity"])
    price = D(deck.api.get("/positions", account=bob)["items"][0]["average_cost"])
    large = limit_order(bob, quantity=f"{(cash * D('0.7') / price).quantize(D('0.001'))}", limit_price=f"{price // 2}")
    twice = {**large, "quantity": f"{D(large['quantity']) * 2}"}
    deck.api.post("/orders", twice)
    wait_state(deck, twice, "submitted")

    def alerts() -> list[dict[str, Any]]:
        found = deck.api.get("/alerts", kind="large_order", open="true")["items"]
        return [each for each in found if each["account"] == bob]

    (alert,) = deck.wait("the alert", alerts, 30)
    assert "of the account's equity" in alert["text"]
    assert deck.api.post(f"/alerts/{alert['id']}/acknowledge")["acknowledged_by"]
    assert alerts() == []

    done = deck.api.post(f"/accounts/{bob}/flatten", {"reason": "over the weekend"})
    assert (done["cancelled"], done["refused"]) == (2, [])
    (closing,) = done["closing"]
    assert (closing["side"], closing["reduce_only"], D(closing["quantity"])) == ("sell", True, D("0.01"))
    wait_state(deck, closing, "filled")
    settle(deck, bob)
    assert not [each for each in deck.api.get("/positions", account=bob)["items"] if D(each["quantity"])]
    again = deck.api.post(f"/accounts/{bob}/flatten", {"reason": "once more"})
    assert (again["cancelled"], again["closing"], again["refused"]) == (0, [], [])


def test_profit_is_sampled_and_survives_the_death_of_who_samples_it(deck: DeckUnderTest, bob: str) -> None:
    def points() -> int:
        return len(deck.api.get(f"/accounts/{bob}/equity")["items"])

    before = deck.wait("a sample", points, 40)
    old = deck.kill("surveillance/main")
    deck.wait_reborn("surveillance/main", old)
    market(deck, bob, "0.002")
    deck.wait("more samples", lambda: points() > before, 40)
    deck.api.post(f"/accounts/{bob}/flatten", {"reason": "done"})
