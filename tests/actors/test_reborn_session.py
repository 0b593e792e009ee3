"""What a session's death must not change: what its user may ask for, and what counts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.actors.test_deck_view import market, shown
from tests.actors.test_order_path import BTC, limit_order
from tests.support.books import settle
from tests.support.deck import DeckUnderTest
from trading.errors import Refused

pytestmark = pytest.mark.cluster

D = Decimal


def die(deck: DeckUnderTest, user: str) -> None:
    """Kill a user's session and wait for the next one."""
    old = deck.kill(f"session/{user}")
    deck.wait_reborn(f"session/{user}", old, 120)


def flatten(deck: DeckUnderTest, account: str) -> dict[str, Any]:
    done: dict[str, Any] = deck.api.post(f"/accounts/{account}/flatten", {"reason": "a test"})
    return done


def test_the_first_flattening_by_hand_after_a_session_was_replaced_closes(deck: DeckUnderTest, bob: str) -> None:
    deck.wait("the account", lambda: shown(deck, bob)["state"] == "ready", 60)
    market(deck, bob, "0.01")
    # Ended for good, as one is that has been silent for long: the next one is another actor of the same name.
    session = f"session/{bob.removesuffix('-paper')}"
    old = deck.actor(session)["pid"]
    deck.api.patch(f"/accounts/{bob}", {"enabled": False})
    deck.wait("the session's end", lambda: not deck.actor(session), 60)
    deck.api.patch(f"/accounts/{bob}", {"enabled": True})
    deck.wait_reborn(session, old, 120)
    deck.wait("the account again", lambda: shown(deck, bob)["state"] == "ready", 60)
    done = flatten(deck, bob)
    assert done["refused"] == []
    assert [D(each["quantity"]) for each in done["closing"]] == [D("0.01")]
    settle(deck, bob)


def test_what_a_disabled_account_holds_counts_after_its_session_died(deck: DeckUnderTest, bob: str, feed: str) -> None:
    user, second = bob.removesuffix("-paper"), f"{bob}-2"
    settings = {"cash": "1000000", "currency": "USDT", "feed": feed}
    deck.api.post("/accounts", {"id": second, "user": user, "connector": "paper", "settings": settings})
    deck.wait("the second account", lambda: deck.account_view(user, second).get("reconciled") is True, 60)
    market(deck, second, "0.01")

    def counted() -> bool:
        now = shown(deck, second)
        return now["gross"] is not None and D(now["gross"]) > 0

    deck.wait("what is held to count", counted, 30)
    deck.api.patch(f"/accounts/{second}", {"enabled": False})
    deck.wait("its end", lambda: deck.account_view(user, second)["connected"] is False, 30)
    assert counted()
    die(deck, user)
    deck.wait("what is held to count again", counted, 60)
    assert second not in deck.api.get("/deck")["not_known"]
    uses = deck.api.get("/risk/exposure")["levels"]
    (use,) = [each for each in uses if (each["scope"], each["instrument"]) == (f"account:{second}", "")]
    assert D(use["gross"]) > 0

    # Nothing is done in it, and nobody is told that it was.
    with pytest.raises(Refused) as refused:
        deck.api.post("/orders", limit_order(second))
    assert refused.value.code == "account_is_disabled"
    with pytest.raises(Refused) as refused:
        flatten(deck, second)
    assert refused.value.code == "account_is_disabled"
    kill = deck.api.post("/risk/kill?wait_s=3", {"scope": f"account:{second}", "flatten": True, "reason": "a test"})
    assert (kill["done"], len(kill["waiting"])) == (False, 1)
    assert "cannot be closed while it is disabled" in kill["waiting"][0]
    deck.api.post(f"/risk/kills/{kill['id']}/lift")

    deck.api.patch(f"/accounts/{second}", {"enabled": True})
    deck.wait("it to be compared", lambda: shown(deck, second)["state"] == "ready", 60)
    held = [each for each in deck.api.get("/positions", account=second)["items"] if D(each["quantity"])]
    assert [(each["instrument"], D(each["quantity"])) for each in held] == [(BTC, D("0.01"))]
    deck.wait("orders to pass", lambda: flatten(deck, second)["refused"] == [], 30)
    settle(deck, second)
