"""A venue that misbehaves, on a real deck: states, counts and back-fill are right.

Every trade comes out once, streamed or filled in and marked so.  What else breaks: `tests/chaos/test_feed_soak.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from typing import Any

import httpx
import pytest

from cluster import streams
from storage.bus import Bus
from tests.support.deck import DeckUnderTest, Simulator
from tests.support.patience import PATIENCE
from trading.ticks import BACKFILLED, SNAPSHOT, TRADE, unpack_batch

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]

FEED = "unruly"
SYMBOLS = 8
FRESHNESS = {"least_s": 1.5, "first_s": 3.0, "pending_s": 3.0, "step_s": 1.0, "again_s": 5.0}


class Trades:
    """Every trade that was published of a feed."""

    def __init__(self, redis_url: str, feed: str) -> None:
        #: Instrument number -> (sequence, whether it was filled in).
        self.seen: dict[int, list[tuple[int, bool]]] = defaultdict(list)
        self.count = 0
        self._ready = threading.Event()

        async def listen() -> None:
            subscription = await Bus(redis_url).subscribe([streams.ticks(feed)], [], size=100_000)
            self._ready.set()
            async for channel, raw in subscription:
                if channel:
                    self._take(raw)

        threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
        assert self._ready.wait(10), "the bus could not be listened to within 10 s"

    def _take(self, raw: bytes) -> None:
        ticks = unpack_batch(raw)[3]
        for number, flags, sequence in zip(
            *(ticks[field].tolist() for field in ("instrument", "flags", "sequence")), strict=True
        ):
            if flags & TRADE and not flags & SNAPSHOT:
                self.count += 1
                self.seen[number].append((sequence, bool(flags & BACKFILLED)))

    def missing(self) -> dict[int, list[int]]:
        """By instrument, the trades between its first and last that did not come out."""
        spans = {number: {sequence for sequence, _ in own} for number, own in list(self.seen.items())}
        lost = {n: sorted(set(range(min(own), max(own) + 1)) - own) for n, own in spans.items()}
        return {number: own for number, own in lost.items() if own}

    def doubled(self) -> int:
        spans = [[sequence for sequence, _ in own] for own in self.seen.values()]
        return sum(len(own) - len(set(own)) for own in spans)


@pytest.fixture(scope="module")
def market(deck: DeckUnderTest) -> Simulator:
    return deck.simulator("--symbols", str(SYMBOLS), "--rate", "400", "--seed", "21")


@pytest.fixture(scope="module")
def names(deck: DeckUnderTest, market: Simulator) -> list[str]:
    deck.api.post("/instruments/import", deck.source(market))
    listed = httpx.get(f"{market.url}/api/v3/exchangeInfo", timeout=10).json()["symbols"]
    return sorted(f"BINANCE:{each['symbol']}" for each in listed)


@pytest.fixture(scope="module")
def trades(deck: DeckUnderTest, market: Simulator, names: list[str]) -> Trades:
    tap = Trades(deck.deck.settings.redis_url, FEED)
    deck.feed(FEED, market, names, workers=2)
    deck.api.put(f"/feeds/{FEED}/tuning", {"freshness": FRESHNESS})
    # Some seconds, so that each has a habit.
    time.sleep(20)
    return tap


def instruments(deck: DeckUnderTest, **query: Any) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in deck.api.get(f"/feeds/{FEED}/instruments", **query)["items"]}


def gaps(deck: DeckUnderTest, **query: Any) -> list[dict[str, Any]]:
    return list(deck.api.get(f"/feeds/{FEED}/gaps", limit=1000, **query)["items"])


def total(deck: DeckUnderTest, field: str) -> int:
    return sum(int(each[field]) for each in deck.api.get(f"/feeds/{FEED}")["live"])


def silence(market: Simulator, name: str, *, begin: bool = True) -> None:
    symbol = name.partition(":")[2].lower()
    for kind in ("trade", "bookTicker"):
        market.control("pause" if begin else "resume", stream=f"{symbol}@{kind}")


def settled(deck: DeckUnderTest, trades: Trades) -> None:
    """Wait until all are live and every gap is filled."""
    deck.wait("all live", lambda: {each["state"] for each in instruments(deck).values()} == {"live"})
    deck.wait("all filled", lambda: all(gap["state"] == "filled" for gap in gaps(deck)), 60)
    deadline = time.monotonic() + 20 * PATIENCE
    while lost := trades.missing():
        if time.monotonic() > deadline:
            ranges = {number: (own[0], own[-1], len(own)) for number, own in lost.items()}
            brief = [(g["instrument"], g["since"], g["until"], g["state"], g["trades"]) for g in gaps(deck)]
            pytest.fail(f"missing {ranges}; gaps {brief}; unpublished {total(deck, 'unpublished')}")
        time.sleep(0.2)


def test_a_part_of_a_subscription_that_goes_silent_is_found_out_and_filled_in(
    deck: DeckUnderTest, market: Simulator, names: list[str], trades: Trades
) -> None:
    quiet = names[:2]
    for name in quiet:
        silence(market, name)
    # Others too, for a moment, where this machine stands still.
    found = deck.wait("both stale", lambda: f if set(f := instruments(deck, state="stale")) == set(quiet) else None, 30)
    assert all(each["reason"].startswith("silent for") for each in found.values())
    deck.wait("polls", lambda: all(instruments(deck)[name]["polled"] for name in quiet), 30)
    for name in quiet:
        silence(market, name, begin=False)
    settled(deck, trades)
    assert trades.doubled() == 0
    for name in quiet:
        found = gaps(deck, instrument=name)
        assert any((gap["reason"], gap["trades"] > 0) == ("it fell silent", True) for gap in found), found
        assert instruments(deck)[name]["gaps"] >= 1


def test_bad_ticks_are_counted_shown_and_given_to_nobody(
    deck: DeckUnderTest, market: Simulator, names: list[str], trades: Trades
) -> None:
    victim = names[3]
    symbol = victim.partition(":")[2]

    def refused(which: str) -> dict[str, int]:
        shown = deck.api.get(f"/feeds/{FEED}/quarantine")["items"]
        return next((dict(each["counts"]) for each in shown if each["instrument"] == which), {})

    # Also of real ones: a jump is believed once a few ticks agree.
    before = {each: refused(each) for each in names}
    for price in ("0.00000001", "999999999.0", "-1.0"):
        at = time.time_ns() // 1_000_000
        market.control(
            "garbage",
            text=f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":{at},"s":"{symbol}","t":1,'
            f'"p":"{price}","q":"1.0","T":{at},"m":true,"M":true}}}}',
        )
    market.control("garbage", text="{not json")
    shown = deck.wait(
        "the bad ticks shown",
        lambda: next(
            (
                each
                for each in deck.api.get(f"/feeds/{FEED}/quarantine")["items"]
                if each["instrument"] == victim and len(each["last"]) >= 3
            ),
            None,
        ),
        20,
    )
    wrong = [1e-08, 999999999.0, -1.0]
    assert [tick["price"] for tick in shown["last"] if tick["price"] in wrong] == wrong
    # Only the worker that carries it takes them for its ticks.
    more = {"not_positive": 1, "out_of_band": 2}
    expected = {
        **before,
        victim: {each: before[victim].get(each, 0) + more.get(each, 0) for each in more | before[victim]},
    }
    deck.wait("the counts", lambda: {each: refused(each) for each in names} == expected, 20)
    deck.wait("the garbage counted", lambda: total(deck, "garbage") >= 2, 20)
    assert 1 not in {sequence for own in trades.seen.values() for sequence, _ in own}
    assert instruments(deck)[victim]["last"]["price"] < 1e8


def test_sockets_that_are_silent_come_back_and_their_gaps_are_filled(
    deck: DeckUnderTest, market: Simulator, names: list[str], trades: Trades
) -> None:
    def live() -> list[dict[str, Any]]:
        return list(deck.api.get(f"/feeds/{FEED}")["live"])

    known = len(gaps(deck))
    known_up = {each["shard"]: each["given_up"] for each in live()}
    for name in names:
        silence(market, name)
    # Each by its own habit: one that was silent before is given longer.
    deck.wait("both given up", lambda: sum(each["given_up"] > known_up[each["shard"]] for each in live()) == 2, 60)
    for name in names:
        silence(market, name, begin=False)
    deck.wait("the gaps of all", lambda: len(gaps(deck)) >= known + SYMBOLS, 30)
    settled(deck, trades)
    assert trades.doubled() == 0
    assert total(deck, "unpublished") == 0
    deck.wait("no gap left", lambda: total(deck, "unfilled_gaps") == 0, 10)
    # What came from the sockets is accounted for by name.
    market.control("hold")

    def accounted_for() -> bool:
        went = total(deck, "received") - total(deck, "quarantined") - total(deck, "withheld")
        return went + total(deck, "backfilled") + total(deck, "polled") == total(deck, "ticks")

    deck.wait("all that came to be accounted for", accounted_for, 10)
    market.control("start")
