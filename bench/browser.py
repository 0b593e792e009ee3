"""The panel in a real browser: ``python -m bench.browser [--json]``; needs Debian's chromium and the built bundle.

An API in a process of its own, 2,000 open orders of 20 accounts, 200 instruments that change ten times a second each,
portfolios twice a second, and 50 changes of orders a second.

* *first paint*, *interactive*: of the deck, from the beginning of the navigation of a signed-in browser whose cache is
  empty; interactive is when the figures are there and the page's thread has been idle for 100 ms (no task over 50).
  The floor is an empty page of the same server in the same browser (``blank_ms``).
* *frames a second*: of ten seconds on the page of orders, and the worst second of them.  The floor is the same page
  with nothing changing (``idle_frames_per_s``): without a GPU Chromium draws on the two cores that do all else.
* *tick to screen*: the price is the time at which the tick was received; an observer in the page notes, at the next
  frame after a cell has changed, how long ago that was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import pyotp

from bench import panel, panel_reads
from bench.panel import FEED, api_process

INSTRUMENTS: Final = 200
PER_S: Final = 10
ORDER_CHANGES_PER_S: Final = 50
LOADS: Final = 7
WATCH_S: Final = 10
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

#: When the deck shows its figures; long tasks count as not interactive.
_PROBE: Final = """
window.qdLong = 0; window.qdShown = 0;
new PerformanceObserver(list => {
  for (const each of list.getEntries()) window.qdLong = Math.max(window.qdLong, each.startTime + each.duration);
}).observe({type: 'longtask', buffered: true});
const look = () => { const value = document.querySelector('.stat .value');
  if (value && /[0-9]/.test(value.textContent)) window.qdShown ||= performance.now();
  else requestAnimationFrame(look); };
requestAnimationFrame(look);
"""
_FRAMES: Final = """seconds => new Promise(done => {
  const counts = []; let began = performance.now(), count = 0;
  const frame = now => { count += 1;
    if (now - began >= 1000) { counts.push(count * 1000 / (now - began)); began = now; count = 0; }
    if (counts.length < seconds) requestAnimationFrame(frame); else done(counts); };
  requestAnimationFrame(frame); })"""
_DELAYS: Final = """([seconds, base]) => new Promise(done => {
  const delays = []; const due = new Set();
  const observer = new MutationObserver(changes => { for (const each of changes) {
    const cell = each.target.nodeType === 3 ? each.target.parentElement : each.target; if (cell) due.add(cell); } });
  observer.observe(document.querySelector('.grid-scroll tbody'), {subtree: true, characterData: true, childList: true});
  const frame = () => { const now = Date.now();
    for (const cell of due) { const price = Number(cell.textContent.replaceAll(',', ''));
      const delay = now - base - price; if (price > 1000 && delay >= 0 && delay < 60000) delays.push(delay); }
    due.clear(); requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  setTimeout(() => { observer.disconnect(); done(delays); }, seconds * 1000); })"""


class Market:
    """Ticks, portfolios and orders, told from a thread with a loop of its own: the browser's driver has the other."""

    def __init__(self, redis_url: str, numbers: dict[str, int], orders: list[Any]) -> None:
        self._redis_url, self._numbers, self._orders = redis_url, numbers, orders
        #: Prices are milliseconds since then.
        self.base = time.time_ns() // 1_000_000 - 100_000
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: list[Any] = []
        self._thread.start()

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Everything changes."""
        tellings = (self._ticks(), self._order_changes(), panel_reads.tell(self._redis_url, list(self._numbers)))
        self._tasks = [asyncio.run_coroutine_threadsafe(each, self._loop) for each in tellings]
        try:
            yield
            for task in self._tasks:
                if task.done():
                    task.result()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _ticks(self) -> None:
        from cluster import streams
        from storage.bus import Bus
        from trading.ticks import TickBuffer, pack_batch

        bus, sequence, batch, due = Bus(self._redis_url), 0, 0, time.monotonic()
        numbers = list(self._numbers.values())
        # A twentieth of the instruments at a time, twenty times within a tenth of a second.
        step = max(1, len(numbers) // 20)
        place = 0
        while True:
            buffer, now = TickBuffer(), time.time_ns()
            for number in numbers[place : place + step]:
                sequence += 1
                buffer.trade(number, float(now // 1_000_000 - self.base), 1.0, 0, now, now, sequence)
            place = (place + step) % len(numbers)
            batch += 1
            await bus.publish(streams.ticks(FEED), pack_batch(1, batch, 0, buffer.take()))
            due += 1 / PER_S / 20
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _order_changes(self) -> None:
        from cluster import streams
        from storage.bus import Bus
        from trading.ids import Nanos
        from trading.orders import EventKind, OrderEvent

        bus, place = Bus(self._redis_url), 0
        while True:
            order = self._orders[place % len(self._orders)]
            place += 1
            now = Nanos(time.time_ns())
            order.filled_quantity, order.updated_at = Decimal(place % 7) / 10, now
            event = OrderEvent(
                kind=EventKind.SUBMITTED, account=order.account, client_order_id=order.client_order_id, at=now,
                actor="bench",
            )  # fmt: skip
            change = streams.Change(
                topic="orders", key=order.client_order_id, user=f"user-{order.account[-2:]}", at=now,
                body={"order": order, "event": event},
            )  # fmt: skip
            await bus.publish(streams.CHANGES, streams.encode_changes([change]))
            await asyncio.sleep(1 / ORDER_CHANGES_PER_S)


def signed_in(base: str, key: str, agent: str) -> list[dict[str, Any]]:
    """The cookies of an operator who has signed in with everything that it takes, as the browser ``agent``."""
    with httpx.Client(base_url=base, timeout=30, headers={"User-Agent": agent}) as client:
        made = client.post(
            "/v1/users", json={"id": "watch", "roles": ["operator"]}, headers={"Authorization": f"Bearer {key}"}
        ).json()

        def step(path: str, body: dict[str, Any] | None = None) -> Any:
            headers = {"Origin": base, "X-CSRF-Token": client.cookies.get("qd_csrf") or ""}
            return client.post(f"/v1/auth/{path}", json=body, headers=headers).raise_for_status().json()

        step("login", {"user": "watch", "password": made["one_time_password"]})
        step("password", {"current": made["one_time_password"], "new": "a bench looks at nothing 9"})
        secret = step("totp")["secret"]
        assert step("totp/confirm", {"code": pyotp.TOTP(secret).now()})["step"] == "done"
        return [{"name": each.name, "value": each.value or "", "url": base} for each in client.cookies.jar]


def measure(base: str, key: str, market: Market) -> dict[str, Any]:
    """The browser's figures."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import chromium

    paints, ready, blanks = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        # A session that another browser brings is ended.
        cookies = signed_in(base, key, browser.new_page().evaluate("navigator.userAgent"))

        def fresh() -> Any:
            # Waiting for a function evaluates a text, which the page's policy forbids.
            context = browser.new_context(viewport={"width": 1366, "height": 768}, bypass_csp=True)
            context.add_cookies(cookies)  # type: ignore[arg-type]
            return context

        with market.moving():
            for _ in range(LOADS):
                context = fresh()
                page = context.new_page()
                page.goto(f"{base}/healthz")
                blanks.append(page.evaluate("performance.getEntriesByType('navigation')[0].duration"))
                page.add_init_script(_PROBE)
                page.goto(base)
                page.wait_for_function(
                    "() => window.qdShown && performance.now() - window.qdLong > 100", timeout=30_000
                )
                paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                ready.append(page.evaluate("Math.max(window.qdShown, window.qdLong)"))
                context.close()
        context = fresh()
        page = context.new_page()
        page.goto(f"{base}/orders")
        page.wait_for_selector("text=2000 rows", timeout=60_000)
        time.sleep(2)
        idle = page.evaluate(_FRAMES, 5)
        with market.moving():
            time.sleep(3)
            moving = page.evaluate(_FRAMES, WATCH_S)
            delays = page.evaluate(_DELAYS, [WATCH_S, market.base])
        browser.close()
    delays.sort()
    return {
        "open_orders": panel_reads.ORDERS,
        "instruments": INSTRUMENTS,
        "ticks_per_s": INSTRUMENTS * PER_S,
        "blank_ms": round(statistics.median(blanks), 1),
        "first_paint_ms": round(statistics.median(paints), 1),
        "interactive_ms": round(statistics.median(ready), 1),
        "idle_frames_per_s": round(statistics.median(idle), 1),
        "frames_per_s": round(statistics.mean(moving), 1),
        "frames_worst_second": round(min(moving), 1),
        "frames_ratio": round(statistics.mean(moving) / statistics.median(idle), 3),
        "cells_changed": len(delays),
        "tick_to_screen_p50_ms": delays[len(delays) // 2] if delays else None,
        "tick_to_screen_p99_ms": delays[int(len(delays) * 0.99)] if delays else None,
    }


async def _orders(database_url: str) -> list[Any]:
    from storage.database import Database
    from storage.journal import Journal
    from storage.records import OrderFilter
    from trading.orders import OrderState

    database = Database(database_url, size=1)
    await database.open()
    found, _ = await Journal(database).orders(OrderFilter(states=(OrderState.SUBMITTED,)), limit=1_000)
    await database.close()
    return list(found)


def run() -> dict[str, Any]:
    """Everything, from servers to figures."""
    from storage.embedded import EmbeddedPostgres, EmbeddedRedis
    from storage.migrate import migrate

    with tempfile.TemporaryDirectory(prefix="qd-browser-") as folder:
        home = Path(folder)
        postgres, redis = EmbeddedPostgres(home / "postgres"), EmbeddedRedis(home / "redis")
        try:
            database_url, redis_url = postgres.start(), redis.start()
            migrate(database_url)
            panel.INSTRUMENTS = INSTRUMENTS
            key, numbers = asyncio.run(panel.prepare(database_url))
            asyncio.run(panel_reads.prepare(database_url))
            market = Market(redis_url, numbers, asyncio.run(_orders(database_url)))
            with api_process(database_url, redis_url, folder) as (port, _):
                return measure(f"http://127.0.0.1:{port}", key, market)
        finally:
            redis.stop()
            postgres.stop()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    chosen = parser.parse_args()
    found = run()
    print(json.dumps(found) if chosen.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
