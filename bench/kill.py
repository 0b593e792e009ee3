"""The kill switch on a whole deck: ``python -m bench.kill [--json]``.

Twenty accounts with ten open orders each, at a simulated Alpaca that answers at once.  The figure is the time from
asking the API to the last cancel request at the simulator, by its own record.  The floor, in the same run: two hundred
bare DELETE requests to the simulator for orders like these, as many connections at once as there are accounts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from cluster.children import end_tree
from cluster.client import ApiClient
from cluster.deck import Deck
from cluster.settings import DeckSettings

USERS, ACCOUNTS_EACH, ORDERS = 4, 5, 10
PATIENCE_S = 120.0
SYMBOL = "ALPACA:AAPL"


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    """An Alpaca whose prices stand still; yields its URL."""
    keys = [f"--account=PK{n}:secret:PA{n:07d}:2000000" for n in range(2 * USERS * ACCOUNTS_EACH)]
    options = ("--port", "0", "--symbols", "2", "--rate", "1", "--limit", "0", "--lenient", *keys)
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "simulate", "alpaca", *options],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url = str(json.loads(process.stdout.readline())["url"])
        httpx.post(f"{url}/simulator/hold", json={}, timeout=10).raise_for_status()
        yield url
    finally:
        end_tree(process.pid, 3.0)


@contextlib.contextmanager
def whole_deck() -> Iterator[tuple[Deck, ApiClient]]:
    """A deck with its API."""
    home = Path(tempfile.mkdtemp(prefix="qd-bench-"))
    settings = DeckSettings(data_dir=home, api_port=0, ray_port=0)
    settings.database_url = settings.redis_url = ""
    deck = Deck(settings, say=lambda _: None)
    deck.start()
    try:
        assert deck.admin_key is not None
        api = ApiClient(deck.api_url, deck.admin_key)
        yield deck, api
        api.close()
    finally:
        deck.stop()
        shutil.rmtree(home, ignore_errors=True)


def until(what: str, ready: Any) -> None:
    """Wait until ``ready()``."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not so within {PATIENCE_S:g} s")
        time.sleep(0.1)


def prepare(api: ApiClient, url: str) -> None:
    """Users, accounts, and ten resting orders in each."""
    number = 0
    for user in range(USERS):
        api.post("/users", {"id": f"u{user}", "roles": ["trader"]})
        for _ in range(ACCOUNTS_EACH):
            settings = {"base_url": url, "orders_per_s": 1000, "reconcile_every_s": 60}
            credentials = {"key": f"PK{number}", "secret": "secret"}
            body = {"id": f"a{number}", "user": f"u{user}", "connector": "alpaca", "settings": settings}
            api.post("/accounts", {**body, "credentials": credentials})
            number += 1
    api.post("/instruments/import", {"provider": "alpaca", "settings": {"base_url": url, "account": "a0"}})

    def reconciled() -> bool:
        views = [a for p in api.get("/portfolios", limit=1000)["items"] for a in p["accounts"]]
        return sum(view["reconciled"] for view in views) == number

    until(f"{number} accounts ready", reconciled)
    for account in range(number):
        for order in range(ORDERS):
            wish = {
                "account": f"a{account}",
                "client_order_id": f"k{account}-{order}",
                "instrument": SYMBOL,
                "side": "buy",
                "type": "limit",
                "quantity": "1",
                "limit_price": "1",
                "time_in_force": "gtc",
            }
            api.post("/orders", wish)
    wanted = number * ORDERS

    def resting() -> bool:
        ledger = httpx.get(f"{url}/simulator/ledger", timeout=10).json()
        return sum(len(account["orders"]) for account in ledger.values()) == wanted

    until(f"{wanted} orders at the broker", resting)
    time.sleep(2.0)


async def bare(url: str) -> float:
    """Seconds that the same number of cancels takes without any of us between."""
    accounts = range(USERS * ACCOUNTS_EACH, 2 * USERS * ACCOUNTS_EACH)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def place(number: int) -> list[str]:
            body = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "limit"}
            body |= {"limit_price": "1", "time_in_force": "gtc"}
            ids = []
            for _ in range(ORDERS):
                answer = await client.post("/v2/orders", json=body, headers=_headers(number))
                ids.append(answer.raise_for_status().json()["id"])
            return ids

        async def cancel(number: int, ids: list[str]) -> None:
            for id_ in ids:
                answer = await client.delete(f"/v2/orders/{id_}", headers=_headers(number))
                answer.raise_for_status()

        placed = {number: await place(number) for number in accounts}
        began = time.perf_counter()
        await asyncio.gather(*(cancel(number, ids) for number, ids in placed.items()))
        return time.perf_counter() - began


def _headers(number: int) -> dict[str, str]:
    return {"APCA-API-KEY-ID": f"PK{number}", "APCA-API-SECRET-KEY": "secret"}


def measure() -> dict[str, Any]:
    """All figures of one run."""
    with simulator() as url, whole_deck() as (_, api):
        prepare(api, url)
        asked = time.time_ns()
        proof = api.post("/risk/kill?wait_s=15", {"scope": "cluster", "reason": "bench"})
        ledger = httpx.get(f"{url}/simulator/ledger", timeout=10).json()
        ended = [_nanos(order["canceled_at"]) for account in ledger.values() for order in account["orders"]]
        floor = asyncio.run(bare(url))
    last = (max(ended) - asked) / 1e9
    return {
        "accounts": USERS * ACCOUNTS_EACH,
        "orders": len(ended),
        "done": proof["done"],
        "last_cancel_s": round(last, 3),
        "bare_s": round(floor, 3),
        "ratio": round(last / floor, 2),
        "decided_ms": proof["cancels_asked_ms"],
        "took_ms": proof["took_ms"],
    }


def _nanos(at: Any) -> int:
    if isinstance(at, int):
        return at
    from datetime import datetime

    return int(datetime.fromisoformat(str(at).replace("Z", "+00:00")).timestamp() * 1e9)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:14} {value}")


if __name__ == "__main__":
    main()
