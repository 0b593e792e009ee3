"""The head dies, in part and as a whole: what runs elsewhere goes on, and all of it is found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.chaos.machines import BTC, HEAD, change, head, is_alive, maker, place_of, second_node, send, trades, watched
from tests.support.books import check_books, settle
from tests.support.deck import SECOND_NODE, DeckUnderTest
from tests.support.patience import PATIENCE
from trading.errors import TradeError

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]

FEED = "far"
#: How long the control store is away; the target is a minute.
AWAY_S = float(os.environ.get("QUARTERDECK_HEAD_AWAY_S", "12"))
#: Patience with a deck that runs all of the suite's actors on two cores; alone it takes less than 20 s.
SECONDS = 90.0
#: All is adopted so soon after its return.
ADOPTED_S = 10.0


@pytest.fixture(scope="module")
def account(deck: DeckUnderTest) -> str:
    """An account whose connection, session, feed and algo can run away from the head."""
    change(deck, SECOND_NODE, labels={"site": "edge", "carries": "risk"})
    # Its worker stays where it is begun, so that must not be the head.
    change(deck, HEAD, labels={"site": "hq"}, cordoned=True)
    deck.api.post(
        "/feeds", {"id": FEED, **deck.source(deck.market), "instruments": [BTC], "nodes": [SECOND_NODE, HEAD]}
    )
    deck.wait("its worker on the second node", lambda: place_of(deck, f"worker/{FEED}/0")[0] == SECOND_NODE)
    change(deck, HEAD, cordoned=False)
    deck.wait(f"feed {FEED}", lambda: deck.live_instruments(FEED) == {BTC})
    return deck.account("farah", FEED, selector="site in (edge, hq)")


@pytest.fixture
def away(deck: DeckUnderTest, account: str) -> None:
    """All of it runs on the second node."""
    change(deck, SECOND_NODE, cordoned=False, draining=False)
    change(deck, HEAD, cordoned=True)
    deck.api.patch(f"/accounts/{account}", {"selector": "site=edge"})
    there = (*names(account), "risk/main", f"worker/{FEED}/0")
    deck.wait("all of it on the second node", lambda: all(place_of(deck, name)[0] == SECOND_NODE for name in there))
    deck.api.patch(f"/accounts/{account}", {"selector": "site in (edge, hq)"})
    change(deck, HEAD, cordoned=False)


def names(account: str) -> tuple[str, str]:
    return "session/farah", f"connection/{account}"


def test_the_control_store_is_away_and_nothing_that_trades_notices(
    deck: DeckUnderTest, account: str, away: None
) -> None:
    assert deck.deck._ray is not None
    with maker(deck, "steady", account, FEED, node=SECOND_NODE):
        deck.wait("trading", lambda: trades(deck, "steady", SECOND_NODE, 5))
        before = {name: place_of(deck, name) for name in (*names(account), "risk/main", "supervisor/main")}
        first = deck.api.get("/algos/steady")
        keeper = psutil.Process(deck.deck._ray.pid)
        keeper.suspend()
        try:
            next(each for each in head(deck) if each.name() == "gcs_server").kill()
            time.sleep(AWAY_S)
            there = deck.api.get("/algos/steady")["live"]
        finally:
            keeper.resume()
        began = time.monotonic()
        acked = there["orders_acked"]
        sent = acked - first["live"]["orders_acked"]
        print(f"{sent} orders in {AWAY_S:g} s")
        assert sent > AWAY_S / PATIENCE, "orders went on, more than one a second"
        assert there["denied"] == first["live"]["denied"], "none was refused"
        deck.wait("all of it adopted", lambda: adopted(deck, before), ADOPTED_S)
        print(f"adopted {time.monotonic() - began:.1f} s after its return")
        deck.wait("trading goes on", lambda: trades(deck, "steady", SECOND_NODE, acked))
        assert deck.api.get("/algos/steady")["epoch"] == first["epoch"]
    settle(deck, account)
    check_books(deck, account)


def adopted(deck: DeckUnderTest, before: dict[str, tuple[str, int]]) -> bool:
    """The Supervisor has looked lately, misses nothing, and finds the very processes that ran before."""
    try:
        view = deck.api.get("/cluster")
        found = {name: place_of(deck, name) for name in before}
    except TradeError:
        return False  # the API may be away itself
    is_whole = bool(view["age_s"] < 3.0 and not view["missing"] and all(pid for _, pid in found.values()))
    if is_whole:
        assert found == before, "others run than before"
    return is_whole


def test_the_whole_head_dies_and_what_runs_elsewhere_trades_on_and_is_adopted(
    deck: DeckUnderTest, account: str, away: None
) -> None:
    with maker(deck, "steady", account, FEED, node=SECOND_NODE):
        deck.wait("trading", lambda: trades(deck, "steady", SECOND_NODE, 5))
        first = deck.api.get("/algos/steady")
        going_on = (*names(account), "risk/main", f"algo/steady/{first['epoch']}")
        before = {name: place_of(deck, name) for name in going_on}
        deck.left_alone.set()
        send(head(deck), signal.SIGKILL)
        try:
            # Longer than what central risk has lent may be used without it.
            time.sleep(8.0)
            sent = orders(deck, account)
            deck.wait("orders that go on while there is no head", lambda: orders(deck, account) > sent, 4)
        finally:
            deck.left_alone.clear()
        with watched(deck):
            began = time.monotonic()
            deck.wait("all of it adopted", lambda: adopted(deck, before), 90)
            print(f"adopted {time.monotonic() - began:.1f} s after the deck noticed")
        deck.wait("trading goes on", lambda: trades(deck, "steady", SECOND_NODE, first["live"]["orders_acked"]))
        assert deck.api.get("/algos/steady")["epoch"] == first["epoch"]
    settle(deck, account)
    check_books(deck, account)


def orders(deck: DeckUnderTest, account: str) -> int:
    return int(deck.rows("SELECT count(*) FROM paper_orders WHERE account = %(a)s", {"a": account})[0][0])


def test_session_connection_and_feed_go_elsewhere_when_their_machine_falls_silent(
    deck: DeckUnderTest, account: str, away: None
) -> None:
    with maker(deck, "mover", account, FEED, placement={"selector": "site in (edge, hq)"}):
        change(deck, HEAD, cordoned=False)
        deck.wait("trading", lambda: any(trades(deck, "mover", where, 5) for where in (HEAD, SECOND_NODE)))
        old = {name: place_of(deck, name)[1] for name in names(account)}
        there = second_node(deck)
        send(there, signal.SIGSTOP)
        began = time.monotonic()
        try:
            deck.wait("session and connection on the head", lambda: all(
                place_of(deck, name)[0] == HEAD for name in names(account)
            ), SECONDS)  # fmt: skip
            took = time.monotonic() - began
            live = deck.api.get("/algos/mover")["live"] or {}
            # One that was on the machine that fell silent begins anew.
            acked = live.get("orders_acked", 0) if live.get("node") == HEAD else 0
            deck.wait("trading again", lambda: trades(deck, "mover", HEAD, acked), SECONDS)
        finally:
            send(there, signal.SIGCONT)
        print(f"elsewhere after {took:.1f} s, trading after {time.monotonic() - began:.1f} s")
        for name, pid in old.items():
            deck.wait(f"the end of the old {name}", lambda pid=pid: not is_alive(pid), 30)
    settle(deck, account)
    check_books(deck, account)


def test_what_ray_knows_is_forgotten_and_all_starts_anew(deck: DeckUnderTest, account: str) -> None:
    old = deck.wait_reborn(f"connection/{account}", 0)["pid"]
    with watched(deck):
        command = [sys.executable, "-m", "cluster", "reset-ray", "--data-dir", str(deck.home)]
        asked = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        deck.wait("the end of the old cluster", lambda: not is_alive(old), 30)
        said, _ = asked.communicate(timeout=120 * PATIENCE)
        assert (asked.returncode, said.strip()) == (0, "Ray's state is forgotten; everything was started anew.")
        deck.wait("all of it", lambda: is_whole(deck), 60)
    deck.wait_reborn(f"connection/{account}", old)
    settle(deck, account)


def is_whole(deck: DeckUnderTest) -> bool:
    try:
        view = deck.api.get("/cluster")
    except TradeError:
        return False
    return view["age_s"] < 3.0 and not view["missing"]
