"""Ticks and books from a real worker to a WebSocket client, also when the worker is killed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.deck import DeckUnderTest
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FEED = "booked"
IDS = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]


def updates(socket: ClientConnection, seconds: float = 20.0 * PATIENCE) -> list[dict[str, Any]]:
    """The next message's."""
    found: list[dict[str, Any]] = json.loads(socket.recv(seconds)).get("updates", [])
    return found


def test_a_client_sees_ticks_and_books_and_goes_on_after_the_worker_was_killed(deck: DeckUnderTest) -> None:
    deck.api.post(
        "/feeds",
        {"id": FEED, **deck.source(deck.market), "instruments": IDS, "channels": ["trade", "quote", "book"]},
    )
    deck.wait("the feed", lambda: deck.live_instruments(FEED) == set(IDS))
    ticks, depth = (f"{kind}:{FEED}/{IDS[0]}" for kind in ("ticks", "depth"))
    # Both kinds of value are among the last ones once a trade and a quote have come.
    with connect(deck.deck.api_url.replace("http", "ws") + "/v1/stream") as socket:
        socket.send(json.dumps({"key": deck.key, "topics": [ticks, depth]}))
        assert json.loads(socket.recv(10 * PATIENCE))["topics"] == [ticks, depth]
        seen: dict[str, list[dict[str, Any]]] = {ticks: [], depth: []}

        def take(count: int) -> None:
            wanted = {topic: len(told) + count for topic, told in seen.items()}
            while any(len(seen[topic]) < wanted[topic] for topic in seen):
                for each in updates(socket):
                    seen[each["topic"]].append(each)

        def last(topic: str, has: str) -> dict[str, Any]:
            """The newest value of a topic that has something; what is not known yet (a book that is loading) comes."""
            while not (found := [each["body"] for each in seen[topic] if each["body"].get(has)]):
                take(1)
            return dict(found[-1])

        take(5)
        for told in seen.values():
            for before, after in itertools.pairwise(told):
                assert after["n"] == before["n"] + after["skipped"] + 1
        body = last(depth, "bids")
        assert len(body["bids"]) == len(body["asks"]) == 5
        assert body["bids"] == sorted(body["bids"], reverse=True)
        assert body["asks"] == sorted(body["asks"])
        assert body["bids"][0][0] < body["asks"][0][0]
        quote = last(ticks, "bid")
        assert quote["bid"] < quote["ask"]
        pid = deck.kill(f"worker/{FEED}/0")
        deck.wait_reborn(f"worker/{FEED}/0", pid)
        deck.wait("ticks again", lambda: deck.live_instruments(FEED) == set(IDS))
        for told in seen.values():
            told.clear()
        take(5)
        assert last(depth, "bids")
    text = deck.api.get("/feeds/" + FEED)
    assert text["channels"] == ["trade", "quote", "book"]
    deck.api.delete(f"/feeds/{FEED}")
