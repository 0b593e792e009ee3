"""Requests to Alpaca over HTTP: log-in headers, time limits, rate headers, and repeats where they are safe.

Reading is repeated; what acts is sent once.  A request without an answer returns None: it may have been carried out.
Source of the rate headers: "X-RateLimit-Limit, -Remaining, -Reset (seconds of the epoch)" of Alpaca's support pages.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Final

import httpx

from connectors.alpaca.wire import Request, Response
from trading.errors import NeedsOperator, NotReady

_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.2
#: A read does not wait longer than this for the next minute's requests.
_LONGEST_WAIT_S: Final = 20.0


class NotSent(Exception):
    """The request surely never left: nothing was connected to."""


class AlpacaClient:
    """A client of one host with one account's key."""

    def __init__(self, host: str, credentials: Mapping[str, str], timeout_s: float) -> None:
        self._host = host
        self._credentials = dict(credentials)
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient | None = None
        #: Requests left in this minute as the server last said, and when the next begins (epoch seconds).
        self.remaining: int | None = None
        self.resets_at = 0.0
        self.limited = 0

    def __repr__(self) -> str:
        return f"<AlpacaClient {self._host} {self.remaining} requests left>"

    async def act(self, request: Request) -> Response | None:
        """Send a request that changes something, once.  None: no answer came, it may have been carried out.

        Raises `NotSent` where no connection could be made.
        """
        try:
            return await self._send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(f"{type(error).__name__} {error}".strip()) from error
        except httpx.LocalProtocolError as error:
            # Refused before it is written; its text shows the header: the key.
            raise NotSent(type(error).__name__) from None
        except (httpx.HTTPError, TimeoutError):
            return None

    async def read(self, request: Request) -> Response | None:
        """Send a request that changes nothing, again where it helps.  None: no answer came.

        Raises `NotReady` where the rate limit leaves no room for long.
        """
        response: Response | None = None
        pause = _FIRST_PAUSE_S
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause *= 2
            await self._wait_for_room()
            try:
                response = await self._send(request)
            except (httpx.HTTPError, TimeoutError):
                response = None
                continue
            if response.status < 500 and response.status != 429:
                return response
        return response

    async def close(self) -> None:
        """Give back the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _send(self, request: Request) -> Response:
        client = self._open()
        async with asyncio.timeout(self._timeout_s):
            answer = await client.request(
                request.method,
                request.path,
                params=request.query,
                content=request.body or None,
                headers={"Content-Type": "application/json"} if request.body else None,
            )
        self._note(answer)
        return Response(
            answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content
        )

    def _open(self) -> httpx.AsyncClient:
        if self._http is None:
            missing = [name for name in ("key", "secret") if not self._credentials.get(name)]
            if missing:
                raise NeedsOperator(
                    f"there is no {' and no '.join(missing)} for Alpaca",
                    "give the account's credentials: PUT /v1/accounts/{id}/credentials",
                )
            self._http = httpx.AsyncClient(
                base_url=self._host,
                timeout=httpx.Timeout(self._timeout_s),
                limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
                headers={
                    "APCA-API-KEY-ID": self._credentials["key"],
                    "APCA-API-SECRET-KEY": self._credentials["secret"],
                },
            )
        return self._http

    def _note(self, answer: httpx.Response) -> None:
        left, reset = answer.headers.get("X-RateLimit-Remaining", ""), answer.headers.get("X-RateLimit-Reset", "")
        if left.isdigit() and reset.isdigit():
            self.remaining, self.resets_at = int(left), float(reset)
        if answer.status_code == 429:
            self.limited += 1
            self.remaining = 0
            after = answer.headers.get("Retry-After", "")
            if not reset.isdigit():
                self.resets_at = time.time() + (float(after) if after.isdigit() else 1.0)

    def room_in(self) -> float:
        """Seconds until the rate limit lets a request through; 0 for now."""
        return max(0.0, self.resets_at - time.time()) if self.remaining == 0 else 0.0

    async def _wait_for_room(self) -> None:
        wait = self.room_in()
        if wait > _LONGEST_WAIT_S:
            raise NotReady(f"{self._host}: this minute's requests are used up", wait)
        if wait:
            # The server's second has to be over, by its clock.
            await asyncio.sleep(wait + 0.05)
            self.remaining = None
