"""Log-ins of the simulator: request tokens, access tokens and their end, and the rate of requests.  Pure.

As at Kite: a request_token works once and for minutes; a new access_token ends the one before; all of them end at six
in the morning of India; requests above the rate of their kind are answered with 429.
"""

from __future__ import annotations

import hashlib
from collections import deque
from datetime import UTC, datetime, time, timedelta
from typing import Final

import msgspec

from connectors.kite.simulated_wire import Response
from connectors.kite.wire import IST, checksum, ist
from trading.ids import Nanos

_SECOND: Final = 1_000_000_000
REQUEST_TOKEN_NS: Final = 300 * _SECOND
_RATES: Final = {"quote": 1, "historical": 3, "other": 10}


class Refusal(Exception):
    """An answer that is none of 200, in Kite's words."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(status, error_type, message)
        self.response = Response(
            status,
            msgspec.json.encode({"status": "error", "message": message, "error_type": error_type, "data": None}),
        )


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A registered app of the simulator: its key and secret, and who logs in to it."""

    api_key: str = "simulatedkey"
    api_secret: str = "simulatedsecret"
    user_id: str = "AB1234"


class LogIn:
    """The log-in of one app."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._count = 0
        self._requested: dict[str, Nanos] = {}
        self.access_token = ""
        self._ends_at = 0
        self._asked: dict[str, deque[int]] = {kind: deque() for kind in _RATES}

    def __repr__(self) -> str:
        return f"<LogIn {self.app.api_key} {'in' if self.access_token else 'out'}>"

    def request_token(self, now: Nanos) -> str:
        """What a person gets who has logged in."""
        self._count += 1
        token = _token(self.app, "request", self._count)
        self._requested[token] = now
        return token

    def session(self, form: dict[str, str], now: Nanos) -> dict[str, object]:
        """``POST /session/token``.  Raises `Refusal`."""
        token = form.get("request_token", "")
        if not token or not form.get("checksum"):
            raise Refusal(400, "InputException", "Missing or empty field `request_token` or `checksum`")
        if form["checksum"] != checksum(self.app.api_key, token, self.app.api_secret):
            raise Refusal(403, "TokenException", "Invalid `checksum`.")
        since = self._requested.pop(token, None)
        if since is None or now - since > REQUEST_TOKEN_NS:
            raise Refusal(403, "TokenException", "Token is invalid or has expired.")
        self.give(now)
        return {
            "user_type": "individual",
            "email": "",
            "user_name": "Simulated Person",
            "user_shortname": "Simulated",
            "broker": "ZERODHA",
            "exchanges": ["NSE", "BSE", "NFO", "CDS"],
            "products": ["CNC", "NRML", "MIS"],
            "order_types": ["MARKET", "LIMIT", "SL", "SL-M"],
            "avatar_url": None,
            "user_id": self.app.user_id,
            "api_key": self.app.api_key,
            "access_token": self.access_token,
            "public_token": _token(self.app, "public", self._count),
            "enctoken": "",
            "refresh_token": "",
            "silo": "",
            "login_time": ist(now),
            "meta": {"demat_consent": "consent"},
        }

    def give(self, now: Nanos) -> str:
        """A new access token; the one before ends."""
        self._count += 1
        self.access_token = _token(self.app, "access", self._count)
        self._ends_at = _six_in_the_morning_after(now)
        return self.access_token

    def end(self) -> None:
        """The session is over."""
        self.access_token = ""

    def knows(self, token: str, now: Nanos) -> bool:
        """Whether an access token is good."""
        return bool(token) and token == self.access_token and now < self._ends_at

    def count(self, kind: str, now: Nanos) -> None:
        """A request of a kind.  Raises `Refusal` above its rate."""
        asked = self._asked[kind]
        while asked and now - asked[0] >= _SECOND:
            asked.popleft()
        if len(asked) >= _RATES[kind]:
            raise Refusal(429, "NetworkException", "Too many requests")
        asked.append(now)


def _token(app: App, kind: str, count: int) -> str:
    return hashlib.sha256(f"{app.api_key}{app.api_secret}{kind}{count}".encode()).hexdigest()[:32]


def _six_in_the_morning_after(now: Nanos) -> int:
    at = datetime.fromtimestamp(now // _SECOND, UTC).astimezone(IST)
    six = datetime.combine(at.date(), time(6), IST)
    return int((six if at < six else six + timedelta(days=1)).timestamp()) * _SECOND
