"""A machine that falls silent: its algo goes on elsewhere, and what wakes up there does nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.callers import DirectCaller
from tests.chaos.machines import BTC, HEAD, change, is_alive, maker, second_node, send, trades
from tests.support.books import check_books, settle
from tests.support.deck import SECOND_NODE, DeckUnderTest
from tests.support.patience import PATIENCE
from trading.errors import Unreachable
from trading.ids import AccountId, AlgoId, InstrumentId, Nanos, client_order_id
from trading.orders import OrderType, PlaceOrder, Side

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]

FEED = "roaming"
#: Detected, fenced and trading elsewhere within this.
SECONDS = 15.0


@pytest.fixture(scope="module")
def account(deck: DeckUnderTest) -> str:
    deck.feed(FEED, deck.market, [BTC])
    return deck.account("roger", FEED)


@contextlib.contextmanager
def roamer(deck: DeckUnderTest, account: str) -> Iterator[str]:
    """An algo that may run on any machine, and runs on the second one."""
    change(deck, HEAD, cordoned=True)
    with maker(deck, "roamer", account, FEED):
        deck.wait("the algo trading on the second node", lambda: trades(deck, "roamer", SECOND_NODE))
        change(deck, HEAD, cordoned=False)
        yield "roamer"


def test_a_machine_that_falls_silent_loses_its_algo_to_another_and_cannot_act_when_it_wakes(
    deck: DeckUnderTest, account: str
) -> None:
    with roamer(deck, account):
        before = deck.api.get("/algos/roamer")
        pid = int(deck.wait("its process", lambda: deck.actor(f"algo/roamer/{before['epoch']}").get("pid")))
        there = second_node(deck)
        send(there, signal.SIGSTOP)
        began = time.monotonic()
        try:
            deck.wait("the algo trading on the head", lambda: trades(deck, "roamer", HEAD), SECONDS)
            took = time.monotonic() - began
        finally:
            send(there, signal.SIGCONT)
        print(f"trading elsewhere after {took:.1f} s")
        after = deck.api.get("/algos/roamer")
        assert after["epoch"] > before["epoch"]
        assert after["placed"] == HEAD
        deck.wait("the end of the old process", lambda: not is_alive(pid), 30)
        deck.wait("one incarnation", lambda: len(incarnations(deck)) == 1, 30)
    settle(deck, account)
    check_books(deck, account)


def incarnations(deck: DeckUnderTest) -> list[str]:
    return [each["name"] for each in deck.api.get("/cluster")["actors"] if each["name"].startswith("algo/roamer/")]


def test_an_older_incarnation_is_refused_by_the_session(deck: DeckUnderTest, account: str) -> None:
    with roamer(deck, account):
        epoch = deck.api.get("/algos/roamer")["epoch"]
        intent = PlaceOrder(
            account=AccountId(account), client_order_id=client_order_id("roamer-900000"), side=Side.BUY,
            instrument=InstrumentId(BTC), type=OrderType.MARKET, quantity=Decimal("0.001"),
            algo=AlgoId("roamer"), created_at=Nanos(time.time_ns()),
        )  # fmt: skip
        calls: list[tuple[str, list[Any]]] = [
            ("place", [[intent], epoch - 1]),
            ("cancel", [[], epoch - 1, "roamer"]),
            ("begin_algo", [account, "roamer", epoch - 1]),
        ]

        async def answers() -> list[dict[str, Any]]:
            caller = DirectCaller(deck.deck.settings, lambda: 0)
            try:
                return [await answer(caller, method, arguments) for method, arguments in calls]
            finally:
                await caller.close()

        said = asyncio.run(answers())
        assert [each.get("error") for each in said] == ["Fenced"] * 3, said
    assert not deck.rows("SELECT 1 FROM orders WHERE client_order_id = 'roamer-900000'")


async def answer(caller: DirectCaller, method: str, arguments: list[Any]) -> dict[str, Any]:
    """What the session says, asked again while a busy one gives no answer."""
    deadline = time.monotonic() + 60 * PATIENCE
    while True:
        try:
            said = await caller.ask(60.0, op="call", user="roger", method=method, args=arguments)
        except Unreachable as error:
            said = {"error": "Unreachable", "detail": str(error)}
        if said.get("error") not in ("Unreachable", "NotReady") or time.monotonic() > deadline:
            return said


def test_a_machine_is_emptied_in_order(deck: DeckUnderTest, account: str) -> None:
    with roamer(deck, account):
        change(deck, SECOND_NODE, draining=True, force=True)
        deck.wait("the algo trading on the head", lambda: trades(deck, "roamer", HEAD), 30)
        shown = next(each for each in deck.api.get("/nodes")["items"] if each["name"] == SECOND_NODE)
        assert shown["draining"]
        assert "roamer" not in [each["id"] for each in shown["algos"]]
    settle(deck, account)
    check_books(deck, account)
