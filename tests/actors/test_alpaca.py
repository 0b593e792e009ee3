"""An account at Alpaca through the whole system: API, session, journal, connection, the wire, and back."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest

from tests.support.deck import DeckUnderTest, Simulator
from tests.support.orders import filled

pytestmark = pytest.mark.cluster

D = Decimal
AAPL = "ALPACA:AAPL"
NUMBER = "PA7777777"
_keys = itertools.count(1)


class Shares:
    """An account at a simulated Alpaca."""

    def __init__(self, deck: DeckUnderTest, venue: Simulator, account: str) -> None:
        self.deck = deck
        self.venue = venue
        self.account = account

    def quote(self, bid: float = 99.9, ask: float = 100.1, size: int = 1_000) -> None:
        self.venue.control("quote", symbol="AAPL", bid=bid, ask=ask, bid_size=size, ask_size=size)

    def place(self, **changes: Any) -> str:
        key = f"s-{next(_keys)}"
        body = {
            "account": self.account,
            "client_order_id": key,
            "instrument": AAPL,
            "side": "buy",
            "type": "limit",
            "quantity": "10",
            "limit_price": "90",
            "time_in_force": "gtc",
        } | changes
        self.deck.api.post("/orders", {name: value for name, value in body.items() if value is not None})
        return key

    def wait(self, key: str, *states: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            order = self.deck.order(self.account, key)
            return order if order["state"] in states else None

        order: dict[str, Any] = self.deck.wait(f"order {key} in {states}", found, 30)
        return order

    def ledger(self) -> dict[str, Any]:
        return dict(self.venue.ledger()[NUMBER])

    def agree(self) -> None:
        """Wait until orders, fills and positions here are those of the ledger."""

        def same() -> bool:
            ledger = self.ledger()
            ours = {o["client_order_id"]: o for o in self.deck.api.get("/orders", account=self.account)["items"]}
            sums: dict[str, Decimal] = {}
            for row in ledger["executions"]:
                sums["AAPL"] = sums.get("AAPL", D(0)) + D(row["qty"]) * (1 if row["side"] == "buy" else -1)
            held = [p for p in self.deck.api.get("/positions")["items"] if p["account"] == self.account]
            position = sum((D(p["quantity"]) for p in held if p["instrument"] == AAPL), D(0))
            fills = {f["fill"]["execution_id"] for f in self.deck.api.get("/fills", account=self.account)["items"]}
            still_open = [
                o for o in ours.values() if o["state"] in ("pending", "submitted", "partially_filled", "unknown")
            ]
            theirs_open = [o for o in ledger["orders"] if o["status"] in ("new", "partially_filled", "accepted")]
            return (
                position == sums.get("AAPL", D(0))
                and fills == {row["id"] for row in ledger["executions"]}
                and len(still_open) == len(theirs_open)
            )

        self.deck.wait("the books agree", same, 40)


@pytest.fixture(scope="module")
def shares(deck: DeckUnderTest) -> Shares:
    venue = deck.simulator("--hold", "--limit", "0", "--account", f"PKDECK:deck-secret:{NUMBER}", kind="alpaca")
    deck.api.post("/users", {"id": "ann", "roles": ["trader", "quant"]})
    account = "ann-alpaca"
    deck.api.post(
        "/accounts",
        {
            "id": account,
            "user": "ann",
            "connector": "alpaca",
            "settings": {"base_url": venue.url, "timeout_s": 2, "orders_per_s": 100},
            "credentials": {"key": "PKDECK", "secret": "deck-secret"},
        },
    )
    source = {"provider": "alpaca", "settings": {"base_url": venue.url, "account": account}}
    assert deck.api.post("/instruments/import", source)["imported"] == 5
    made = Shares(deck, venue, account)
    made.quote()
    deck.api.post("/feeds", {"id": "shares", **source, "instruments": [AAPL], "workers": 1})
    deck.wait("the account", lambda: deck.account_view("ann", account).get("reconciled") is True)

    def live() -> bool:
        made.quote()
        return deck.live_instruments("shares") == {AAPL}

    deck.wait("the feed", live)
    return made


def test_an_order_is_placed_changed_and_cancelled_at_alpaca(shares: Shares) -> None:
    key = shares.place()
    first = shares.wait(key, "submitted")
    path = f"/orders/{shares.account}/{key}"
    shares.deck.api.patch(path, {"quantity": "12", "limit_price": "91"})
    shares.deck.wait("the change", lambda: D(shares.deck.api.get(path)["limit_price"]) == 91, 20)
    changed = shares.deck.api.get(path)
    assert (D(changed["quantity"]), changed["broker_order_id"]) == (12, first["broker_order_id"])
    shares.deck.api.delete(path)
    shares.wait(key, "cancelled")
    assert [o["status"] for o in shares.ledger()["orders"]] == ["replaced", "canceled"]
    shares.agree()


def test_every_type_fills_and_both_books_agree(shares: Shares) -> None:
    shares.quote()

    def at_market() -> dict[str, Any]:
        key = shares.place(type="market", limit_price=None, quantity="30")
        return {"account": shares.account, "client_order_id": key}

    assert D(filled(shares.deck, at_market, 30)["average_price"]) == D("100.1")
    trailing = shares.place(type="trailing_stop", side="sell", limit_price=None, trail_price="2", quantity="10")
    stop = shares.place(type="stop", side="sell", limit_price=None, stop_price="97", quantity="10")
    limit = shares.place(side="sell", limit_price="105", quantity="10")
    for key in (trailing, stop, limit):
        shares.wait(key, "submitted")
    shares.venue.control("trade", symbol="AAPL", price=105.5)
    shares.quote(105.2, 105.4)
    shares.wait(limit, "filled")
    shares.venue.control("trade", symbol="AAPL", price=103)
    shares.quote(102.9, 103.1)
    shares.wait(trailing, "filled")
    assert shares.deck.order(shares.account, trailing)["trail_price"] == "2"
    shares.venue.control("trade", symbol="AAPL", price=96)
    shares.quote(95.9, 96.1)
    shares.wait(stop, "filled")
    shares.agree()


def test_what_alpaca_does_not_take_is_refused_with_its_words(shares: Shares) -> None:
    shares.quote()
    key = shares.place(quantity="0.5", time_in_force="gtc")
    assert "fractional orders must be DAY orders" in shares.wait(key, "rejected")["reason"]


def test_fills_while_the_stream_is_away_are_recovered(shares: Shares) -> None:
    shares.quote()
    key = shares.place(limit_price="99")
    shares.wait(key, "submitted")
    shares.venue.control("refuse", seconds=1.0)
    shares.quote(98.5, 98.9)
    shares.wait(key, "filled")
    shares.agree()


def test_an_order_whose_answer_was_lost_is_found_by_its_tag(shares: Shares) -> None:
    shares.quote()
    before = len(shares.ledger()["orders"])
    for rule in ({"status": 502}, {"no_answer": True}, {"body": "garbage"}, {"reset": True}):
        shares.venue.control("misbehave", method="POST", path="/v2/orders", silent=True, **rule)
        key = shares.place(limit_price="80")
        shares.wait(key, "submitted")
    shares.venue.control("misbehave", method="POST", path="/v2/orders", effect=False, status=500)
    lost = shares.place(limit_price="80")
    assert "never arrived" in shares.wait(lost, "rejected")["reason"]
    assert len(shares.ledger()["orders"]) == before + 4, "each once, and the lost one never"
    shares.deck.api.post(f"/accounts/{shares.account}/cancel-all", {})
    shares.agree()


def test_a_killed_connection_comes_back_to_the_same_books(shares: Shares) -> None:
    shares.quote()
    keys = [shares.place(limit_price=str(price)) for price in (99, 98, 97)]
    for key in keys:
        shares.wait(key, "submitted")
    pid = shares.deck.kill(f"connection/{shares.account}")
    shares.quote(98.2, 98.9)
    shares.deck.wait_reborn(f"connection/{shares.account}", pid)
    shares.wait(keys[0], "filled")
    shares.deck.api.delete(f"/orders/{shares.account}/{keys[1]}")
    shares.wait(keys[1], "cancelled")
    shares.deck.api.post(f"/accounts/{shares.account}/cancel-all", {})
    shares.agree()


def test_an_algo_begins_with_history_though_it_never_has_the_key(shares: Shares) -> None:
    shares.quote()
    deck = shares.deck
    deck.api.post(
        "/algos",
        {
            "id": "cross",
            "strategy": "ma-cross",
            "account": shares.account,
            "feed": "shares",
            "instruments": [AAPL],
            "parameters": {"interval": "1m", "fast": 3, "slow": 8, "notional": "500"},
        },
    )
    deck.api.post("/algos/cross/start", {})
    deck.wait("the algo", lambda: deck.api.get("/algos/cross")["state"] == "running")
    said = [line["text"] for line in deck.api.get("/algos/cross/logs")["items"]]
    assert not [text for text in said if "no history" in text]
    deck.api.post("/algos/cross/stop", {})
    deck.wait("its end", lambda: deck.api.get("/algos/cross")["state"] == "stopped")


def test_the_key_is_in_no_answer(shares: Shares) -> None:
    shown = repr(shares.deck.api.get("/accounts")) + repr(shares.deck.api.get("/cluster"))
    shown += repr(shares.deck.api.get("/feeds"))
    assert "deck-secret" not in shown
    assert "PKDECK" not in shown
