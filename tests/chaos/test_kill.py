"""kill -9 of every kind of process while algos trade: it returns by itself, nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.support.books import settle
from tests.support.deck import SECOND_NODE, DeckUnderTest
from trading.errors import TradeError

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(240)]

USER, ACCOUNT, FEED = "carol", "carol-paper", "chaos"
MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}


@pytest.fixture(scope="module")
def trading(deck: DeckUnderTest) -> Iterator[None]:
    """A user whose two market makers trade on two nodes."""
    instruments = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]
    deck.feed(FEED, deck.market, instruments, workers=2)
    deck.account(USER, FEED)
    for name, instrument, node in (("chaos-1", instruments[0], "head"), ("chaos-2", instruments[1], SECOND_NODE)):
        deck.api.post(
            "/algos",
            {
                "id": name,
                "strategy": "market-maker",
                "account": ACCOUNT,
                "feed": FEED,
                "instruments": [instrument],
                "node": node,
                "parameters": MAKER,
                "start": True,
            },
        )
    deck.wait("fills of both", lambda: all(live(deck, n).get("fills", 0) > 0 for n in ("chaos-1", "chaos-2")), 90)
    yield
    for name in ("chaos-1", "chaos-2"):
        deck.api.post(f"/algos/{name}/stop")
    deck.wait(
        "the end", lambda: all(deck.api.get(f"/algos/{n}")["state"] == "stopped" for n in ("chaos-1", "chaos-2")), 60
    )
    settle(deck, ACCOUNT)


def live(deck: DeckUnderTest, name: str) -> dict[str, Any]:
    try:
        return dict(deck.api.get(f"/algos/{name}").get("live") or {})
    except TradeError:
        return {}


def orders(deck: DeckUnderTest) -> int:
    return int(deck.rows("SELECT count(*) FROM orders WHERE account = %(a)s", {"a": ACCOUNT})[0][0])


def trades_on(deck: DeckUnderTest) -> None:
    """New orders come, the books agree, no break is open."""
    before = orders(deck)
    deck.wait("new orders", lambda: orders(deck) > before + 2, 90)
    settle(deck, ACCOUNT, 60)
    deck.wait("no open breaks", lambda: deck.rows("SELECT count(*) FROM breaks WHERE resolved_at = 0") == [(0,)], 60)


@pytest.mark.parametrize(
    "name",
    [
        f"session/{USER}",
        f"connection/{ACCOUNT}",
        "risk/main",
        "supervisor/main",
        f"coordinator/{FEED}",
        f"worker/{FEED}/0",
        f"node/{SECOND_NODE}",
    ],
)
def test_a_killed_actor_returns_by_itself(deck: DeckUnderTest, trading: None, name: str) -> None:
    pid = deck.kill(name)
    deck.wait_reborn(name, pid)
    if name.startswith("worker/"):
        deck.wait("its instruments live again", lambda: len(deck.live_instruments(FEED)) == 2, 60)
    trades_on(deck)


def test_a_killed_algo_is_started_again_under_a_new_epoch(deck: DeckUnderTest, trading: None) -> None:
    before = deck.api.get("/algos/chaos-2")
    deck.kill(f"algo/chaos-2/{before['epoch']}")
    deck.wait(
        "a new epoch running",
        lambda: (now := deck.api.get("/algos/chaos-2"))["epoch"] > before["epoch"] and now["state"] == "running",
        60,
    )
    trades_on(deck)


def test_a_paused_session_is_not_two_sessions(deck: DeckUnderTest, trading: None) -> None:
    """SIGSTOP longer than a call waits, then SIGCONT: intents asked for meanwhile act at most once."""
    pid = deck.kill(f"session/{USER}", number=signal.SIGSTOP)
    try:
        deck.wait("the silence to be seen", lambda: deck.actor(f"session/{USER}").get("answers") is False, 30)
    finally:
        os.kill(pid, signal.SIGCONT)
    deck.wait("it back", lambda: deck.actor(f"session/{USER}").get("state") == "ready", 60)
    trades_on(deck)


def test_postgres_killed_refuses_new_orders_and_comes_back(deck: DeckUnderTest, trading: None) -> None:
    postgres = deck.deck._postgres
    assert postgres is not None
    os.kill(postgres.pid, signal.SIGKILL)
    deck.wait("PostgreSQL gone", lambda: not postgres.alive(), 10)
    session = f"session/{USER}"
    deck.wait("PostgreSQL back", lambda: "PostgreSQL" in deck.deck.watch() or postgres.alive(), 60)
    deck.wait("the session ready", lambda: deck.actor(session).get("state") == "ready", 60)
    trades_on(deck)


def test_redis_killed_stops_ticks_until_it_is_back(deck: DeckUnderTest, trading: None) -> None:
    redis = deck.deck._redis
    assert redis is not None
    os.kill(redis.pid, signal.SIGKILL)
    deck.wait("Redis gone", lambda: not redis.alive(), 10)
    deck.wait("Redis back", lambda: "Redis" in deck.deck.watch() or redis.alive(), 60)
    trades_on(deck)


def raylet_of(child_pid: int) -> int:
    """The raylet that a `ray start` process watches over."""
    found = [p.pid for p in psutil.Process(child_pid).children(recursive=True) if p.name() == "raylet"]
    assert len(found) == 1, f"{len(found)} raylets below process {child_pid}"
    return found[0]


def test_a_node_killed_comes_back_with_its_algo(deck: DeckUnderTest, trading: None) -> None:
    before = deck.api.get("/algos/chaos-2")
    os.kill(raylet_of(deck.deck._nodes[SECOND_NODE].pid), signal.SIGKILL)
    deck.wait("its end to be seen", lambda: f"node {SECOND_NODE}" in deck.deck.watch(), 60)
    deck.wait(
        "the algo on it running under a new epoch",
        lambda: (now := deck.api.get("/algos/chaos-2"))["epoch"] > before["epoch"] and now["state"] == "running",
        120,
    )
    assert deck.api.get("/algos/chaos-1")["state"] == "running"
    trades_on(deck)


def test_the_head_killed_and_all_is_created_again_from_postgres(deck: DeckUnderTest, trading: None) -> None:
    ray = deck.deck._ray
    assert ray is not None
    os.kill(raylet_of(ray.pid), signal.SIGKILL)
    deck.wait("its end to be seen", lambda: "the Ray head" in deck.deck.watch(), 60)

    def running() -> bool:
        try:
            return all(deck.api.get(f"/algos/{n}")["state"] == "running" for n in ("chaos-1", "chaos-2"))
        except TradeError:
            return False

    deck.wait("both algos running again", running, 120)
    trades_on(deck)


def test_the_api_killed_comes_back_and_trading_goes_on_meanwhile(deck: DeckUnderTest, trading: None) -> None:
    before = orders(deck)
    api = deck.deck._api
    assert api is not None
    os.kill(api.pid, signal.SIGKILL)
    deck.wait("orders without an API", lambda: orders(deck) > before + 2, 60)
    deck.wait("its end to be seen", lambda: "the API" in deck.deck.watch(), 20)

    def answers() -> bool:
        try:
            return bool(deck.api.get("/cluster")["actors"])
        except TradeError:
            return False

    deck.wait("the API back", answers, 60)
    trades_on(deck)
