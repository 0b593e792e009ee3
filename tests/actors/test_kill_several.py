"""Killing and flattening an account in which several algos trade, for and against each other, on a real deck."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from tests.support.books import settle
from tests.support.deck import DeckUnderTest
from tests.support.orders import is_passing
from trading.errors import Refused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]

D = Decimal
BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
FEED = "several"
_keys = itertools.count(1)

#: Trades each time it is told to: at once for ``value``, or, ``slowly``, by a limit order of far more than there is.
LEG = """
from typing import Annotated, Literal

from pydantic import Field

from strategies import UPDATABLE, Strategy, StrategyParameters


class Parameters(StrategyParameters):
    side: Literal["long", "short"] = "long"
    value: int = 1_000
    slowly: bool = False
    told: Annotated[int, UPDATABLE] = Field(0, ge=0)


class Leg(Strategy[Parameters]):
    Parameters = Parameters

    def set_up(self):
        self.is_due = False
        self.again = []

    def on_parameters(self, before):
        self.is_due = self.is_due or self.parameters.told > before.told

    def on_order(self, order):
        # It came too late, for a machine that stood still: once more.
        if order.state == "rejected" and order.reason.startswith("not sent"):
            self.again.append(order)

    def on_tick(self, tick):
        if not tick.is_trade:
            return
        instrument, sign = tick.instrument, 1 if self.parameters.side == "long" else -1
        trade = self.buy if sign > 0 else self.sell
        while self.again:
            order = self.again.pop(0)
            trade(instrument, order.quantity, limit=order.limit_price)
        if not self.is_due:
            return
        self.is_due = False
        if self.parameters.slowly:
            quantity = instrument.round_quantity(20_000_000 / tick.price)
            trade(instrument, quantity, limit=instrument.round_price(tick.price * (1 + sign * 0.0005)))
            return
        quantity = instrument.round_quantity(self.parameters.value / tick.price)
        trade(instrument, quantity)
        trade(instrument, quantity, limit=instrument.round_price(tick.price * (1 - sign * 0.2)))
"""

#: Long and short against each other in both, one too slow to be done.  That one is told last: all that it has bought
#: until it is stopped takes as long to close.
LEGS: dict[str, dict[str, Any]] = {
    "leg-a": {"instrument": BTC, "side": "long", "value": 3_000},
    "leg-b": {"instrument": BTC, "side": "short", "value": 1_000},
    "leg-d": {"instrument": ETH, "side": "short", "value": 4_000},
    "leg-e": {"instrument": ETH, "side": "long", "value": 1_500},
    "leg-c": {"instrument": BTC, "side": "long", "slowly": True},
}


@pytest.fixture(scope="module")
def lou(deck: DeckUnderTest) -> str:
    """An account with room for an order that does not fill in one go."""
    deck.feed(FEED, deck.market, [BTC, ETH])
    account = deck.account("lou", FEED, cash="100000000", fill_ratio="0.2")
    deck.api.post("/strategies", {"name": "leg", "source": LEG, "smoke": False})
    for name, leg in LEGS.items():
        parameters = {key: value for key, value in leg.items() if key != "instrument"}
        body = {"id": name, "strategy": "leg", "account": account, "feed": FEED, "parameters": parameters}
        deck.api.post("/algos", {**body, "instruments": [leg["instrument"]]})
    return account


@pytest.fixture(autouse=True)
def lifted(deck: DeckUnderTest, lou: str) -> Iterator[None]:
    """Leave no kill behind."""
    yield
    for kill in deck.api.get("/risk/kills"):
        if not kill["lifted_at"]:
            deck.api.post(f"/risk/kills/{kill['id']}/lift")


def orders(deck: DeckUnderTest, account: str, of: str = "") -> list[dict[str, Any]]:
    """All, newest first, or those of an algo; those that could not be sent in time were asked for again."""
    found = deck.api.get("/orders", account=account, limit=1000)["items"]
    return [order for order in found if (not of or order["algo"] == of) and not is_passing(order["reason"])]


def open_orders(deck: DeckUnderTest, account: str, of: str = "") -> list[dict[str, Any]]:
    ended = ("filled", "cancelled", "rejected", "expired", "denied")
    return [order for order in orders(deck, account, of) if order["state"] not in ended]


def at_the_broker(deck: DeckUnderTest, account: str) -> dict[str, Decimal]:
    """What the venue itself says the account holds."""
    rows = deck.rows(
        "SELECT instrument, quantity FROM paper_positions WHERE account = %(a)s AND quantity <> 0", {"a": account}
    )
    return dict(rows)


def open_at_the_broker(deck: DeckUnderTest, account: str) -> int:
    rows = deck.rows(
        "SELECT count(*) FROM paper_orders WHERE account = %(a)s "
        "AND state NOT IN ('filled', 'cancelled', 'rejected', 'expired')",
        {"a": account},
    )
    return int(rows[0][0])


def traded(deck: DeckUnderTest, account: str, *, closing: bool) -> dict[str, Decimal]:
    """Signed sums of all executions by instrument: of what closes positions, or of all else."""
    rows = deck.rows(
        "SELECT o.instrument, sum(CASE o.side WHEN 'buy' THEN f.quantity ELSE -f.quantity END) "
        "FROM fills f JOIN orders o ON o.account = f.account AND o.client_order_id = f.client_order_id "
        "WHERE f.account = %(a)s AND (o.client_order_id LIKE 'kill-%%' OR o.client_order_id LIKE 'flat-%%') = %(c)s "
        "GROUP BY o.instrument",
        {"a": account, "c": closing},
    )
    return dict(rows)


def told_to_trade(deck: DeckUnderTest, account: str, turn: int) -> None:
    """All legs run and have traded once more: both sides hold, some orders rest, one is filled in part."""
    for name in LEGS:
        deck.api.post(f"/algos/{name}/start")
    for name in LEGS:
        deck.wait(f"{name} running", lambda name=name: deck.api.get(f"/algos/{name}")["state"] == "running", 60)
    deck.wait("ticks at all legs", lambda: all(ticks(deck, name) for name in LEGS), 30)
    for name in LEGS:
        before = len(orders(deck, account, name))
        deck.api.patch(f"/algos/{name}", {"parameters": {**parameters_of(deck, name), "told": turn}})
        wanted = before + (1 if LEGS[name].get("slowly") else 2)
        deck.wait(f"the orders of {name}", lambda n=name, w=wanted: len(orders(deck, account, n)) == w, 20)

    def traded_as_meant() -> bool:
        for name, leg in LEGS.items():
            states = sorted(order["state"] for order in orders(deck, account, name)[: 1 if leg.get("slowly") else 2])
            if states != (["partially_filled"] if leg.get("slowly") else ["filled", "submitted"]):
                return False
        return True

    deck.wait("all legs to hold and have orders open, one filled in part", traded_as_meant, 30)


def parameters_of(deck: DeckUnderTest, name: str) -> dict[str, Any]:
    return dict(deck.api.get(f"/algos/{name}")["parameters"])


def ticks(deck: DeckUnderTest, name: str) -> int:
    live = deck.api.get(f"/algos/{name}")["live"] or {}
    return int(live.get("ticks") or 0)


def refusal(deck: DeckUnderTest, account: str, instrument: str) -> str:
    """Why an order far from the market is refused; "" (and it is taken back) where it is not."""
    price = "30000" if instrument == BTC else "1000"
    order = {
        "account": account, "client_order_id": f"lou-{next(_keys)}", "instrument": instrument, "side": "buy",
        "type": "limit", "quantity": "0.01", "limit_price": price, "time_in_force": "gtc",
    }  # fmt: skip
    try:
        made = deck.api.post("/orders", order)
    except Refused as error:
        return str(error)
    key = made["client_order_id"]
    deck.wait(f"{key} at the broker", lambda: deck.order(account, key)["state"] == "submitted", 20)
    deck.api.delete(f"/orders/{account}/{key}")
    deck.wait(f"{key} taken back", lambda: deck.order(account, key)["state"] == "cancelled", 20)
    return ""


def closed_once(closing: list[dict[str, Any]], others: dict[str, Decimal]) -> None:
    """What closes makes up for all else that was traded, and no more; each part under its own key, at the first try."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    closing = [order for order in closing if not is_passing(order["reason"])]
    for order in closing:
        assert order["state"] == "filled", order
        sums[order["instrument"]] += D(order["filled_quantity"])
    assert dict(sums) == {instrument: abs(quantity) for instrument, quantity in others.items()}
    assert len({order["client_order_id"] for order in closing}) == len(closing)
    # Keys are ``<kill>-<instrument>.<moment>[.<part>]``: another moment would be another attempt.
    attempts = {tuple(order["client_order_id"].split(".")[:2]) for order in closing}
    assert len(attempts) == len(sums), closing


def nothing_left(deck: DeckUnderTest, account: str) -> None:
    settle(deck, account)
    assert at_the_broker(deck, account) == {}
    assert open_at_the_broker(deck, account) == 0
    assert open_orders(deck, account) == []
    ours, closed = traded(deck, account, closing=False), traded(deck, account, closing=True)
    assert closed == {instrument: -quantity for instrument, quantity in ours.items()}


def difference(after: dict[str, Decimal], before: dict[str, Decimal]) -> dict[str, Decimal]:
    return {each: after[each] - before.get(each, D(0)) for each in after if after[each] != before.get(each, D(0))}


def test_a_kill_over_several_algos_takes_back_and_closes_all_of_it_once(deck: DeckUnderTest, lou: str) -> None:
    before = traded(deck, lou, closing=False)
    told_to_trade(deck, lou, 1)
    held, resting = at_the_broker(deck, lou), open_orders(deck, lou)
    assert held[BTC] > 0 > held[ETH]
    assert len(resting) == len(LEGS)
    thrown = deck.api.post("/risk/kill?wait_s=20", {"scope": f"account:{lou}", "flatten": True, "reason": "a test"})
    path = f"/risk/kills/{thrown['id']}"
    thrown = deck.wait("the kill to be done", lambda: now if (now := deck.api.get(path))["done"] else None, 60)
    assert (thrown["silent"], thrown["waiting"], thrown["cancelled"]) == ([], [], len(LEGS))
    (shown,) = thrown["accounts"]
    assert (shown["open_orders"], shown["positions"]) == (0, {})
    assert {each["client_order_id"] for each in shown["cancelled"]} == {each["client_order_id"] for each in resting}
    assert {each["state"] for each in shown["cancelled"]} == {"cancelled"}
    (part,) = [each for each in shown["cancelled"] if D(each["filled_quantity"])]
    assert part["instrument"] == BTC
    closed_once(shown["closing"], difference(traded(deck, lou, closing=False), before))
    nothing_left(deck, lou)
    algos = {each["id"]: (each["want"], each["state"]) for each in thrown["algos"]}
    assert algos == dict.fromkeys(LEGS, ("stopped", "stopped"))
    for instrument in (BTC, ETH):
        assert f"halted is set on account:{lou}" in refusal(deck, lou, instrument)
    # Nothing more comes of it while it is in force: sessions look at kills every two seconds.
    closing = len(shown["closing"])
    deck.api.post(f"/accounts/{lou}/reconcile")
    again = deck.api.get(f"/risk/kills/{thrown['id']}")
    assert (again["done"], len(again["accounts"][0]["closing"])) == (True, closing)
    deck.api.post(f"/risk/kills/{thrown['id']}/lift")
    deck.wait("orders to pass again", lambda: not refusal(deck, lou, BTC), 20)


def test_two_kills_at_once_over_several_algos_close_once_and_release_lets_all_trade_again(
    deck: DeckUnderTest, lou: str
) -> None:
    before = traded(deck, lou, closing=False)
    told_to_trade(deck, lou, 2)

    def throw(scope: str) -> dict[str, Any]:
        made: dict[str, Any] = deck.api.post("/risk/kill?wait_s=0", {"scope": scope, "flatten": True, "reason": "both"})
        return made

    with ThreadPoolExecutor(2) as pool:
        kills = list(pool.map(throw, (f"account:{lou}", "user:lou")))
    closing: list[dict[str, Any]] = []
    for kill in kills:
        path = f"/risk/kills/{kill['id']}"
        proof = deck.wait(
            f"{kill['scope']} to be done", lambda p=path: k if (k := deck.api.get(p))["done"] else None, 60
        )
        closing += next(each["closing"] for each in proof["accounts"] if each["account"] == lou)
    closed_once(closing, difference(traded(deck, lou, closing=False), before))
    nothing_left(deck, lou)
    # One of two is lifted: the other still holds.
    deck.api.post(f"/risk/kills/{kills[0]['id']}/lift")
    deck.wait("the user's halt alone to be told", lambda: "halted is set on user:lou" in refusal(deck, lou, BTC), 20)
    deck.api.post(f"/risk/kills/{kills[1]['id']}/lift")
    deck.wait("orders to pass again", lambda: not refusal(deck, lou, ETH), 20)


def test_an_account_is_flattened_under_running_algos_which_trade_on(deck: DeckUnderTest, lou: str) -> None:
    before = traded(deck, lou, closing=False)
    told_to_trade(deck, lou, 3)
    epochs = {name: deck.api.get(f"/algos/{name}")["epoch"] for name in LEGS}
    done = deck.api.post(f"/accounts/{lou}/flatten", {"reason": "a test"})
    assert (done["cancelled"], done["refused"]) == (len(LEGS), [])

    def ended() -> list[dict[str, Any]] | None:
        now = [deck.order(lou, each["client_order_id"]) for each in done["closing"]]
        return now if all(each["state"] == "filled" for each in now) else None

    closing = deck.wait("the closing orders filled", ended, 40)
    closed_once(closing, difference(traded(deck, lou, closing=False), before))
    nothing_left(deck, lou)
    # Nobody was halted, stopped or started anew; and they trade when they are told to.
    for name, epoch in epochs.items():
        now = deck.api.get(f"/algos/{name}")
        assert (now["state"], now["epoch"]) == ("running", epoch)
    assert refusal(deck, lou, BTC) == ""
    told_to_trade(deck, lou, 4)
    assert deck.api.post(f"/accounts/{lou}/flatten", {"reason": "done"})["refused"] == []
    deck.wait("nothing held", lambda: at_the_broker(deck, lou) == {}, 40)
