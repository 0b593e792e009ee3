"""Two ways to a session: through the API, and straight over Ray as algos go.  Answers are a state or an error."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import httpx
import msgspec

from cluster.settings import DeckSettings, environment
from trading.errors import NotReady, Refused, TradeError, Unreachable
from trading.orders import CancelOrder, ModifyOrder, PlaceOrder

_CHANGED: Final = ("quantity", "limit_price", "stop_price", "trail_price", "trail_percent")
_PLACED: Final = ("account", "client_order_id", "instrument", "side", "type", *_CHANGED, "time_in_force", "reduce_only")
#: The state of the order that came back, or why none did.
Answered = str | TradeError


class Caller(Protocol):
    """Somebody who trades for accounts of a user."""

    async def place(self, user: str, intents: Sequence[PlaceOrder]) -> list[Answered]:
        """Place orders; one answer each."""

    async def modify(self, user: str, change: ModifyOrder) -> Answered:
        """Change one."""

    async def cancel(self, user: str, cancel: CancelOrder) -> Answered:
        """Take one back."""

    async def cancel_all(self, user: str, account: str) -> Answered:
        """Take all of an account back."""


class ApiCaller:
    """Over HTTP."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=f"{url}/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(8.0, connect=2.0),
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def place(self, user: str, intents: Sequence[PlaceOrder]) -> list[Answered]:
        sent = (self._ask("POST", "/orders", _body(intent, _PLACED)) for intent in intents)
        return list(await asyncio.gather(*sent))

    async def modify(self, user: str, change: ModifyOrder) -> Answered:
        path = f"/orders/{change.account}/{change.client_order_id}"
        return await self._ask("PATCH", path, _body(change, _CHANGED))

    async def cancel(self, user: str, cancel: CancelOrder) -> Answered:
        return await self._ask("DELETE", f"/orders/{cancel.account}/{cancel.client_order_id}")

    async def cancel_all(self, user: str, account: str) -> Answered:
        return await self._ask("POST", f"/accounts/{account}/cancel-all")

    async def _ask(self, method: str, path: str, body: Any = None) -> Answered:
        try:
            answer = await self._http.request(method, path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return NotReady(f"the API cannot be reached: {type(error).__name__}")
        except httpx.HTTPError as error:
            return Unreachable("api", type(error).__name__)
        said = answer.json() if answer.content else {}
        if answer.is_success:
            return str(said.get("state", "done"))
        detail = f"{answer.status_code} {said.get('detail', '')}"
        if said.get("code") == "risk_denied" and "order" in said:
            return str(said["order"]["state"])
        if answer.status_code == 503:
            return NotReady(detail)
        if 400 <= answer.status_code < 500:
            return Refused(str(said.get("code", "refused")), detail)
        return Unreachable("api", detail)


class DirectCaller:
    """Over Ray, through `tests.chaos.direct`, which is started again when it has died or Ray's head was replaced."""

    def __init__(self, deck: DeckSettings, head: Callable[[], int]) -> None:
        self._deck = deck
        #: Process of Ray's control store, 0 while there is none: a driver of one is of no use to the next.
        self._head = head
        self._of_head = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def place(self, user: str, intents: Sequence[PlaceOrder]) -> list[Answered]:
        return await self._call(user, "place", len(intents), [list(intents)])

    async def modify(self, user: str, change: ModifyOrder) -> Answered:
        return (await self._call(user, "modify", 1, [change]))[0]

    async def cancel(self, user: str, cancel: CancelOrder) -> Answered:
        return (await self._call(user, "cancel", 1, [[cancel]]))[0]

    async def cancel_all(self, user: str, account: str) -> Answered:
        answers = await self._call(user, "cancel_all", 0, [account, None, "chaos"])
        return next((a for a in answers if isinstance(a, TradeError)), "done")

    async def memory(self, user: str, account: str) -> dict[str, Any]:
        """A session's memory of an account.  Raises `NotReady` or `Unreachable`."""
        said = await self.ask(op="call", user=user, method="memory", args=[account])
        if "value" not in said:
            raise NotReady(f"no memory of {account}: {said}")
        return dict(said["value"])

    async def _call(self, user: str, method: str, count: int, arguments: list[Any]) -> list[Answered]:
        try:
            said = await self.ask(op="call", user=user, method=method, args=arguments)
        except TradeError as error:
            return [error] * count
        if "error" in said:
            return [_error(said)] * count
        return [_error(r) if "error" in r else str(r["order"]["state"]) for r in said["results"]]

    async def ask(self, timeout: float = 10.0, **request: Any) -> dict[str, Any]:
        """One request and its answer.  Raises `NotReady` (never sent) or `Unreachable`."""
        process = await self._running()
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode({"id": number, **request}) + b"\n")
            async with asyncio.timeout(timeout):
                return await answer
        except (TimeoutError, OSError) as error:
            raise Unreachable("direct", f"no answer to {request['op']}: {type(error).__name__}") from error
        finally:
            self._waiting.pop(number, None)

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            head = self._head() or self._of_head
            if head != self._of_head:
                self._of_head = head
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()
                    await self._process.wait()
            if self._process is None or self._process.returncode is not None:
                if self._reader is not None:
                    await self._reader
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.chaos.direct"),
                    env=environment(self._deck),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    limit=1 << 26,
                    # A driver whose raylet dies takes its whole process group with it.
                    start_new_session=True,
                )
                self._reader = asyncio.create_task(self._read(self._process))
            return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            with contextlib.suppress(msgspec.DecodeError):  # Ray may print a line of its own
                said = msgspec.json.decode(line, type=dict[str, Any])
                waiting = self._waiting.get(said.get("id", 0))
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
        await process.wait()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unreachable("direct", "the caller's process ended"))


def _error(said: dict[str, str]) -> TradeError:
    kind, detail = said["error"], said["detail"]
    if kind == "NotReady":
        return NotReady(detail)
    if kind in ("Refused", "BadInput", "UnknownThing", "Conflict", "RiskDenied"):
        return Refused(kind, detail)
    return Unreachable("session", f"{kind}: {detail}")


def _body(wish: PlaceOrder | ModifyOrder, fields: Sequence[str]) -> dict[str, Any]:
    values = {field: getattr(wish, field) for field in fields}
    return {f: v if isinstance(v, bool) else str(v) for f, v in values.items() if v is not None}
