"""Drives a simulator with the official SDK.  Run by a Python that has it: ``sdk_round_trip.py <url>``.

Prints one JSON object of what it saw; the test judges.  It imports nothing of ours.  Twisted has one reactor to a
process, so all of it is one run.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kiteconnect import KiteConnect, KiteTicker
from kiteconnect import exceptions as kite_errors

KEY, SECRET = "simulatedkey", "simulatedsecret"
WITHIN_S = 30.0


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *of: Any) -> None:
        return None


def control(url: str, name: str, **wish: Any) -> Any:
    request = urllib.request.Request(f"{url}/simulator/{name}", json.dumps(wish).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


def until(what: str, check: Any) -> Any:
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {WITHIN_S:g} s")


def refused(act: Any) -> list[Any]:
    try:
        act()
    except kite_errors.KiteException as error:
        return [type(error).__name__, error.code, str(error)]
    return ["nothing was refused"]


def log_in(url: str, kite: KiteConnect, seen: dict[str, Any]) -> None:
    seen["without"] = refused(lambda: kite.ltp("NSE:INFY"))
    browser = urllib.request.build_opener(NoRedirect)
    try:
        browser.open(kite.login_url(), timeout=5)
    except urllib.error.HTTPError as answer:
        where = answer.headers["location"]
    token = parse_qs(urlsplit(where).query)["request_token"][0]
    session = kite.generate_session(token, SECRET)
    seen["session"] = [session["api_key"], session["user_id"], type(session["login_time"]).__name__]
    seen["used_token"] = refused(lambda: kite.generate_session(token, SECRET))


def rest(kite: KiteConnect, seen: dict[str, Any]) -> None:
    rows = kite.instruments()
    seen["instruments"] = len(rows)
    infy = next(row for row in rows if row["tradingsymbol"] == "INFY" and row["exchange"] == "NSE")
    seen["infy"] = [infy["instrument_token"], infy["tick_size"], infy["lot_size"], infy["segment"]]
    future = next(row for row in rows if row["segment"] == "NFO-FUT")
    seen["future"] = [type(future["expiry"]).__name__, future["lot_size"]]
    seen["bse"] = sorted({row["exchange"] for row in kite.instruments("BSE")})
    quote = kite.quote(["NSE:INFY", "NSE:NOSUCH"])
    seen["quote_keys"] = sorted(quote)
    quote = quote["NSE:INFY"]
    seen["quote"] = [quote["instrument_token"], quote["last_price"], type(quote["timestamp"]).__name__]
    seen["quote_depth"] = [len(quote["depth"]["buy"]), len(quote["depth"]["sell"])]
    time.sleep(1.1)
    seen["ohlc"] = sorted(kite.ohlc("NSE:INFY")["NSE:INFY"]["ohlc"])
    seen["too_fast"] = refused(lambda: kite.ltp("NSE:INFY"))
    time.sleep(1.1)
    seen["ltp"] = kite.ltp("NSE:INFY")["NSE:INFY"]
    now = datetime.now()
    candles = kite.historical_data(408065, now - timedelta(days=30), now, "5minute")
    seen["candles"] = [len(candles) > 1_000, sorted(candles[0]), str(candles[0]["date"].utcoffset())]
    with_oi = kite.historical_data(408065, now - timedelta(days=9), now, "day", oi=True)
    seen["oi"] = "oi" in with_oi[0]
    seen["too_long"] = refused(lambda: kite.historical_data(408065, now - timedelta(days=61), now, "minute"))
    time.sleep(1.1)
    seen["bad_interval"] = refused(lambda: kite.historical_data(408065, now, now, "7minute"))
    seen["unknown_token"] = refused(lambda: kite.historical_data(77, now, now, "day"))
    time.sleep(1.1)
    seen["too_many"] = refused(lambda: kite.quote([f"NSE:S{n}" for n in range(501)]))


class Watch:
    """A ticker and all that it said."""

    def __init__(self, url: str, token: str) -> None:
        self.ticks: list[dict[str, Any]] = []
        self.orders: list[Any] = []
        self.errors: list[Any] = []
        self.beats = 0
        self.opens = 0
        self.connected = threading.Event()
        self.ticker = ticker = KiteTicker(KEY, token, root="ws" + url.removeprefix("http") + "/")
        ticker.on_ticks = lambda _, ticks: self.ticks.extend(ticks)
        ticker.on_connect = self._connect
        ticker.on_message = self._message
        ticker.on_order_update = lambda _, data: self.orders.append(data)
        ticker.on_error = lambda _, code, reason: self.errors.append([code, str(reason)])

    def _connect(self, *_: Any) -> None:
        self.opens += 1
        self.connected.set()

    def _message(self, _: Any, payload: bytes, is_binary: bool) -> None:
        self.beats += is_binary and len(payload) == 1

    def call(self, act: Any, *of: Any) -> None:
        """Do it where the reactor runs."""
        from twisted.internet import reactor

        reactor.callFromThread(act, *of)

    def last(self, token: int, mode: str) -> dict[str, Any] | None:
        return next((t for t in reversed(self.ticks) if t["instrument_token"] == token and t["mode"] == mode), None)


def stream(url: str, token: str, seen: dict[str, Any]) -> None:
    watch = Watch(url, token)
    watch.ticker.connect(threaded=True)
    if not watch.connected.wait(WITHIN_S):
        raise TimeoutError("the ticker does not connect")
    infy, nifty, share, dollar = 408065, 256265, 2560001, 412675
    watch.call(watch.ticker.subscribe, [infy, nifty, share, dollar, 77])
    watch.call(watch.ticker.set_mode, "full", [infy, nifty, dollar])
    watch.call(watch.ticker.set_mode, "ltp", [share])
    for each, mode in ((infy, "full"), (nifty, "full"), (dollar, "full"), (share, "ltp")):
        until(f"{each} in mode {mode}", lambda each=each, mode=mode: watch.last(each, mode))
    seen["first_mode"] = watch.ticks[0]["mode"]
    watch.ticks.clear()
    bids = [[1500.05 - n / 20, 10 + n, 2 + n] for n in range(5)]
    asks = [[1500.1 + n / 20, 20 + n, 3 + n] for n in range(5)]
    control(url, "book", instrument="NSE:INFY", bids=bids, asks=asks)
    control(url, "trade", instrument="NSE:INFY", price=1500.1, size=7)
    control(url, "trade", instrument="NSE:NIFTY 50", price=24010.5)
    control(url, "trade", instrument="NSE:SHARE0", price=101.05)

    def is_full() -> Any:
        tick = watch.last(infy, "full")
        return tick if tick and tick["last_price"] == 1500.1 and tick["depth"]["buy"][0]["price"] == 1500.05 else None

    tick = until("the trade and the book", is_full)
    seen["full"] = [tick["last_traded_quantity"], tick["tradable"], type(tick["exchange_timestamp"]).__name__]
    seen["buy"] = [[level["price"], level["quantity"], level["orders"]] for level in tick["depth"]["buy"]]
    seen["sell"] = [[level["price"], level["quantity"], level["orders"]] for level in tick["depth"]["sell"]]
    seen["last_trade_near_now"] = abs((datetime.now() - tick["last_trade_time"]).total_seconds()) < 5
    index = until("the index", lambda: watch.last(nifty, "full"))
    seen["index"] = [index["last_price"], index["tradable"], index["ohlc"]["high"], "exchange_timestamp" in index]
    seen["ltp_tick"] = until("the share", lambda: watch.last(share, "ltp"))["last_price"]
    control(url, "trade", instrument=seen["dollar"], price=83.2575)
    seen["dollar_price"] = until("the dollar", lambda: watch.last(dollar, "full"))["last_price"]
    control(url, "text", type="order", data={"order_id": "1", "status": "COMPLETE"})
    seen["order"] = until("the order", lambda: watch.orders)[0]
    control(url, "text", type="error", data="out of order")
    seen["error"] = until("the error", lambda: watch.errors)[0]
    many = [n << 8 | 1 for n in range(50_000, 53_001)]
    watch.call(watch.ticker.subscribe, many)
    seen["too_many_tokens"] = until("the refusal", lambda: watch.errors[1:])[0]
    for each in many:
        watch.ticker.subscribed_tokens.pop(each, None)
    until("two heartbeats", lambda: watch.beats >= 2)
    watch.ticks.clear()
    control(url, "drop")
    until("the ticker is back", lambda: watch.opens == 2)
    until("its tokens are back in their modes", lambda: watch.last(infy, "full") and watch.last(share, "ltp"))
    seen["back"] = True
    control(url, "logout")
    watch.errors.clear()
    control(url, "drop")
    seen["after_logout"] = until("403", lambda: [e for e in watch.errors if "403" in e[1]])[0][1]
    watch.call(watch.ticker.stop_retry)


def main() -> None:
    url = sys.argv[1]
    KiteConnect._default_login_uri = f"{url}/connect/login"
    kite = KiteConnect(KEY, root=url)
    seen: dict[str, Any] = {}
    log_in(url, kite, seen)
    rest(kite, seen)
    seen["dollar"] = next(f"CDS:{row['tradingsymbol']}" for row in kite.instruments("CDS"))
    stream(url, kite.access_token, seen)
    seen["ended"] = refused(kite.profile)
    print(json.dumps(seen, default=str))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
