"""Binance's public REST resources: one request at a time within the weight limit, errors named by remedy.

Sources: "LIMITS", "HTTP Return Codes" and "Klines" of the REST documentation: 429 asks to slow down, 418 is a
ban of the address, both with ``Retry-After``; ``X-MBX-USED-WEIGHT-1M`` tells the weight used in this minute;
errors are ``{"code": -1121, "msg": "Invalid symbol."}``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import httpx
import msgspec

from connectors.binance.product import Product
from trading.errors import BadInput, NotReady, Unreachable

#: Above this share of the minute's weight we wait for the next minute.
_CAREFUL: Final = 0.9
_LONGEST_WAIT_S: Final = 65.0
_ATTEMPTS: Final = 3
#: "Invalid symbol.", "Invalid interval.", a parameter missing, malformed, superfluous or out of range.
_OURS: Final = frozenset({-1121, -1120, -1102, -1100, -1101, -1105, -1127, -1128, -1130})


class _Error(msgspec.Struct):
    code: int
    msg: str = ""


class Rest:
    """A client of the public resources; `close` it."""

    def __init__(self, product: Product, host: str) -> None:
        self._product = product
        self._base = host.rstrip("/") + product.rest_path
        self._client: httpx.AsyncClient | None = None
        self._one_at_a_time = asyncio.Lock()
        #: `time.monotonic` before which nothing may be sent.
        self._closed_until = 0.0
        self._ban = ""
        #: Weight used in this minute, as the server last said.
        self.used_weight = 0

    def __repr__(self) -> str:
        return f"<Rest {self._base} weight {self.used_weight}/{self._product.weight_per_minute}>"

    async def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> bytes:
        """The body of ``GET <base><path>``.

        Raises `BadInput` (Binance refuses a parameter), `NotReady` (limit reached for long) or `Unreachable`.
        """
        async with self._one_at_a_time:
            for attempt in range(_ATTEMPTS):
                await self._wait_for_weight()
                try:
                    answer = await self._http().get(self._base + path, params=dict(parameters or {}))
                except httpx.HTTPError as error:
                    # Reading is safe to repeat.
                    if attempt + 1 == _ATTEMPTS:
                        raise Unreachable(self._base, f"{type(error).__name__} {error}".strip()) from error
                    await asyncio.sleep(0.3 * 2**attempt)
                    continue
                self._note_weight(answer)
                if answer.status_code == 200:
                    return answer.content
                if answer.status_code in (429, 418):
                    self._note_limit(answer)
                    continue
                if answer.status_code >= 500 and attempt + 1 < _ATTEMPTS:
                    await asyncio.sleep(0.3 * 2**attempt)
                    continue
                raise self._error(path, answer)
            raise NotReady(f"{self._base} keeps refusing requests: its limit is reached", self._left() or 1.0)

    async def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=httpx.Timeout(10.0), limits=httpx.Limits(max_connections=4))
        return self._client

    def _left(self) -> float:
        return max(0.0, self._closed_until - time.monotonic())

    async def _wait_for_weight(self) -> None:
        left = self._left()
        if left > _LONGEST_WAIT_S:
            raise NotReady(f"{self._base} {self._ban} for {left:.0f} s more", left)
        if left:
            await asyncio.sleep(left)

    def _note_weight(self, answer: httpx.Response) -> None:
        used = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isdigit():
            self.used_weight = int(used)
            if self.used_weight >= _CAREFUL * self._product.weight_per_minute:
                # The counter starts anew with each minute of the server's clock.
                self._ban = "has used up the weight of this minute"
                self._closed_until = time.monotonic() + 60.0 - time.time() % 60.0 + 0.5

    def _note_limit(self, answer: httpx.Response) -> None:
        said = answer.headers.get("Retry-After", "")
        wait = float(said) if said.isdigit() else 60.0
        self._ban = "banned this address" if answer.status_code == 418 else "asks to slow down"
        self._closed_until = max(self._closed_until, time.monotonic() + wait)

    def _error(self, path: str, answer: httpx.Response) -> Exception:
        try:
            said = msgspec.json.decode(answer.content, type=_Error)
        except msgspec.DecodeError:
            return Unreachable(self._base + path, f"HTTP {answer.status_code}: {answer.text[:200]}")
        if said.code in _OURS:
            return BadInput(path.strip("/"), f"Binance refuses it: {said.msg} (code {said.code})")
        return Unreachable(self._base + path, f"HTTP {answer.status_code}: {said.msg} (code {said.code})")
