"""The panel's reads with 200 panels connected: ``python -m bench.panel_reads [--json]``.

2,000 orders are open in 20 accounts of 20 users.  First one reader asks for `/v1/deck` at a steady pace, then 200
panels are connected: each has a stream with five instruments, all changes, and the two views of the page that it shows,
and reads one thing or other every five seconds.  The floor is a bare FastAPI route in a process of its own, asked by
the same client in the same turns: what a read costs beyond it is ours.  ``view_age``: how old a pushed view is on
arrival; ``view_every``: how often it comes, while all of them change all the time.  ``deck_ratio`` and ``reads_ratio``
are medians of the turns' p99 over the floor's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from websockets.asyncio.client import connect

from bench import panel
from bench.panel import FEED, Panel, api_process

PANELS: Final = 200
USERS: Final = 20
ORDERS: Final = 2_000
TOPICS_EACH: Final = 5
TURNS: Final = 3
TURN_S: Final = 10.0
READ_EVERY_S: Final = 5.0
ALONE_PER_S: Final = 20.0
VIEWS: Final = ("risk/heat", "risk/tree", "feeds", "risk/kills")
READS: Final = (
    "/v1/deck", "/v1/orders?limit=100", "/v1/positions", "/v1/alerts?open=true", "/v1/risk/heat", "/v1/algos",
    "/v1/risk/tree", "/v1/search?q=b",
)  # fmt: skip


def serve_bare(port: int) -> None:
    """The floor: one route that answers a small object."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/bare")
    async def bare() -> dict[str, bool]:
        return {"ok": True}

    uvicorn.run(app, port=port, loop="uvloop", log_level="warning", access_log=False)


async def prepare(database_url: str) -> list[str]:
    """Users with accounts, open orders and keys; the keys."""
    from storage.api_keys import ApiKeys
    from storage.database import Database
    from storage.desired import Desired
    from storage.instruments import Instruments
    from storage.journal import Journal
    from storage.leases import Leases
    from storage.records import AccountRecord, UserRecord
    from trading.ids import AccountId, ClientOrderId, Nanos, UserId, broker_tag
    from trading.journal import JournalBatch
    from trading.orders import EventKind, OrderEvent, OrderState, OrderType, PlaceOrder, Side, order_from
    from trading.positions import Position

    database = Database(database_url, size=2)
    await database.open()
    desired, journal = Desired(database), Journal(database)
    names = [each.id for each in await Instruments(database).all()]
    keys = []
    for n in range(USERS):
        user, account = UserId(f"user-{n:02d}"), AccountId(f"account-{n:02d}")
        await desired.create_user(UserRecord(id=user, roles=("trader",), created_at=Nanos(1)), "bench")
        record = AccountRecord(id=account, user=user, connector="paper", settings={}, enabled=True, created_at=Nanos(1))
        await desired.create_account(record, "bench")
        orders = []
        for k in range(ORDERS // USERS):
            key = ClientOrderId(f"o-{n}-{k}")
            intent = PlaceOrder(
                account=account, client_order_id=key, instrument=names[k % len(names)], side=Side.BUY,
                type=OrderType.LIMIT, quantity=Decimal(1), limit_price=Decimal(100),
            )  # fmt: skip
            order = order_from(intent, broker_tag(account, key), Nanos(time.time_ns()))
            order.state = OrderState.SUBMITTED
            orders.append(order)
        events = [
            OrderEvent(
                kind=EventKind.PENDING, account=account, client_order_id=each.client_order_id, at=each.created_at,
                actor="bench",
            )
            for each in orders
        ]  # fmt: skip
        held = [Position(account=account, instrument=name, quantity=Decimal(3)) for name in names[:20]]
        epoch = await Leases(database).take(f"session/{user}", "bench", 3600)
        batch = JournalBatch(orders=orders, events=events, positions=held)
        await journal.append(f"session/{user}", epoch, 1, journal.prepare(batch))
        for _ in range(PANELS // USERS):
            _, made = await ApiKeys(database).create(user, ("trader",), "bench")
            keys.append(made)
    await database.close()
    return keys


async def tell(redis_url: str, names: list[str]) -> None:
    """What sessions and central risk tell, every half second, as on a busy deck."""
    from cluster import streams
    from storage.bus import Bus
    from storage.hot import Hot
    from trading.ids import Nanos

    hot, bus = Hot(redis_url), Bus(redis_url)
    while True:
        at = time.time_ns()
        levels: list[dict[str, Any]] = [{"scope": "cluster", "gross": "1000"}]
        for n in range(USERS):
            user, account = f"user-{n:02d}", f"account-{n:02d}"
            shown = {
                "account": account, "connected": True, "reconciled": True, "cash": "1000", "currency": "USDT",
                "realised": "0", "unrealised": "1", "fees": "0", "profit": "1", "gross_exposure": "100",
                "open_orders": ORDERS // USERS, "open_breaks": 0,
            }  # fmt: skip
            held = [
                {
                    "account": account, "instrument": name, "quantity": "3", "average_cost": "99", "mark": "100",
                    "realised": "0", "unrealised": "3", "fees": "0", "exposure": "300",
                }
                for name in names[:20]
            ]  # fmt: skip
            view = {"user": user, "at": at, "accounts": [shown], "positions": held}
            cells = [{"account": account, "algo": "", "instrument": name, "at_risk": "300"} for name in names[:20]]
            await hot.put_many({f"portfolio:{user}": view, f"heat:{user}": cells}, 60)
            levels += [{"scope": f"{level}", "gross": "100"} for level in (f"user:{user}", f"account:{account}")]
            change = streams.Change(topic="portfolio", key=user, user=user, at=Nanos(at), body=view)
            await bus.publish(streams.CHANGES, streams.encode_changes([change]))
        await hot.put("risk", {"at": at, "levels": levels, "limits": []}, 60)
        await asyncio.sleep(0.5)


async def timed(client: httpx.AsyncClient, url: str, into: list[float]) -> None:
    """One read and how long it took, in ms; SystemExit where it failed."""
    began = time.perf_counter()
    answer = await client.get(url)
    into.append((time.perf_counter() - began) * 1e3)
    if answer.status_code != 200:
        raise SystemExit(f"{url}: {answer.status_code} {answer.text[:200]}")


async def alone(client: httpx.AsyncClient, url: str) -> list[float]:
    """Reads at a steady pace for one turn."""
    found: list[float] = []
    until = time.monotonic() + TURN_S
    while time.monotonic() < until:
        await timed(client, url, found)
        await asyncio.sleep(1 / ALONE_PER_S)
    return found


class Panels:
    """The 200, each with its stream and its reads."""

    def __init__(self, port: int, keys: list[str], names: list[str], bare: str) -> None:
        self._port, self._keys, self._names, self._bare = port, keys, names, bare
        self._readers: list[asyncio.Task[None]] = []
        self.deck: list[float] = []
        self.reads: list[float] = []
        self.floor: list[float] = []
        self.view_ages: list[float] = []
        self.view_pauses: list[float] = []

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """All streams open, and read."""
        async with contextlib.AsyncExitStack() as stack:
            for place, key in enumerate(self._keys):
                url = f"ws://127.0.0.1:{self._port}/v1/stream"
                stream = await stack.enter_async_context(connect(url, compression=None, max_size=None))
                mine = [self._names[(place * 7 + n) % len(self._names)] for n in range(TOPICS_EACH)]
                views = ["view:deck", f"view:{VIEWS[place % len(VIEWS)]}"]
                changes = ["orders", "portfolio", "algos", "feeds", "alerts"]
                topics = [*changes, *views, *(f"ticks:{FEED}/{i}" for i in mine)]
                await stream.send(json.dumps({"key": key, "topics": topics, "per_second": 4}))
                await stream.recv()
                self._readers.append(asyncio.create_task(self._drain(stream, watched=place % 10 == 0)))
            try:
                yield
            finally:
                for task in self._readers:
                    task.cancel()
                await asyncio.gather(*self._readers, return_exceptions=True)

    async def turn(self) -> None:
        """Every panel reads for one turn; one in four asks the floor in between."""
        self.deck, self.reads, self.floor, self.view_ages, self.view_pauses = [], [], [], [], []
        limits = httpx.Limits(max_connections=PANELS + 20, max_keepalive_connections=PANELS + 20)
        async with httpx.AsyncClient(timeout=30, limits=limits) as client:
            await asyncio.gather(*(self._one(client, place, key) for place, key in enumerate(self._keys)))

    async def _one(self, client: httpx.AsyncClient, place: int, key: str) -> None:
        await asyncio.sleep(READ_EVERY_S * place / PANELS)
        until, count = time.monotonic() + TURN_S, place
        while time.monotonic() < until:
            path = READS[count % len(READS)]
            count += 1
            began = time.perf_counter()
            url = f"http://127.0.0.1:{self._port}{path}"
            answer = await client.get(url, headers={"Authorization": f"Bearer {key}"})
            took = (time.perf_counter() - began) * 1e3
            if answer.status_code != 200:
                raise SystemExit(f"{path}: {answer.status_code} {answer.text[:200]}")
            self.reads.append(took)
            if path == "/v1/deck":
                self.deck.append(took)
            if place % 4 == 0:
                await timed(client, self._bare, self.floor)
            await asyncio.sleep(max(0.0, READ_EVERY_S - took / 1e3))

    async def _drain(self, stream: Any, *, watched: bool) -> None:
        """Take everything; of a ``watched`` one look at the deck's views."""
        last = 0.0
        async for text in stream:
            if not watched or '"topic":"view:deck"' not in text:
                continue
            now = time.time()
            for update in json.loads(text)["updates"]:
                if update["topic"] == "view:deck":
                    self.view_ages.append((now - datetime.fromisoformat(update["at"]).timestamp()) * 1e3)
                    if last:
                        self.view_pauses.append((now - last) * 1e3)
                    last = now


def p99(found: list[float]) -> float:
    """The 99th percentile."""
    return float(np.percentile(found, 99))


async def measure(port: int, bare_port: int, redis_url: str, keys: list[str], shown: Panel) -> dict[str, Any]:
    """Turns with one reader, then with all panels."""
    bare = f"http://127.0.0.1:{bare_port}/bare"
    names = list(shown.numbers)
    telling = [asyncio.create_task(tell(redis_url, names)), asyncio.create_task(shown.publish())]
    await asyncio.sleep(1.5)
    figures: dict[str, list[float]] = {name: [] for name in (
        "deck", "bare", "deck_200", "reads_200", "bare_200", "view_age", "view_every",
    )}  # fmt: skip
    async with httpx.AsyncClient(timeout=30, headers={"Authorization": f"Bearer {shown.key}"}) as client:
        for _ in range(TURNS):
            figures["bare"].append(p99(await alone(client, bare)))
            figures["deck"].append(p99(await alone(client, f"http://127.0.0.1:{port}/v1/deck")))
    panels = Panels(port, keys, names, bare)
    async with panels.connected():
        await panels.turn()
        for _ in range(TURNS):
            await panels.turn()
            for name, found in (
                ("deck_200", panels.deck), ("reads_200", panels.reads), ("bare_200", panels.floor),
                ("view_age", panels.view_ages), ("view_every", panels.view_pauses),
            ):  # fmt: skip
                figures[name].append(p99(found))
    for task in telling:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*telling, return_exceptions=True)
    await shown.bus.close()

    def ratio(of: str, floor: str) -> float:
        return round(statistics.median(a / b for a, b in zip(figures[of], figures[floor], strict=True)), 2)

    return {
        "panels": PANELS,
        "open_orders": ORDERS,
        **{f"{name}_p99_ms": round(statistics.median(found), 2) for name, found in figures.items()},
        "deck_ratio": ratio("deck", "bare"),
        "reads_ratio": ratio("reads_200", "bare_200"),
    }


@contextlib.contextmanager
def bare_process() -> Iterator[int]:
    """The floor in a process of its own."""
    with api_process("", "redis://127.0.0.1:9/0", "", module="bench.panel_reads", path="/bare") as (port, _):
        yield port


def run() -> dict[str, Any]:
    """Everything, from servers to figures."""
    from storage.embedded import EmbeddedPostgres, EmbeddedRedis
    from storage.migrate import migrate

    with tempfile.TemporaryDirectory(prefix="qd-panel-") as folder:
        home = Path(folder)
        postgres, redis = EmbeddedPostgres(home / "postgres"), EmbeddedRedis(home / "redis")
        try:
            database_url, redis_url = postgres.start(), redis.start()
            migrate(database_url)
            key, numbers = asyncio.run(panel.prepare(database_url))
            keys = asyncio.run(prepare(database_url))
            with api_process(database_url, redis_url, folder) as (port, _), bare_process() as bare_port:
                shown = Panel(redis_url, port, key, numbers)
                return asyncio.run(measure(port, bare_port, redis_url, keys, shown))
        finally:
            redis.stop()
            postgres.stop()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve_bare(chosen.serve)
        return
    found = run()
    print(json.dumps(found) if chosen.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
