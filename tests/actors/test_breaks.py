"""Breaks through the whole system: what changes at the broker behind our back, and what a person makes of it."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest

from tests.support.deck import DeckUnderTest, Simulator
from trading.errors import TradeError

pytestmark = pytest.mark.cluster

D = Decimal
AAPL = "ALPACA:AAPL"
NUMBER = "PA8888888"
ACCOUNT = "bea-alpaca"
_keys = itertools.count(1)


class Bea:
    """A trader at a simulated Alpaca whose account others touch."""

    def __init__(self, deck: DeckUnderTest, venue: Simulator) -> None:
        self.deck = deck
        self.venue = venue

    def transfer(self, **what: Any) -> None:
        self.venue.control("transfer", account=NUMBER, **what)

    def breaks(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.deck.api.get("/breaks", account=ACCOUNT, kind=kind)["items"]
        return found

    def wait_break(self, kind: str) -> dict[str, Any]:
        self.deck.wait(f"a break of {kind}", lambda: self.breaks(kind), 30)
        (item,) = self.breaks(kind)
        return item

    def settle(self, verb: str, item: dict[str, Any], note: str) -> dict[str, Any]:
        body = {"ours": item["ours"], "theirs": item["theirs"], "note": note}
        closed: dict[str, Any] = self.deck.api.post(f"/breaks/{item['id']}/{verb}", body)
        return closed

    def held(self) -> Decimal:
        held = [p for p in self.deck.api.get("/positions")["items"] if p["account"] == ACCOUNT]
        return sum((D(p["quantity"]) for p in held), D(0))

    def place(self, side: str = "buy", quantity: str = "1") -> str:
        """A limit order that does not fill; raises what the API says."""
        key = f"b-{next(_keys)}"
        price = "90" if side == "buy" else "110"
        body = {"account": ACCOUNT, "client_order_id": key, "instrument": AAPL, "side": side, "type": "limit"}
        self.deck.api.post("/orders", {**body, "quantity": quantity, "limit_price": price, "time_in_force": "gtc"})
        return key

    def trades(self) -> None:
        key = self.place()
        self.deck.wait("the order", lambda: self.deck.order(ACCOUNT, key)["state"] == "submitted", 20)
        self.deck.api.delete(f"/orders/{ACCOUNT}/{key}")
        self.deck.wait("its end", lambda: self.deck.order(ACCOUNT, key)["state"] == "cancelled", 20)

    def check(self) -> dict[str, Any]:
        found: dict[str, Any] = self.deck.api.post(f"/accounts/{ACCOUNT}/reconcile")
        return found


@pytest.fixture(scope="module")
def bea(deck: DeckUnderTest) -> Bea:
    venue = deck.simulator("--hold", "--limit", "0", "--account", f"PKBEA:bea-secret:{NUMBER}", kind="alpaca")
    deck.api.post("/users", {"id": "bea", "roles": ["trader"]})
    deck.api.post(
        "/accounts",
        {
            "id": ACCOUNT,
            "user": "bea",
            "connector": "alpaca",
            "settings": {
                "base_url": venue.url,
                "timeout_s": 2,
                "orders_per_s": 100,
                "reconcile_positions_s": 1,
                "late_arrival_s": 2,
            },
            "credentials": {"key": "PKBEA", "secret": "bea-secret"},
        },
    )
    source = {"provider": "alpaca", "settings": {"base_url": venue.url, "account": ACCOUNT}}
    deck.api.post("/instruments/import", source)
    made = Bea(deck, venue)
    venue.control("quote", symbol="AAPL", bid=99.9, ask=100.1, bid_size=1_000, ask_size=1_000)
    deck.wait("the account", lambda: deck.account_view("bea", ACCOUNT).get("reconciled") is True)
    deck.wait("a confirmed figure of cash", lambda: made.check()["cash_not_compared"] == "", 30)
    return made


def test_a_position_changed_behind_our_back_is_reduce_only_until_it_is_accepted(bea: Bea) -> None:
    bea.trades()
    bea.transfer(symbol="AAPL", qty=5, price=95)
    item = bea.wait_break("position")
    assert (D(item["ours"]), D(item["theirs"])) == (0, 5)
    with pytest.raises(TradeError, match="reduce-only"):
        bea.place()
    closed = bea.settle("accept", item, "transferred in")
    assert (closed["settlement"], closed["resolved_by"]) == ("accepted", "admin")
    assert bea.held() == 5
    (position,) = [p for p in bea.deck.api.get("/positions")["items"] if p["account"] == ACCOUNT]
    assert D(position["average_cost"]) == 95
    bea.trades()
    with pytest.raises(TradeError, match="closed already"):
        bea.settle("accept", item, "again")
    found = bea.check()
    assert (found["breaks"], found["positions"], found["cash_not_compared"]) == ([], 1, "")


def test_an_explained_difference_survives_the_session(bea: Bea) -> None:
    before = bea.held()
    bea.transfer(symbol="AAPL", qty=-2, price=95)
    closed = bea.settle("explain", bea.wait_break("position"), "lent out")
    assert closed["tolerated"]
    pid = bea.deck.kill("session/bea")
    bea.deck.wait_reborn("session/bea", pid)
    bea.deck.wait("the account", lambda: bea.deck.account_view("bea", ACCOUNT).get("reconciled") is True)
    found = bea.check()
    assert found["breaks"] == []
    assert [each["id"] for each in found["tolerated"]] == [closed["id"]]
    assert bea.held() == before
    bea.trades()
    bea.transfer(symbol="AAPL", qty=2, price=95)
    bea.deck.wait("the tolerance ends", lambda: bea.check()["tolerated"] == [], 30)


def test_a_dividend_is_a_break_of_cash_that_stops_nobody(bea: Bea) -> None:
    # A session that has started anew reckons cash from a figure on which two reports agree.
    bea.deck.wait("a confirmed figure of cash", lambda: bea.check()["cash_not_compared"] == "", 30)
    bea.transfer(cash=25)
    found = bea.deck.wait("the difference", lambda: bea.check()["breaks"], 30)
    assert [each["kind"] for each in found] == ["cash"]
    item = bea.wait_break("cash")
    assert D(item["theirs"]) - D(item["ours"]) == 25
    bea.trades()
    bea.settle("accept", item, "dividend")
    found = bea.check()
    assert (found["breaks"], D(found["our_cash"])) == ([], D(found["their_cash"]))


def test_the_report_of_yesterday_is_made_by_a_session_that_starts_today(bea: Bea) -> None:
    bea.deck.execute(f"UPDATE accounts SET created_at = 0 WHERE id = '{ACCOUNT}'")
    pid = bea.deck.kill("session/bea")
    bea.deck.wait_reborn("session/bea", pid)
    reports = bea.deck.wait("the report", lambda: bea.deck.api.get("/reconciliations", account=ACCOUNT)["items"], 60)
    (report,) = reports
    assert report["made_at"] is not None
    assert (report["positions"]["matched"], report["positions"]["differing"]) == (1, 0)
    assert report["cash"]["agrees"] is True
    assert (report["orders"]["matched"], report["orders"]["differing"]) == (0, 0)
