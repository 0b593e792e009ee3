"""``/v1/stream``: changes pushed as they happen."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from api.formats import Body
from api.problems import ProblemError
from api.security import KEY_CACHE_S, Caller, Right, key_of
from api.services import Deck, Services
from api.stream import TOPICS, Entry
from trading.errors import TradeError

router = APIRouter(prefix="/v1")

HELLO_S: Final = 10.0
SEND_S: Final = 10.0

#: Codes with which we close, besides the standard ones.
UNAUTHORIZED: Final = 4401
BAD_HELLO: Final = 4422
NOT_READY: Final = 4503
TOO_SLOW: Final = 4413


class Hello(Body):
    """The first message of a client.

    ``after`` is the last sequence number it has; ``instance`` the one that came with it.
    """

    key: str | None = Field(None, max_length=200)
    topics: list[str] | None = Field(None, max_length=20)
    after: int | None = Field(None, ge=0)
    instance: str | None = Field(None, max_length=40)


class _Refused(Exception):
    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


@router.websocket("/stream")
async def stream(socket: WebSocket, deck: Deck) -> None:
    """Greet, then push what the client may see until either side goes."""
    await socket.accept()
    try:
        hello = await _hello(socket)
        key = hello.key or key_of(socket)
        if not key:
            raise _Refused(UNAUTHORIZED, 'no API key: put it into the first message as "key", or into a header')
        await _caller(deck, key, socket)
        deck.hub.clients += 1
        try:
            await _serve(socket, deck, hello, key)
        finally:
            deck.hub.clients -= 1
    except _Refused as refused:
        await _close(socket, refused.code, refused.reason)
    except WebSocketDisconnect:
        return


async def _hello(socket: WebSocket) -> Hello:
    try:
        async with asyncio.timeout(HELLO_S):
            return Hello.model_validate_json(await socket.receive_text())
    except TimeoutError:
        raise _Refused(BAD_HELLO, f"no first message within {HELLO_S:g} s") from None
    except KeyError:
        raise _Refused(BAD_HELLO, "the first message must be text, not bytes") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"]) or "message"
        raise _Refused(BAD_HELLO, f"{field}: {wrong['msg']}") from None


async def _caller(deck: Services, key: str, socket: WebSocket) -> Caller:
    try:
        caller = await deck.doorkeeper.admit(key, socket)
        caller.require(Right.VIEW)
    except ProblemError as error:
        raise _Refused(UNAUTHORIZED, error.detail) from None
    except TradeError as error:
        raise _Refused(NOT_READY, str(error)) from None
    return caller


async def _serve(socket: WebSocket, deck: Services, hello: Hello, key: str) -> None:
    unknown = sorted(set(hello.topics or ()) - set(TOPICS))
    if unknown:
        raise _Refused(BAD_HELLO, f"topics: no topic {unknown[0][:30]!r}; there are {', '.join(TOPICS)}")
    pushing = asyncio.create_task(_push(socket, deck, hello, key))
    leaving = asyncio.create_task(_drain(socket))
    try:
        await asyncio.wait({pushing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (pushing, leaving):
            task.cancel()
        results = await asyncio.gather(pushing, leaving, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


async def _drain(socket: WebSocket) -> None:
    """Read on, for only so is a client's going noticed; what it says after its first message means nothing."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return


async def _push(socket: WebSocket, deck: Services, hello: Hello, key: str) -> None:
    hub = deck.hub
    here = hello.instance in (None, hub.instance)
    resumed = hello.after is not None and here and hub.has(hello.after)
    place = hello.after if resumed and hello.after is not None else hub.newest
    greeting: dict[str, object] = {"instance": hub.instance, "sequence": place, "topics": hello.topics or list(TOPICS)}
    if hello.after is not None and not resumed:
        greeting["reset"] = True
    async with asyncio.timeout(SEND_S):
        await socket.send_json(greeting)
    wanted = frozenset(hello.topics or TOPICS)
    caller, checked = await _caller(deck, key, socket), time.monotonic()
    while True:
        if time.monotonic() - checked > KEY_CACHE_S:
            checked = time.monotonic()
            try:
                caller = await _caller(deck, key, socket)
            except _Refused as refused:
                # While the database is away nobody can revoke a key either.
                if refused.code != NOT_READY:
                    raise
        if not hub.has(place):
            raise _Refused(TOO_SLOW, "too slow: changes were lost; read again what you show, then connect again")
        for entry in hub.after(place):
            if _visible(entry, caller, wanted):
                await _send(socket, entry)
            place = entry.sequence
            if not hub.has(place):
                break
        if place == hub.newest:
            await hub.news(KEY_CACHE_S)


async def _send(socket: WebSocket, entry: Entry) -> None:
    try:
        async with asyncio.timeout(SEND_S):
            await socket.send_text(entry.text())
    except TimeoutError:
        raise _Refused(TOO_SLOW, f"too slow: nothing was read for {SEND_S:g} s") from None


def _visible(entry: Entry, caller: Caller, wanted: frozenset[str]) -> bool:
    change = entry.change
    if change is None:
        return True
    return change.topic in wanted and (not change.user or caller.sees(change.user))


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    # A close frame holds at most 123 bytes of reason.
    text = reason.encode()[:120].decode(errors="ignore")
    try:
        async with asyncio.timeout(2):
            await socket.close(code, text)
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        return  # it was gone already
