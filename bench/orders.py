"""The order path against its floor: ``python -m bench.orders [--json]``.

Floor of latency: one Ray call, in turn with our single orders, so that both meet the same machine, and with a pause
before each that is long enough for all to have come to rest.  Floor of throughput: the naive path (four Ray calls and
one insert for each order), measured in the same run with as many in flight.  Ours has all rules, the journal, central
risk's budgets and the paper broker with its own ledger in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from decimal import Decimal
from typing import Any

from bench.deck import BenchDeck, bench_deck, percentile, ready

IN_FLIGHT = 50
IDLE_ORDERS = 400
LOAD_ORDERS = 9_600
#: So many sessions, each with an account and a connection, and all their orders in flight together.
SESSIONS = 20
MANY_IN_FLIGHT = 200
MANY_ORDERS = 6_000
NAIVE_ORDERS = 2_000
USER = "bench"
#: Seconds between single calls and single orders.
PAUSE_S = 0.03


class NaiveSession:
    """Insert, ask risk, hand to the connection: one at a time for each order."""

    def __init__(self, url: str, risk: Any, connection: Any) -> None:
        self.url, self.risk, self.connection = url, risk, connection
        self.pool: Any = None

    async def place(self, order: tuple[str, str, str, str]) -> bool:
        """One order the naive way."""
        if self.pool is None:
            from psycopg_pool import AsyncConnectionPool

            pool = AsyncConnectionPool(self.url, min_size=4, max_size=8, kwargs={"autocommit": True}, open=False)
            await pool.open(wait=True)
            self.pool = pool
        await self.risk.check.remote(order)
        async with self.pool.connection() as connection:
            await connection.execute("INSERT INTO naive_orders VALUES (%s, %s, %s, %s)", order, prepare=True)
        await self.connection.send.remote(order)
        return True


class NaiveStep:
    """A link of the naive chain."""

    def __init__(self, following: Any = None) -> None:
        self.following = following

    async def check(self, order: Any) -> bool:
        """Say yes."""
        return True

    async def send(self, order: Any) -> bool:
        """Hand on."""
        if self.following is not None:
            await self.following.check.remote(order)
        return True


async def naive(url: str, count: int) -> float:
    """Orders a second of the naive path."""
    import psycopg
    import ray

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "CREATE TABLE naive_orders "
            "(account text, key text, quantity numeric, price numeric, PRIMARY KEY (account, key))"
        )
    step = ray.remote(num_cpus=0, max_concurrency=1000)(NaiveStep)
    broker, risk = step.remote(), step.remote()
    connection = step.remote(broker)
    session = ray.remote(num_cpus=0, max_concurrency=1000)(NaiveSession).remote(url, risk, connection)
    await asyncio.gather(*(session.place.remote(("a", f"w-{i}", "1", "2")) for i in range(20)))
    numbers = iter(range(count))
    began = time.perf_counter()

    async def one() -> None:
        for number in numbers:
            await session.place.remote(("a", f"n-{number}", "1", "2"))

    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def echo() -> Any:
    """An actor that does nothing; calls it until it is warm."""
    import ray

    made = ray.remote(num_cpus=0, max_concurrency=1000)(NaiveStep).remote()
    for _ in range(100):
        await made.check.remote(("a", "key", "1", "2"))
        await asyncio.sleep(PAUSE_S)
    return made


async def ray_call(actor: Any) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    await actor.check.remote(("a", "key", "1", "2"))
    return (time.perf_counter() - began) * 1e3


async def prepare(url: str) -> None:
    """An instrument, limits, central risk; the user and the account of the single session."""
    from cluster import names, runtime
    from cluster.names import ActorName, Kind
    from cluster.specs import ActorSpec
    from storage.database import Database
    from storage.desired import Desired
    from storage.instruments import Instruments
    from trading.ids import InstrumentId
    from trading.instruments import Instrument

    database = Database(url)
    await database.open()
    desired = Desired(database)
    await Instruments(database).upsert(
        [
            Instrument(
                id=InstrumentId("BINANCE:BTCUSDT"),
                provider_symbol="BTCUSDT",
                provider="binance-spot",
                tick_size=Decimal("0.01"),
                lot_size=Decimal("0.00001"),
                currency="USDT",
            )
        ]
    )
    await add_users(desired, [USER])
    for scope in ("cluster", "account:bench-paper"):
        for kind, value in (("gross_exposure", "900000000"), ("position", "100000"), ("order_notional", "100000")):
            await desired.set_limit(scope, kind, "", Decimal(value), "bench")
    await database.close()
    runtime.spawn(ActorSpec(name=ActorName(Kind.RISK, "main"), args=("main",)))
    await ready(names.risk())
    await start_sessions([USER])


async def add_users(desired: Any, users: list[str]) -> None:
    """Users with a paper account each."""
    from storage.records import AccountRecord, UserRecord
    from trading.ids import AccountId, Nanos, UserId

    for user in users:
        await desired.create_user(UserRecord(id=UserId(user), roles=("trader",), created_at=Nanos(1)), by="bench")
        account = AccountRecord(
            id=AccountId(f"{user}-paper"),
            user=UserId(user),
            connector="paper",
            settings={"cash": "1000000000", "feed": "none"},
            enabled=True,
            created_at=Nanos(1),
        )
        await desired.create_account(account, by="bench")


async def start_sessions(users: list[str]) -> None:
    """Sessions and connections of these users, reconciled and told their limits."""
    from cluster import names, runtime
    from cluster.names import ActorName, Kind
    from cluster.specs import ActorSpec

    for user in users:
        for kind, id_ in ((Kind.CONNECTION, f"{user}-paper"), (Kind.SESSION, user)):
            runtime.spawn(ActorSpec(name=ActorName(kind, id_), args=(id_,)))
    for user in users:
        await ready(names.connection(f"{user}-paper"), 120)
        await ready(names.session(user), 120)
    await asyncio.sleep(2.0)  # the sessions reconcile with their brokers and hear their limits


def intent(user: str, key: str) -> Any:
    """A small order that rests."""
    from cluster.process import now
    from trading.ids import AccountId, ClientOrderId, InstrumentId
    from trading.orders import OrderType, PlaceOrder, Side, TimeInForce

    return PlaceOrder(
        account=AccountId(f"{user}-paper"),
        client_order_id=ClientOrderId(key),
        instrument=InstrumentId("BINANCE:BTCUSDT"),
        side=Side.BUY,
        type=OrderType.LIMIT,
        quantity=Decimal("0.001"),
        limit_price=Decimal("50000.00"),
        time_in_force=TimeInForce.GTC,
        created_at=now(),
    )


async def many(url: str, count: int) -> float:
    """Orders a second over `SESSIONS` sessions with `MANY_IN_FLIGHT` in flight in all, to the brokers' wires."""
    from cluster import names
    from cluster.calls import Coalescer, Peer
    from storage.database import Database
    from storage.desired import Desired

    users = [f"bench-{number}" for number in range(SESSIONS)]
    database = Database(url)
    await database.open()
    await add_users(Desired(database), users)
    await database.close()
    await start_sessions(users)
    senders = {user: Coalescer(Peer(names.session(user)), "place", timeout=30.0) for user in users}
    connections = [Peer(names.connection(f"{user}-paper")) for user in users]

    async def place(user: str, key: str) -> None:
        order = await senders[user].ask(intent(user, key))
        assert order.state in ("pending", "submitted"), (user, key, order.state, order.reason)

    async def sent() -> int:
        told = await asyncio.gather(*(c.call("status", group="health") for c in connections))
        return sum(status.facts["sent"] for status in told)

    for round_ in range(5):
        await asyncio.gather(*(place(user, f"warm-{round_}") for user in users))
    before = await sent()
    numbers = {user: iter(range(count // SESSIONS)) for user in users}
    began = time.perf_counter()

    async def one(user: str) -> None:
        for number in numbers[user]:
            await place(user, f"load-{number}")

    await asyncio.gather(*(one(user) for user in users for _ in range(MANY_IN_FLIGHT // SESSIONS)))
    while await sent() < before + count:
        await asyncio.sleep(0.005)
        assert time.perf_counter() - began < 120, "not every order reached the wire within two minutes"
    return count / (time.perf_counter() - began)


async def restart() -> tuple[int, float]:
    """Kill the session with all orders of the run; seconds from its new process to the first order it takes."""
    import os
    import signal

    import psutil

    from cluster import names
    from cluster.calls import Peer
    from trading.errors import TradeError

    session = Peer(names.session(USER))
    status = await session.call("status", group="health")
    held = sum(account["open_orders"] for account in status.facts["accounts"].values())
    os.kill(status.pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    said: object = "nothing"
    while time.monotonic() < deadline:
        try:
            (result,) = await session.call("place", [intent(USER, "after-restart")], timeout=5.0)
            if not isinstance(result, TradeError):
                taken_at = time.time()
                again = await session.call("status", group="health")
                return held, taken_at - psutil.Process(again.pid).create_time()
            said = result
        except TradeError as error:
            said = error
        await asyncio.sleep(0.02)
    raise TimeoutError(f"the session took no order within 90 s of its death; it said: {said}")


async def ours(count: int, idle: int) -> tuple[float, dict[int, int], list[float]]:
    """Orders a second with `IN_FLIGHT` in flight; the histogram of intent→wire of ``idle`` single ones and, taken in
    turn with them, the milliseconds of as many bare calls."""
    from cluster import names
    from cluster.calls import Coalescer, Peer

    session, connection = Peer(names.session("bench")), Peer(names.connection("bench-paper"))
    sender = Coalescer(session, "place", timeout=30.0)

    async def place(key: str) -> None:
        order = await sender.ask(intent(USER, key))
        assert order.state in ("pending", "submitted"), (key, order.state, order.reason)

    for number in range(50):
        await place(f"warm-{number}")
        await asyncio.sleep(PAUSE_S)
    before = (await connection.call("status", group="health")).facts
    floor, calls = await echo(), []
    for number in range(idle):
        await place(f"idle-{number}")
        await asyncio.sleep(PAUSE_S)
        calls.append(await ray_call(floor))
        await asyncio.sleep(PAUSE_S)
    after = (await connection.call("status", group="health")).facts
    counts = {
        bucket: count - before["intent_to_wire"].get(bucket, 0) for bucket, count in after["intent_to_wire"].items()
    }
    keys = iter(range(count))
    began = time.perf_counter()

    async def one() -> None:
        for number in keys:
            await place(f"load-{number}")

    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    while (await connection.call("status", group="health")).facts["sent"] < after["sent"] + count:
        await asyncio.sleep(0.002)
        assert time.perf_counter() - began < 120, "not every order reached the wire within two minutes"
    return count / (time.perf_counter() - began), counts, calls


async def measure(deck: BenchDeck) -> dict[str, Any]:
    """All figures of one run."""
    from trading.histogram import Histogram

    url = deck.settings.database_url
    await prepare(url)
    per_s, counts, calls = await ours(LOAD_ORDERS, IDLE_ORDERS)
    wire = Histogram(counts)
    held, restart_s = await restart()
    # Before the twenty sessions are there: idle actors cost the naive path something too.
    naive_per_s = await naive(url, NAIVE_ORDERS)
    many_per_s = await many(url, MANY_ORDERS)
    p50 = percentile(calls, 0.5)
    wire_p50, wire_p99 = wire.quantile(0.5), wire.quantile(0.99)
    assert wire_p50 is not None
    return {
        "ray_call_ms": {"p50": round(p50, 3), "p99": round(percentile(calls, 0.99), 3)},
        "intent_to_wire_ms": {"p50": wire_p50, "p99": wire_p99},
        "ratio_p50": round(wire_p50 / p50, 2),
        "orders_per_s": round(per_s),
        "orders_per_s_20": round(many_per_s),
        "naive_orders_per_s": round(naive_per_s),
        "ratio_throughput": round(per_s / naive_per_s, 2),
        "ratio_throughput_20": round(many_per_s / naive_per_s, 2),
        "restart": {"orders": held, "seconds": round(restart_s, 2)},
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with bench_deck() as deck:
        found = asyncio.run(measure(deck))
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
