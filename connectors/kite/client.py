"""Requests to Kite over HTTP: the token header, rate limits by kind of resource, errors named by their remedy.

Everything here reads (or logs in), so it is repeated where that helps.  Credentials are looked at anew for each
request: a new access token is used as soon as it is there.  Limits are Kite's per API key: 1 a second of quotes, 3 of
candles, 10 of everything else (staff in the developers' forum); above them it answers 429.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from connectors.kite.wire import VERSION, Session, checksum, data_in, error_in, login_url
from trading.errors import BadInput, NeedsOperator, NotReady, Unreachable

_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.5
#: Kind of resource -> requests a second.
_RATES: Final = {"quote": 1.0, "historical": 3.0, "other": 10.0}
#: A little slower than allowed, for Kite counts by its own clock.
_CAREFUL: Final = 1.1

Query = Sequence[tuple[str, str]]


def token_missing(credentials: Mapping[str, str], why: str) -> NeedsOperator:
    """What a person has to do when there is no good access token: log in anew, which Kite asks for each day."""
    api_key = credentials.get("api_key", "")
    if not api_key:
        return NeedsOperator(
            why, "name an account with Kite's credentials in the feed's settings: {\"account\": …}, and give them"
        )
    return NeedsOperator(
        why,
        f"log in at {login_url(api_key)}; Kite then sends the browser to an address with a request_token: give it with "
        "api_key and api_secret, PUT /v1/accounts/{id}/credentials",
    )


class KiteClient:
    """A client of one API key."""

    def __init__(self, host: str, credentials: Mapping[str, str], timeout_s: float = 20.0) -> None:
        self._host = host.rstrip("/")
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient | None = None
        self._turns = {kind: asyncio.Lock() for kind in _RATES}
        self._next_at = dict.fromkeys(_RATES, 0.0)
        #: Requests that Kite refused for their rate.
        self.limited = 0

    def __repr__(self) -> str:
        return f"<KiteClient {self._host}>"

    async def read(self, path: str, query: Query = (), kind: str = "other") -> bytes:
        """The body of ``GET path``.

        Raises `NeedsOperator` (no token, a token that has ended, a missing permission), `BadInput` (Kite refuses a
        parameter), `NotReady` (too many requests, for long) or `Unreachable`.
        """
        return await self._ask("GET", path, query, b"", kind)

    async def exchange(self, request_token: str) -> Session:
        """Turn the ``request_token`` of a log-in into a session.  It works once, within minutes of the log-in.

        Raises `NeedsOperator` where the key, the secret or the token is missing or refused.
        """
        api_key, secret = self._credentials.get("api_key", ""), self._credentials.get("api_secret", "")
        if not api_key or not secret or not request_token:
            raise NeedsOperator(
                "the log-in cannot be finished without api_key, api_secret and request_token",
                "give all three; the request_token is in the address that Kite sends the browser to",
            )
        form = {
            "api_key": api_key,
            "request_token": request_token,
            "checksum": checksum(api_key, request_token, secret),
        }
        body = str(httpx.QueryParams(form)).encode()
        session: Session = data_in(await self._ask("POST", "/session/token", (), body, "other"), Session, "the session")
        return session

    async def close(self) -> None:
        """Give back the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    # Inside

    async def _ask(self, method: str, path: str, query: Query, body: bytes, kind: str) -> bytes:
        headers = dict(VERSION)
        if method == "GET":
            headers["Authorization"] = self._token()
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        pause = _FIRST_PAUSE_S
        # A request_token works once: what was sent may have been carried out.
        attempts = _ATTEMPTS if method == "GET" else 1
        failure: Exception = NotReady(f"{self._host} was not asked", 1.0)
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause *= 2
            await self._wait_for_turn(kind)
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._open().request(
                        method, self._host + path, params=list(query), content=body or None, headers=headers
                    )
            except httpx.LocalProtocolError:
                # Its text shows the header that cannot be sent: the token.
                raise token_missing(self._credentials, "the token is none that can be sent") from None
            except (httpx.HTTPError, TimeoutError) as error:
                failure = Unreachable(self._host, f"{path}: {type(error).__name__} {error}".strip())
                failure.__cause__ = error
                continue
            if answer.status_code == 200:
                return answer.content
            failure = self._failure(path, answer.status_code, answer.content)
            if answer.status_code != 429 and answer.status_code < 500:
                break
        raise failure

    def _token(self) -> str:
        api_key, token = self._credentials.get("api_key", ""), self._credentials.get("access_token", "")
        if not api_key or not token:
            missing = " and no ".join(name for name in ("api_key", "access_token") if not self._credentials.get(name))
            raise token_missing(self._credentials, f"there is no {missing} for Kite")
        return f"token {api_key}:{token}"

    def _failure(self, path: str, status: int, body: bytes) -> Exception:
        error = error_in(body)
        said = f"Kite refuses {path}: {error.message or error.error_type} (HTTP {status}, {error.error_type})"
        if error.error_type == "TokenException" or (status == 403 and error.error_type != "PermissionException"):
            return token_missing(self._credentials, said)
        if error.error_type == "PermissionException":
            return NeedsOperator(said, "add what is missing to the app's subscription at developers.kite.trade")
        if status == 429:
            self.limited += 1
            return NotReady(said, 1.0)
        if status == 400 or error.error_type == "InputException":
            return BadInput(path.strip("/").partition("?")[0], f"Kite refuses it: {error.message}")
        return Unreachable(self._host, said)

    async def _wait_for_turn(self, kind: str) -> None:
        loop = asyncio.get_running_loop()
        async with self._turns[kind]:
            if (wait := self._next_at[kind] - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._next_at[kind] = loop.time() + _CAREFUL / _RATES[kind]

    def _open(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout_s), limits=httpx.Limits(max_connections=4)
            )
        return self._http
