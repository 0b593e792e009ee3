"""Workers that die, sleep and are lied to while they stream, and a coordinator that dies amid a resize."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from cluster.children import end_tree
from tests.support.deck import SECOND_NODE, DeckUnderTest, Simulator
from tests.support.patience import PATIENCE
from tests.support.tap import Tap

pytestmark = pytest.mark.cluster

SYMBOLS = 12
#: Instruments of a worker that is killed are live again within.
AGAIN_S = 5.0


@pytest.fixture(scope="module")
def market(deck: DeckUnderTest) -> Simulator:
    # As many symbols as the deck's own market lists, so that each of them ticks here too.
    return deck.simulator("--symbols", "20", "--rate", "1500", "--seed", "11", "--hold")


@pytest.fixture(scope="module")
def wanted(deck: DeckUnderTest, market: Simulator) -> list[str]:
    deck.api.post("/instruments/import", deck.source(market))
    listed = deck.api.get("/instruments", provider="binance-spot", limit=100)["items"]
    return [each["id"] for each in listed][:SYMBOLS]


@pytest.fixture(scope="module")
def numbers(deck: DeckUnderTest) -> dict[str, int]:
    listed = deck.api.get("/instruments", provider="binance-spot", limit=100)["items"]
    return {each["id"]: each["number"] for each in listed}


def feed(deck: DeckUnderTest, market: Simulator, name: str, instruments: list[str], workers: int, **more: Any) -> Tap:
    """A feed that is settled and ticks, and everything published of it from the first tick on."""
    market.control("ignore", streams=[])
    tap = Tap(deck.deck.settings.redis_url, name)
    # The feed before this one is gone, and so are its connections.
    deck.wait("nobody subscribed", lambda: market.stats()["subscribed"] == 0, 20)
    wanted = {"id": name, **deck.source(market), "instruments": instruments, "workers": workers, **more}
    deck.api.post("/feeds", wanted)
    deck.wait("all subscribed", lambda: market.stats()["subscribed"] >= 2 * len(instruments))
    market.control("start")
    settled(deck, name)
    return tap


def settled(deck: DeckUnderTest, name: str, seconds: float = 60.0) -> dict[str, Any]:
    """Wait until every instrument is where it should be and has ticks."""

    def look() -> dict[str, Any] | None:
        shown = deck.api.get(f"/feeds/{name}")
        live = {i["id"] for w in shown["live"] for i in w["instruments"] if i["state"] == "live"}
        return shown if shown["settled"] and live >= set(shown["instruments"]) else None

    found: dict[str, Any] = deck.wait(f"feed {name} settled", look, seconds)
    return found


def sizes(deck: DeckUnderTest, name: str) -> list[int]:
    return sorted((len(mine) for mine in deck.api.get(f"/feeds/{name}")["assignment"].values()), reverse=True)


def worker(deck: DeckUnderTest, name: str, shard: int) -> dict[str, Any]:

    def answers() -> dict[str, Any]:
        actor = deck.actor(f"worker/{name}/{shard}")
        return actor if actor.get("pid") else {}

    found: dict[str, Any] = deck.wait("the worker", answers)
    return found


def end(deck: DeckUnderTest, market: Simulator, name: str) -> None:
    market.control("hold")
    deck.api.delete(f"/feeds/{name}")
    deck.wait("no actors of it", lambda: not any(f"/{name}" in a["name"] for a in deck.api.get("/cluster")["actors"]))


def all_arrived(deck: DeckUnderTest, market: Simulator, tap: Tap) -> None:
    """Hold the market and wait until nothing more comes."""
    market.control("hold")
    before = -1

    def quiet() -> bool:
        nonlocal before
        same, before = tap.ticks == before, tap.ticks
        time.sleep(0.5)
        return same

    deck.wait("the ticks to end", quiet)


def carried_once_each(deck: DeckUnderTest, name: str, wanted: list[str]) -> None:
    def carried() -> list[str]:
        return sorted(i["id"] for w in deck.api.get(f"/feeds/{name}")["live"] for i in w["instruments"])

    # Workers tell it twice a second, those that were removed say nothing any more.
    deck.wait("each carried once", lambda: carried() == sorted(wanted), 10)


def test_instruments_of_a_killed_worker_are_live_again_within_seconds_and_go_back_evenly(
    deck: DeckUnderTest, market: Simulator, wanted: list[str], numbers: dict[str, int]
) -> None:
    tap = feed(deck, market, "dying", wanted, 3)
    victims = [numbers[each] for each in deck.api.get("/feeds/dying")["assignment"]["1"]]
    assert len(victims) == SYMBOLS // 3
    epoch = worker(deck, "dying", 1)["epoch"]
    tap.forget_who()
    pid = deck.kill("worker/dying/1")
    at = time.monotonic()
    deck.wait("all live again", lambda: all(tap.published(n, at, but=(1, epoch)) for n in victims), 30)
    took = [round((tap.published(n, at, but=(1, epoch)) or 0.0) - at, 2) for n in victims]
    print("live again after", took)
    assert max(took) <= AGAIN_S * PATIENCE
    deck.wait_reborn("worker/dying/1", pid)
    settled(deck, "dying")
    deck.wait("an even split", lambda: sizes(deck, "dying") == [4, 4, 4])
    all_arrived(deck, market, tap)
    carried_once_each(deck, "dying", wanted)
    assert tap.doubled() == 0
    end(deck, market, "dying")


def test_a_worker_that_slept_publishes_nothing_when_it_wakes_up(
    deck: DeckUnderTest, market: Simulator, wanted: list[str], numbers: dict[str, int]
) -> None:
    tap = feed(deck, market, "sleeping", wanted, 3)
    victims = [numbers[each] for each in deck.api.get("/feeds/sleeping")["assignment"]["2"]]
    epoch = worker(deck, "sleeping", 2)["epoch"]
    tap.forget_who()
    pid = deck.kill("worker/sleeping/2", number=signal.SIGSTOP)
    at = time.monotonic()
    try:
        deck.wait("others have them", lambda: all(tap.published(n, at, but=(2, epoch)) for n in victims), 30)
        took = [round((tap.published(n, at, but=(2, epoch)) or 0.0) - at, 2) for n in victims]
        print("live again after", took)
        time.sleep(1.0)
        woken_at = time.monotonic()
    finally:
        os.kill(pid, signal.SIGCONT)
    deck.wait_reborn("worker/sleeping/2", pid)
    settled(deck, "sleeping")
    deck.wait("an even split", lambda: sizes(deck, "sleeping") == [4, 4, 4])
    all_arrived(deck, market, tap)
    assert tap.last_from[(2, epoch)] < woken_at
    assert tap.doubled() == 0
    carried_once_each(deck, "sleeping", wanted)
    end(deck, market, "sleeping")


def test_instruments_of_a_machine_that_is_gone_are_live_again_on_another(
    deck: DeckUnderTest, market: Simulator, wanted: list[str], numbers: dict[str, int]
) -> None:
    head = next(n["name"] for n in deck.api.get("/nodes")["items"] if n["name"] != SECOND_NODE)
    tap = feed(deck, market, "spread", wanted, 3, nodes=[head, SECOND_NODE])
    assert [worker(deck, "spread", n)["node"] for n in range(3)] == [head, SECOND_NODE, head]
    victims = [numbers[each] for each in deck.api.get("/feeds/spread")["assignment"]["1"]]
    before = worker(deck, "spread", 1)
    machine = deck.deck._nodes[SECOND_NODE]
    tap.forget_who()
    at = time.monotonic()
    end_tree(machine.pid, 0.0)
    try:
        deck.wait("others have them", lambda: all(tap.published(n, at, but=(1, before["epoch"])) for n in victims), 60)
        took = [round((tap.published(n, at, but=(1, before["epoch"])) or 0.0) - at, 2) for n in victims]
        print("live again after", took)
        assert max(took) <= AGAIN_S * PATIENCE
    finally:
        deck.deck.add_node(SECOND_NODE)
    deck.wait_reborn("worker/spread/1", before["pid"], 120)
    settled(deck, "spread", 60)
    deck.wait("an even split", lambda: sizes(deck, "spread") == [4, 4, 4])
    all_arrived(deck, market, tap)
    assert tap.doubled() == 0
    carried_once_each(deck, "spread", wanted)
    end(deck, market, "spread")


def test_a_coordinator_killed_amid_a_resize_loses_and_doubles_nothing(
    deck: DeckUnderTest, market: Simulator, wanted: list[str]
) -> None:
    tap = feed(deck, market, "steered", wanted, 2)
    for workers, even in ((4, [3, 3, 3, 3]), (2, [6, 6])):
        pid = int(deck.wait("the coordinator", lambda: deck.actor("coordinator/steered").get("pid")))
        deck.api.patch("/feeds/steered", {"workers": workers})
        # Shown twice a second: it may be done before it was shown to have begun.
        deck.wait(
            "the resize to begin",
            lambda: not deck.api.get("/feeds/steered")["settled"] or sizes(deck, "steered") == even,  # noqa: B023
            20,
        )
        deck.wait(
            "moves under way",
            lambda: deck.api.get("/feeds/steered")["moving"] or sizes(deck, "steered") == even,  # noqa: B023
            30,
        )
        os.kill(pid, signal.SIGKILL)
        deck.wait_reborn("coordinator/steered", pid)
        settled(deck, "steered", 90)
        deck.wait("an even split", lambda: sizes(deck, "steered") == even)  # noqa: B023
    all_arrived(deck, market, tap)
    carried_once_each(deck, "steered", wanted)
    assert tap.doubled() == 0
    deck.wait("every trade", lambda: tap.missing_trades() == 0, 10)
    end(deck, market, "steered")


def test_what_the_provider_passes_over_in_silence_stays_where_it_ticks(
    deck: DeckUnderTest, market: Simulator, wanted: list[str]
) -> None:
    four = wanted[:4]
    tap = feed(deck, market, "lied-to", four, 1)
    symbols = [each.partition(":")[2].lower() for each in four[:3]]
    market.control("ignore", streams=[f"{s}@{kind}" for s in symbols for kind in ("trade", "bookTicker")])
    deck.api.patch("/feeds/lied-to", {"workers": 2})
    shown = deck.wait(
        "the lie found out", lambda: (found := deck.api.get("/feeds/lied-to"))["passed_over"] and found, 60
    )
    assert {each for each, _ in shown["passed_over"]} <= set(four[:3])
    assert {shard for _, shard in shown["passed_over"]} == {1}

    def live(shard: int) -> list[str]:
        workers = deck.api.get("/feeds/lied-to")["live"]
        return sorted(i["id"] for w in workers if w["shard"] == shard for i in w["instruments"] if i["phase"] == "live")

    # The one for which it keeps its word moves.
    deck.wait("one moved", lambda: (live(0), live(1)) == (sorted(four[:3]), [four[3]]), 60)
    assert not deck.api.get("/feeds/lied-to")["settled"]
    all_arrived(deck, market, tap)
    assert (live(0), live(1)) == (sorted(four[:3]), [four[3]])
    market.control("ignore", streams=[])
    assert tap.doubled() == 0
    deck.wait("every trade", lambda: tap.missing_trades() == 0, 10)
    end(deck, market, "lied-to")


def test_a_wish_widens_and_narrows_what_is_streamed_without_a_restart(
    deck: DeckUnderTest, market: Simulator, wanted: list[str]
) -> None:
    tap = feed(deck, market, "tuned", wanted[:3], 1)

    def processes() -> dict[str, int]:
        found = {a["name"]: a["pid"] for a in deck.api.get("/cluster")["actors"] if "/tuned" in a["name"]}
        return found if all(found.values()) else {}

    # One that does not answer for a moment is shown without.
    pids = deck.wait("the feed's processes", processes, 20)
    one = wanted[5].partition(":")[2].lower()
    deck.api.put(f"/feeds/tuned/clients/momo/instruments/{wanted[5]}?channels=trade")
    deck.wait("its trades alone", lambda: ticks_come_of(market, one) == {"trade"}, 20)
    deck.api.put(f"/feeds/tuned/clients/panel/instruments/{wanted[5]}?channels=quote")
    deck.wait("its quotes too", lambda: ticks_come_of(market, one) == {"trade", "bookTicker"}, 20)
    deck.api.delete("/feeds/tuned/clients/momo")
    deck.wait("no trades any more", lambda: ticks_come_of(market, one) == {"bookTicker"}, 20)
    deck.api.delete("/feeds/tuned/clients/panel")
    deck.wait("nothing of it", lambda: not ticks_come_of(market, one), 20)
    settled(deck, "tuned")
    all_arrived(deck, market, tap)
    assert tap.doubled() == 0
    assert deck.wait("the feed's processes", processes, 20) == pids
    end(deck, market, "tuned")


def ticks_come_of(market: Simulator, symbol: str) -> set[str]:
    """Kinds of stream of a symbol of which something was sent in the last two seconds."""
    before = market.stats()["streams"]
    time.sleep(2.0)
    after = market.stats()["streams"]
    return {
        name.partition("@")[2]
        for name in after
        if name.startswith(f"{symbol}@") and after[name]["sent"] != before.get(name, {"sent": 0})["sent"]
    }
