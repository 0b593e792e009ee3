"""A Kite feed on a real deck: from its wire to REST, through bad frames, error messages and the end of its token."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from connectors.kite.wire import login_url
from tests.support.deck import DeckUnderTest, Simulator
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.cluster

FEED = "india"
INFY, NIFTY = "NSE:INFY", "NSE:NIFTY 50"
LOG_IN = {"api_key": "simulatedkey", "api_secret": "simulatedsecret"}


@pytest.fixture(scope="module")
def kite(deck: DeckUnderTest) -> Simulator:
    return deck.simulator("--unlimited", "--frames", "50", "--rate", "200", "--seed", "3", kind="kite")


def logged_in(kite: Simulator) -> dict[str, str]:
    """What a person who has logged in gives."""
    answer = httpx.get(login_url(LOG_IN["api_key"], kite.url), timeout=10)
    return LOG_IN | {"request_token": parse_qs(urlsplit(answer.headers["location"]).query)["request_token"][0]}


def worker(deck: DeckUnderTest) -> dict[str, Any]:
    """How the feed's worker goes ({}: it has not said)."""
    live = deck.api.get(f"/feeds/{FEED}")["live"]
    return dict(live[0]) if live else {}


def instruments(deck: DeckUnderTest) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in deck.api.get(f"/feeds/{FEED}/instruments")["items"]}


@pytest.fixture(scope="module")
def feed(deck: DeckUnderTest, kite: Simulator) -> str:
    deck.api.post("/users", {"id": "asha", "roles": ["trader"]})
    account = {
        "id": "asha-kite", "user": "asha", "connector": "kite", "enabled": False,
        "settings": {"base_url": kite.url}, "credentials": logged_in(kite),
    }  # fmt: skip
    deck.api.post("/accounts", account)
    body = {
        "id": FEED, "provider": "kite", "settings": {"account": "asha-kite", "base_url": kite.url},
        "instruments": [INFY, NIFTY], "channels": ["trade", "quote", "depth"], "workers": 1,
    }  # fmt: skip
    deck.api.post("/feeds", body)
    deck.wait("both live", lambda: {i["state"] for i in instruments(deck).values()} == {"live"})
    return FEED


def test_last_values_reach_rest(deck: DeckUnderTest, kite: Simulator, feed: str) -> None:
    deck.wait("a quote and a trade", lambda: (instruments(deck)[INFY]["last"] or {}).get("bid"))
    last = instruments(deck)[INFY]["last"]
    assert 1_000 < last["bid"] <= last["ask"] < 2_000
    assert 20_000 < instruments(deck)[NIFTY]["last"]["price"] < 30_000
    assert worker(deck)["garbage"] == 0
    found = deck.wait("rates", lambda: instruments(deck)[INFY] if instruments(deck)[INFY]["rate"] > 0 else None)
    assert found["ticks"] > 0
    assert found["quarantined"] == 0


def test_bad_frames_and_error_messages_are_counted_and_the_connection_is_kept(
    deck: DeckUnderTest, kite: Simulator, feed: str
) -> None:
    before = worker(deck)
    # Two packets are announced and cut off; a length that goes beyond the frame; no frame at all.
    for raw in ("00020008000639f9", "0001ffff000639f900025a58", "ffff"):
        kite.control("raw", hex=raw)
    kite.control("text", type="error", data="Something went wrong at the exchange")
    kite.control("text", type="order", data={"order_id": "1", "status": "COMPLETE"})
    deck.wait("three bad frames counted", lambda: worker(deck)["garbage"] == before["garbage"] + 3)
    after = deck.wait("ticks going on", lambda: worker(deck) if worker(deck)["ticks"] > before["ticks"] + 100 else None)
    assert (after["connected"], after["reconnects"]) == (True, before["reconnects"])
    assert len(kite.stats()["data"]["tickers"]) == 1


def test_a_token_that_ended_is_shown_and_a_new_one_is_taken_up_without_a_restart(
    deck: DeckUnderTest, kite: Simulator, feed: str
) -> None:
    pid = deck.wait("its process", lambda: deck.actor(f"worker/{FEED}/0").get("pid"))
    kite.control("logout")
    kite.control("drop")
    gone = deck.wait("the refusal", lambda: worker(deck) if "HTTP 403" in worker(deck)["reason"] else None)
    assert not gone["connected"]
    assert "connect/login?api_key=simulatedkey" in gone["reason"]
    deck.api.put("/accounts/asha-kite/credentials", {"credentials": logged_in(kite)})
    deck.wait("the new token taken up", lambda: worker(deck)["connected"], 30)
    since = worker(deck)["ticks"]
    deck.wait("ticks by it", lambda: worker(deck)["ticks"] > since + 50)
    assert deck.actor(f"worker/{FEED}/0")["pid"] == pid
    deck.wait("both live again", lambda: {i["state"] for i in instruments(deck).values()} == {"live"})
    # Kite tells no trades of the past: the gap is on record, and is filled by bars once its minute has closed.

    # There may be others, of times when this machine stood still.
    def own_gaps() -> list[dict[str, Any]]:
        found = [each for each in deck.api.get(f"/feeds/{FEED}/gaps")["items"] if each["instrument"] == INFY]
        return [each for each in found if each["reason"].startswith("the stream was gone")]

    assert {gap["state"] for gap in deck.wait("the gap on record", own_gaps)} <= {"waiting", "filled"}


def test_a_silent_ticker_is_a_dead_line_and_comes_back(deck: DeckUnderTest, kite: Simulator, feed: str) -> None:
    before = worker(deck)["reconnects"]
    began = time.monotonic()
    kite.control("mute")
    deck.wait("another connection", lambda: worker(deck)["reconnects"] > before and worker(deck)["connected"], 30)
    print(f"another connection after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 20 * PATIENCE
    since = worker(deck)["ticks"]
    deck.wait("ticks by it", lambda: worker(deck)["ticks"] > since + 50)
