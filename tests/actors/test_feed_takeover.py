"""A feed with a second provider on a real deck: who is silent, or killed, while the other one takes over.

Both feeds stream one market from servers of their own, so that what comes out can be compared trade by trade.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import streams
from storage.bus import Bus
from tests.support.deck import DeckUnderTest
from tests.support.patience import PATIENCE
from tests.support.twin_markets import TwinMarkets
from trading.ticks import BACKFILLED, SECOND, SNAPSHOT, TRADE, unpack_batch

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]

OWN, OTHER = "doubly", "standby"
SYMBOLS = 4
FRESHNESS = {"least_s": 1.5, "first_s": 1.5, "pending_s": 3.0, "step_s": 1.0, "again_s": 2.0}
#: From the last tick of the first provider: the patience of one without a habit, the pace of looking, and a second.
TAKEN_OVER_S = 1.5 + 0.5 + 1.0
#: Instruments of a worker that is killed tick again within.
AGAIN_S = 5.0


class Both:
    """Trades of both feeds as they come out: those that were streamed, or come from a second."""

    def __init__(self, redis_url: str) -> None:
        #: Number -> (venue time, price, size, whether it came from the second, when it came here).
        self.own: dict[int, list[tuple[int, float, float, bool, float]]] = defaultdict(list)
        self.other: dict[int, list[tuple[int, float, float, bool, float]]] = defaultdict(list)
        self._ready = threading.Event()

        async def listen() -> None:
            heard = await Bus(redis_url).subscribe([streams.ticks(OWN), streams.ticks(OTHER)], [], size=100_000)
            self._ready.set()
            async for channel, raw in heard:
                if channel:
                    self._take(self.own if channel == streams.ticks(OWN) else self.other, raw)

        threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
        assert self._ready.wait(10), "the bus could not be listened to within 10 s"

    def _take(self, seen: dict[int, list[tuple[int, float, float, bool, float]]], raw: bytes) -> None:
        came = time.monotonic()
        for number, flags, price, size, *_, at, _, _ in unpack_batch(raw)[3].tolist():
            if flags & TRADE and not flags & (SNAPSHOT | BACKFILLED):
                seen[number].append((at, price, size, bool(flags & SECOND), came))

    def by_second(self, number: int, *, since: float = 0.0) -> list[float]:
        """When trades came that are of the second."""
        return [came for *_, is_second, came in list(self.own[number]) if is_second and came >= since]

    def check(self, number: int, *, holes: int = 0) -> None:
        """None twice and none backwards, and none lost but in so many holes: times in which a worker was dead."""
        own, other = list(self.own[number]), list(self.other[number])
        first, last = max(own[0][0], other[0][0]), min(own[-1][0], other[-1][0])
        ours, truth = (Counter(row[:3] for row in seen if first < row[0] < last) for seen in (own, other))
        assert truth.total() > 50
        assert not ours - truth, f"twice: {ours - truth}"
        times = [row[0] for row in own]
        assert times == sorted(times)
        out, found = sorted(ours), 0
        lost = sorted(truth - ours)
        while lost:
            # Together: no trade that came out lies between.
            end = next((row[0] for row in out if row[0] > lost[0][0]), last)
            lost = [row for row in lost if row[0] > end]
            found += 1
        assert found <= holes, f"{found} holes: {sorted(truth - ours)[:20]}"


class Scene:
    def __init__(self, deck: DeckUnderTest, twins: TwinMarkets) -> None:
        self.deck, self.twins = deck, twins
        self.both = Both(deck.deck.settings.redis_url)
        names = [f"BINANCE:{each}" for each in twins.symbols()]
        deck.api.post("/feeds", {"id": OTHER, **twins.source(1), "instruments": names[:1]})
        seconds = {each: {"feed": OTHER} for each in names}
        body = {"id": OWN, **twins.source(0), "instruments": names, "workers": 2, "seconds": seconds}
        deck.api.post("/feeds", body)
        for feed in (OWN, OTHER):
            deck.api.put(f"/feeds/{feed}/tuning", {"freshness": FRESHNESS})
        deck.wait("all subscribed", lambda: all(twins.subscribed(each) == 2 * SYMBOLS for each in (0, 1)))
        twins.go()
        deck.wait("all live", lambda: all(deck.live_instruments(each) == set(names) for each in (OWN, OTHER)))
        self.names = names
        listed = deck.api.get("/instruments", provider=twins.provider, limit=100)["items"]
        self.numbers = {each["id"]: each["number"] for each in listed}
        # What is set is taken up within a second.
        time.sleep(1.5)
        # Before the market began a second may have taken over from a first that had not come; it goes back by itself.
        for name in names:
            self.in_use(name, used=False)

    def shown(self, name: str) -> dict[str, Any]:
        found = self.deck.api.get(f"/feeds/{OWN}/instruments")["items"]
        return next(dict(each) for each in found if each["id"] == name)

    def in_use(self, name: str, *, used: bool = True, seconds: float = 20.0) -> None:
        self.deck.wait(
            f"the second of {name} in use: {used}",
            lambda: (self.shown(name)["second"] or {}).get("in_use") is used,
            seconds,
        )

    def carrier(self, name: str) -> str:
        assignment = self.deck.api.get(f"/feeds/{OWN}")["assignment"]
        return next(f"worker/{OWN}/{shard}" for shard, names in assignment.items() if name in names)


@pytest.fixture(scope="module")
def scene(deck: DeckUnderTest) -> Iterator[Scene]:
    with TwinMarkets(SYMBOLS, 160) as twins:
        yield Scene(deck, twins)
        for feed in (OWN, OTHER):
            deck.api.delete(f"/feeds/{feed}")


def test_a_silent_instrument_comes_from_the_second_within_seconds_and_back(scene: Scene) -> None:
    quiet = scene.names[0]
    number = scene.numbers[quiet]
    switches = scene.shown(quiet)["second"]["switches"]
    assert scene.deck.api.get(f"/feeds/{OTHER}/clients/second:{OWN}")["instruments"].keys() == set(scene.names)
    scene.twins.silence(0, quiet)
    silent = time.monotonic()
    scene.deck.wait("ticks of the second", lambda: scene.both.by_second(number, since=silent), 20)
    took = scene.both.by_second(number, since=silent)[0] - silent
    print(f"taken over {took:.2f} s after the last tick")
    assert took < TAKEN_OVER_S * PATIENCE
    scene.in_use(quiet)
    shown = scene.shown(quiet)
    assert (shown["state"], shown["second"]["feed"]) == ("stale", OTHER)
    assert shown["second"]["switches"] > switches
    scene.twins.silence(0, quiet, begin=False)
    scene.in_use(quiet, used=False)
    back = time.monotonic()
    switches = scene.shown(quiet)["second"]["switches"]
    time.sleep(1.0)
    came = scene.both.by_second(number, since=back + 0.2)
    # A machine that stands still for a second and a half makes a silent instrument of any.
    assert not came or scene.shown(quiet)["second"]["switches"] > switches
    for each in scene.names:
        scene.both.check(scene.numbers[each])


def test_a_worker_that_is_killed_leaves_the_second_in_use(scene: Scene) -> None:
    quiet = scene.names[1]
    number = scene.numbers[quiet]
    scene.twins.silence(0, quiet)
    scene.in_use(quiet)
    time.sleep(0.6)  # known to the next worker
    name = scene.carrier(quiet)
    pid = scene.deck.kill(name)
    killed = time.monotonic()
    # What was under way is out by then.
    scene.deck.wait("ticks of the second", lambda: scene.both.by_second(number, since=killed + 0.3), 30)
    took = scene.both.by_second(number, since=killed + 0.3)[0] - killed
    print(f"again from the second {took:.2f} s after the kill")
    assert took < AGAIN_S * PATIENCE
    # Back in an even split: it moves while the second is in use.
    scene.deck.wait_reborn(name, pid)
    scene.deck.wait("settled again", lambda: scene.deck.api.get(f"/feeds/{OWN}")["settled"])
    sizes = sorted(len(each) for each in scene.deck.api.get(f"/feeds/{OWN}")["assignment"].values())
    assert sizes == [SYMBOLS // 2] * 2
    scene.in_use(quiet)
    scene.twins.silence(0, quiet, begin=False)
    scene.in_use(quiet, used=False)
    time.sleep(0.5)
    scene.both.check(number, holes=1)


def test_the_second_may_be_killed_while_it_is_in_use(scene: Scene) -> None:
    quiet = scene.names[2]
    number = scene.numbers[quiet]
    scene.twins.silence(0, quiet)
    scene.in_use(quiet)
    pid = scene.deck.kill(f"worker/{OTHER}/0")
    scene.deck.wait_reborn(f"worker/{OTHER}/0", pid)
    back = time.monotonic()
    scene.deck.wait("ticks of the second", lambda: scene.both.by_second(number, since=back), 30)
    scene.in_use(quiet)
    scene.twins.silence(0, quiet, begin=False)
    scene.in_use(quiet, used=False)
    assert scene.deck.api.get(f"/feeds/{OWN}")["settled"]
    time.sleep(0.5)
    scene.both.check(number)
