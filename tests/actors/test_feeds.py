"""Feeds that change while they stream: no tick lost, none doubled."""

from __future__ import annotations

import time

import pytest

from tests.support.deck import DeckUnderTest, Simulator
from tests.support.tap import Tap
from trading.errors import Refused

pytestmark = pytest.mark.cluster

SYMBOLS = 12


@pytest.fixture(scope="module")
def market(deck: DeckUnderTest) -> Simulator:
    # As many symbols as the deck's own market lists, so that each of those chosen ticks here too.
    return deck.simulator("--symbols", "20", "--rate", "1500", "--seed", "9", "--hold")


def instruments_of(deck: DeckUnderTest) -> list[str]:
    listed = deck.api.get("/instruments", provider="binance-spot", limit=100)["items"]
    return [i["id"] for i in listed][:SYMBOLS]


def sizes(deck: DeckUnderTest, feed: str) -> list[int]:
    """Live instruments by worker, largest first."""
    workers = deck.api.get(f"/feeds/{feed}")["live"]
    return sorted((sum(i["phase"] == "live" for i in w["instruments"]) for w in workers), reverse=True)


def test_workers_change_from_3_to_5_to_2_without_losing_or_doubling_a_tick(
    deck: DeckUnderTest, market: Simulator
) -> None:
    deck.api.post("/instruments/import", deck.source(market))
    wanted = instruments_of(deck)
    assert len(wanted) == SYMBOLS
    tap = Tap(deck.deck.settings.redis_url, "moving")
    deck.api.post("/feeds", {"id": "moving", **deck.source(market), "instruments": wanted, "workers": 3})
    # The market is held until all is ready: what has not ticked by then is not asked for again, nor its line given up.
    deck.api.put("/feeds/moving/tuning", {"freshness": {"pending_s": 600}})
    deck.wait("all subscribed", lambda: market.stats()["subscribed"] == 2 * SYMBOLS)
    market.control("start")
    deck.wait("an even split over 3", lambda: sizes(deck, "moving") == [4, 4, 4])
    deck.api.patch("/feeds/moving", {"workers": 5})
    deck.wait("an even split over 5", lambda: sizes(deck, "moving") == [3, 3, 2, 2, 2], 90)
    deck.api.patch("/feeds/moving", {"workers": 2})
    deck.wait("an even split over 2", lambda: sizes(deck, "moving") == [6, 6], 90)
    deck.wait(
        "the extra workers gone", lambda: not deck.actor("worker/moving/4") and not deck.actor("worker/moving/2"), 60
    )
    time.sleep(1.0)
    market.control("hold")

    def sent() -> int:
        found = market.stats()["streams"]
        return sum(s["messages"] for name, s in found.items() if name.endswith(("@trade", "@bookTicker")))

    # What this machine slept through is polled and filled in, and marked so.
    deck.wait("everything sent to arrive", lambda: tap.streamed() >= sent(), 20)
    assert tap.doubled() == 0
    assert tap.streamed() == sent()
    for (number, kind), seen in tap.sequences.items():
        assert len(set(seen)) == len(seen), (number, kind)
        if kind:
            assert max(seen) - min(seen) + 1 == len(seen), "trade ids are consecutive: one is missing"
    market.control("start")


def test_instruments_come_and_go_while_it_streams(deck: DeckUnderTest, market: Simulator) -> None:
    market.control("start")
    wanted = instruments_of(deck)
    gone = wanted[0]
    deck.api.delete(f"/feeds/moving/instruments/{gone}")
    deck.wait("it gone", lambda: gone not in deck.live_instruments("moving"), 30)
    deck.api.put(f"/feeds/moving/instruments/{gone}")
    deck.wait("it back", lambda: gone in deck.live_instruments("moving"), 30)


def test_a_dropped_connection_comes_back_and_carries_everything_again(deck: DeckUnderTest, market: Simulator) -> None:
    before = deck.api.get("/feeds/moving")["live"]
    market.control("drop")
    deck.wait(
        "reconnects",
        lambda: all(w["connected"] and w["reconnects"] > 0 for w in deck.api.get("/feeds/moving")["live"]),
        30,
    )
    counts = {w["shard"]: w["ticks"] for w in before}
    deck.wait(
        "new ticks from every worker",
        lambda: all(w["ticks"] > counts[w["shard"]] for w in deck.api.get("/feeds/moving")["live"]),
        30,
    )


def test_garbage_is_counted_and_the_stream_goes_on(deck: DeckUnderTest, market: Simulator) -> None:
    market.control("garbage", text="{ this is not json")
    deck.wait("the count", lambda: all(w["garbage"] > 0 for w in deck.api.get("/feeds/moving")["live"]), 20)
    deck.wait("all connected", lambda: all(w["connected"] for w in deck.api.get("/feeds/moving")["live"]), 20)


@pytest.mark.parametrize(("workers", "words"), [(0, "workers"), (1000, "workers")])
def test_a_worker_count_that_cannot_be_is_refused(deck: DeckUnderTest, workers: int, words: str) -> None:
    with pytest.raises(Refused, match=words):
        deck.api.patch("/feeds/moving", {"workers": workers})


def test_unknown_and_malformed_instruments_are_refused(deck: DeckUnderTest) -> None:
    with pytest.raises(Refused, match="BINANCE:NOSUCHTHING"):
        deck.api.put("/feeds/moving/instruments/BINANCE:NOSUCHTHING")
    with pytest.raises(Refused, match="instrument"):
        deck.api.put("/feeds/moving/instruments/lowercase")


def test_the_feed_ends_with_its_workers(deck: DeckUnderTest) -> None:
    deck.api.delete("/feeds/moving")
    deck.wait(
        "no actors of it", lambda: not any("/moving" in a["name"] for a in deck.api.get("/cluster")["actors"]), 60
    )
