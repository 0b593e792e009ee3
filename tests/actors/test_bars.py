"""Bars and history on a whole deck: built, stored, killed, completed from the provider once, continued live."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from api.formats import parse_time, time_text
from cluster import streams
from connectors.recordings import Problems
from connectors.tick_files import read_ticks
from storage.bus import Bus
from tests.chaos.processes import Processes
from tests.support.deck import DeckUnderTest, Simulator
from tests.support.patience import PATIENCE
from trading.errors import TradeError
from trading.ids import InstrumentId
from trading.ticks import TRADE, unpack_batch

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
SYMBOLS = 3
FEED = "bars"

KEEPS_BARS = '''
from strategies import Strategy


class KeepsBars(Strategy):
    """Tells every closed minute that it knows of."""

    bars = ("1m",)

    def warm_up(self):
        return {"1m": 5}

    def on_start(self):
        for each in self.instruments:
            for bar in self.history(each, "1m", 100):
                self.tell("history", each, bar)

    def on_bar(self, instrument, bar, interval):
        self.tell("live", instrument, bar)

    def tell(self, where, instrument, bar):
        values = f"{bar.open} {bar.high} {bar.low} {bar.close} {bar.trades}"
        self.log(f"BAR {where} {instrument.id} {bar.opened_at} {values}")
'''


class Tap:
    """Every trade that is published of the feed."""

    def __init__(self, redis_url: str) -> None:
        self.batches: list[Any] = []
        ready = threading.Event()

        async def listen() -> None:
            subscription = await Bus(redis_url).subscribe([streams.ticks(FEED)], [], size=100_000)
            ready.set()
            async for channel, raw in subscription:
                if channel:
                    self.batches.append(unpack_batch(raw)[3])

        threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
        assert ready.wait(10), "the tap could not subscribe within 10 s"

    def trades(self, number: int) -> Any:
        """All trades of an instrument so far, in order of their ids, each once."""
        every = np.concatenate(self.batches)
        own = every[(every["instrument"] == number) & (every["flags"] & TRADE > 0)]
        return own[np.unique(own["sequence"], return_index=True)[1]]


@pytest.fixture(scope="module")
def market(deck: DeckUnderTest) -> Simulator:
    return deck.simulator("--symbols", str(SYMBOLS), "--rate", "90", "--seed", "21", "--futures")


@pytest.fixture(scope="module")
def listed(deck: DeckUnderTest, market: Simulator) -> dict[str, int]:
    """Number of each instrument; its feed is running."""
    deck.api.post("/instruments/import", deck.source(market))
    rows = deck.rows("SELECT id, number FROM instruments WHERE provider = 'binance-usdm' ORDER BY id")
    body = {"id": FEED, **deck.source(market), "instruments": [id_ for id_, _ in rows], "workers": 2}
    deck.api.post("/feeds", body)
    return dict(rows)


def truth(market: Simulator, instrument: str, start: int, end: int) -> list[dict[str, Any]]:
    """The venue's own minutes."""
    symbol = instrument.partition(":")[2]
    query: dict[str, Any] = {"symbol": symbol, "interval": "1m", "startTime": start // 10**6, "limit": 1000}
    found = httpx.get(f"{market.url}/fapi/v1/klines", params=query | {"endTime": end // 10**6 - 1}, timeout=10).json()
    return [
        {"opened_at": row[0] * 10**6, **dict(zip(("open", "high", "low", "close"), map(float, row[1:5]), strict=True)),
         "trades": row[8]}
        for row in found
    ]  # fmt: skip


def shown(bars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bars of the API as `truth` tells them."""
    names = ("open", "high", "low", "close", "trades")
    return [{"opened_at": parse_time(bar["opened_at"]), **{name: bar[name] for name in names}} for bar in bars]


def asked(market: Simulator) -> int:
    """How often the venue was asked for bars."""
    return int(market.stats()["requests"].get("/klines", 0))


def history(deck: DeckUnderTest, instrument: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    query = {"instrument": instrument, "start": time_text(start), "end": time_text(end), "limit": 5000, **more}
    return dict(deck.api.get("/history", **query))


def covered(deck: DeckUnderTest, number: int, width: int = SECOND) -> list[tuple[int, int]]:
    """Spans of an instrument that are known whole; [] while PostgreSQL is away."""
    statement = "SELECT from_at, until_at FROM bar_coverage WHERE instrument = %(n)s AND width = %(w)s ORDER BY from_at"
    try:
        return [(int(a), int(b)) for a, b in deck.rows(statement, {"n": number, "w": width})]
    except Exception:  # noqa: BLE001 - whatever the driver says while its server is dead
        return []


def seen_since(deck: DeckUnderTest, numbers: list[int], at: int, seconds: int = 3) -> bool:
    """Whether every instrument has been covered for some seconds after ``at``."""
    return all(any(b - max(a, at) >= seconds * SECOND for a, b in covered(deck, n)) for n in numbers)


def seen_this_minute(deck: DeckUnderTest, numbers: list[int]) -> bool:
    """Whether the minute under way has been seen whole so far."""
    begin = time.time_ns() // MINUTE * MINUTE
    return all(any(a <= begin < b for a, b in covered(deck, n)) for n in numbers)


@dataclass
class Troubles:
    """When things were killed."""

    began: int = 0
    ended: int = 0


@pytest.fixture(scope="module")
def troubles() -> Troubles:
    return Troubles()


def test_the_past_is_fetched_once_whoever_asks_and_however_many_at_once(
    deck: DeckUnderTest, market: Simulator, listed: dict[str, int], tmp_path: Path
) -> None:
    instrument = next(iter(listed))
    end = time.time_ns() // (60 * MINUTE) * 60 * MINUTE - 5 * 60 * MINUTE
    start = end - 4 * 60 * MINUTE
    before = asked(market)
    with ThreadPoolExecutor(6) as clients:
        pages = list(clients.map(lambda _: history(deck, instrument, start, end), range(6)))
    assert asked(market) == before + 1
    assert all(page == pages[0] for page in pages)
    assert pages[0]["gaps"] == []
    assert shown(pages[0]["items"]) == truth(market, instrument, start, end)
    before = asked(market)
    assert history(deck, instrument, start, end) == pages[0]
    file = tmp_path / "minutes.csv"
    words = [
        "history", instrument, "--since", time_text(start), "--until", time_text(end), "--csv", str(file),
        "--url", deck.deck.api_url, "--api-key", deck.key,
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "cluster", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = file.read_text().splitlines()
    assert len(rows) == 1 + len(pages[0]["items"])
    assert rows[1].split(",")[0] == pages[0]["items"][0]["opened_at"]
    told = subprocess.run(
        [sys.executable, "-m", "cluster", *words[:6], "--interval", "1h", "--json", *words[-4:]],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert len(json.loads(told.stdout)["items"]) == 4
    assert asked(market) == before


def test_what_was_not_seen_whole_is_not_known(
    deck: DeckUnderTest, market: Simulator, listed: dict[str, int], troubles: Troubles
) -> None:
    numbers = list(listed.values())
    tap = Tap(deck.deck.settings.redis_url)
    troubles.began = began = time.time_ns()
    deck.wait("bars of seconds", lambda: all(covered(deck, n) for n in numbers), 90)
    processes = Processes(deck)
    kills: list[int] = []
    for victim in ("recorder/bars", "worker/bars/0", "asleep", "postgres"):
        if victim == "postgres":
            assert processes.kill(processes.servers()["postgres"])
            at = time.time_ns()
        elif victim == "asleep":
            # It is given up meanwhile, and what waits in its socket is not published when it wakes.
            deck.wait("something for it to carry", lambda: deck.api.get(f"/feeds/{FEED}")["assignment"].get("1"))
            pid = int(deck.wait("its process", lambda: deck.actor("worker/bars/1").get("pid")))
            processes.pause(pid)
            at = time.time_ns()
            try:
                time.sleep(6)
                deck.wait("it given up", lambda: not deck.api.get(f"/feeds/{FEED}")["assignment"].get("1"), 30)
            finally:
                processes.go_on(pid)
            deck.wait_reborn("worker/bars/1", pid)
        else:
            old = deck.kill(victim)
            at = time.time_ns()
            deck.wait_reborn(victim, old)
        kills.append(at)
        deck.wait(
            f"bars after the end of {victim}",
            # What `quarterdeck up` does all the time.
            lambda at=at: deck.deck.watch() is not None and seen_since(deck, numbers, at),
            120,
        )
    troubles.ended = time.time_ns()
    known = {number: covered(deck, number) for number in numbers}

    def heard(number: int) -> bool:
        return bool(tap.trades(number)["exchange_at"].max() >= known[number][-1][1])

    # What is called known has come here as well.
    deck.wait("later trades", lambda: all(heard(number) for number in numbers), 30)
    # The recorder and the workers were away for some time, which nobody can have seen.
    for number, spans in known.items():
        assert not any(a <= kills[0] + SECOND and kills[0] + 2 * SECOND <= b for a, b in spans), spans
        trades = tap.trades(number)
        slots = trades["exchange_at"] // SECOND * SECOND
        for a, b in spans:
            inside = trades[(slots >= a) & (slots < b)]
            if not len(inside) or a < began:
                continue
            ids = inside["sequence"]
            assert int(ids[-1] - ids[0]) + 1 == len(ids), "a trade is missing in a span that is called whole"
            found = deck.rows(
                "SELECT opened_at, high, low, trades, volume FROM bars WHERE instrument = %(n)s AND width = %(w)s "
                "AND opened_at >= %(a)s AND opened_at < %(b)s ORDER BY opened_at",
                {"n": number, "w": SECOND, "a": a, "b": b},
            )
            mine = slots[(slots >= a) & (slots < b)]
            assert [row[0] for row in found] == np.unique(mine).tolist()
            for opened, high, low, count, volume in found:
                part = inside[mine == opened]
                assert (high, low, count) == (part["price"].max(), part["price"].min(), len(part))
                assert volume == pytest.approx(float(part["size"].sum()))


def test_an_algo_and_a_client_go_on_from_history_to_live_bars_without_a_seam(
    deck: DeckUnderTest, market: Simulator, listed: dict[str, int]
) -> None:
    first, second, *_ = listed
    account = deck.account("barry", FEED)
    deck.api.post("/strategies", {"name": "keeps-bars", "source": KEEPS_BARS, "smoke": False})
    deck.wait("the feed", lambda: deck.live_instruments(FEED) == set(listed))
    deck.wait("a minute seen from its beginning", lambda: seen_this_minute(deck, list(listed.values())), 90)
    body = {"id": "keeper", "strategy": "keeps-bars", "account": account, "feed": FEED, "instruments": [first, second],
            "parameters": {}, "start": True}  # fmt: skip
    deck.api.post("/algos", body)
    topic = f"bars:{first}/1m"
    live: dict[int, dict[str, Any]] = {}
    with connect(deck.deck.api_url.replace("http", "ws") + "/v1/stream") as socket:
        socket.send(json.dumps({"key": deck.key, "topics": [topic]}))
        since = parse_time(json.loads(socket.recv(10 * PATIENCE))["since"][topic])
        page = history(deck, first, since - 5 * MINUTE, time.time_ns())
        past = {bar["opened_at"]: bar for bar in shown(page["items"])}
        assert max(past) >= since - MINUTE
        deadline = time.monotonic() + 150 * PATIENCE
        while not live and time.monotonic() < deadline:
            try:
                message = json.loads(socket.recv(5))
            except TimeoutError:
                continue
            for update in message.get("updates", []):
                assert "missing" not in update["body"], update
                assert update["body"]["closed"]
                (bar,) = shown([update["body"]])
                live[bar["opened_at"]] = bar
    assert live, "no live bar"
    joined = past | live
    times = sorted(joined)
    assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
    right = truth(market, first, times[0], times[-1] + MINUTE)
    assert [joined[at] for at in times] == right

    def told() -> dict[str, list[tuple[str, int, list[str]]]]:
        found: dict[str, list[tuple[str, int, list[str]]]] = defaultdict(list)
        for line in deck.api.get("/algos/keeper/logs", limit=1000)["items"]:
            if line["text"].startswith("BAR "):
                _, where, instrument, opened, *values = line["text"].split(" ")
                found[instrument].append((where, int(opened), values))
        for lines in found.values():
            lines.sort(key=lambda each: each[1])
        return found

    deck.wait("live bars at the algo", lambda: all(
        any(where == "live" for where, _, _ in told().get(id_, [])) for id_ in (first, second)
    ), 150)  # fmt: skip
    for instrument, lines in told().items():
        opened = [at for _, at, _ in lines]
        assert opened == list(range(opened[0], opened[-1] + MINUTE, MINUTE)), "a bar is missing, or comes twice"
        assert [where for where, _, _ in lines].count("history") >= 5
        right = truth(market, instrument, opened[0], opened[-1] + MINUTE)
        got = [[float(value) for value in values] for _, _, values in lines]
        assert got == [[bar[name] for name in ("open", "high", "low", "close", "trades")] for bar in right]
    deck.api.post("/algos/keeper/stop")
    deck.wait("the stop", lambda: deck.api.get("/algos/keeper")["state"] == "stopped", 40)
    deck.api.delete("/algos/keeper")


def test_the_minutes_of_the_troubles_are_completed_from_the_provider_once(
    deck: DeckUnderTest, market: Simulator, listed: dict[str, int], troubles: Troubles
) -> None:
    assert troubles.ended, "nothing was killed before"
    start, end = troubles.began // MINUTE * MINUTE, troubles.ended // MINUTE * MINUTE
    # The last of them must be final at the provider.
    time.sleep(max(0.0, (end + 62 * SECOND - time.time_ns()) / 1e9))
    for instrument, number in listed.items():
        unknown = not any(a <= start and end <= b for a, b in covered(deck, number, MINUTE))
        before = asked(market)
        page = history(deck, instrument, start, end)
        assert page["gaps"] == []
        fetched = asked(market) - before
        assert unknown == (fetched > 0)
        assert shown(page["items"]) == truth(market, instrument, start, end)
        before = asked(market)
        assert history(deck, instrument, start, end) == page
        assert asked(market) == before


def test_the_ticks_of_a_day_are_on_disk_once_the_feed_has_ended(
    deck: DeckUnderTest, market: Simulator, listed: dict[str, int]
) -> None:
    tap = Tap(deck.deck.settings.redis_url)
    began = time.time_ns()
    time.sleep(6)

    def some(number: int) -> bool:
        return bool(tap.batches) and int((tap.trades(number)["received_at"] > began + 2 * SECOND).sum()) > 10

    deck.wait("trades of each", lambda: all(some(number) for number in listed.values()), 20)
    market.control("hold")
    held = time.time_ns()
    # What came until then is with the recorder.
    time.sleep(3)
    deck.api.delete(f"/feeds/{FEED}")
    deck.wait("no actors of it", lambda: not any(f"/{FEED}" in a["name"] for a in deck.api.get("/cluster")["actors"]))
    files = [*(deck.home / "ticks" / FEED).rglob("*.parquet")]
    assert files
    problems = Problems()
    numbers = {InstrumentId(id_): number for id_, number in listed.items()}
    recorded = np.concatenate([read_ticks(path, numbers, problems) for path in files])
    assert problems.found == []
    for number in listed.values():
        sent = tap.trades(number)
        sent = sent[(sent["received_at"] > began + SECOND) & (sent["received_at"] < held)]
        own = recorded[(recorded["instrument"] == number) & (recorded["flags"] & TRADE > 0)]
        own = own[(own["received_at"] > began + SECOND) & (own["received_at"] < held)]
        own = own[np.argsort(own["sequence"])]
        assert len(sent)
        for name in ("sequence", "price", "size", "exchange_at", "received_at"):
            assert own[name].tolist() == sent[name].tolist()
    with pytest.raises(TradeError):
        deck.api.get(f"/feeds/{FEED}")
