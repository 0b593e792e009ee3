"""``/v1/stream``: changes, and market data, pushed as they happen."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from api.formats import Body, time_text
from api.log_stream import FORM, LogClient, is_log
from api.market import Topic
from api.market_client import MOST_TOPICS, MarketClient
from api.problems import ProblemError
from api.security import Caller, Right, key_of
from api.services import Deck, Services
from api.session_door import has_session
from api.stream import TOPICS, Entry
from api.topics import FORMS, is_market, read_topics
from api.view_sources import FORM as VIEW_FORM
from api.view_sources import MOST_VIEWS, ViewClient, is_view
from storage.tasks import end_tasks
from trading.errors import BadInput, TradeError, UnknownThing

router = APIRouter(prefix="/v1")

HELLO_S: Final = 10.0
#: Whether a client is still let in is looked at so often, so that it is told within twice that.
CHECK_S: Final = 2.4
SEND_S: Final = 10.0

#: Codes with which we close, besides the standard ones.
UNAUTHORIZED: Final = 4401
BAD_HELLO: Final = 4422
NOT_READY: Final = 4503
TOO_SLOW: Final = 4413

TOO_MANY: Final = 4429

#: Streams that one user may have open.
MOST_STREAMS: Final = 300
#: Messages of market data a second that a client gets if it does not say, and at most.
USUAL_PACE: Final = 20.0
LARGEST_PACE: Final = 50.0
_LONGEST_TOPIC: Final = 120

#: Gives the caller as they are now; raises what says why, once they are not let in any more.
Entrance: TypeAlias = Callable[[], Awaitable[Caller]]


class Hello(Body):
    """The first message of a client.

    ``after`` is the last sequence number it has; ``instance`` the one that came with it; ``places`` the last ``n`` of
    each topic of market data, and the ``number`` of the last line of each log.  ``per_second``: messages of market
    data, which hold all that is new.
    """

    key: str | None = Field(None, max_length=200)
    topics: list[str] | None = Field(None, max_length=MOST_TOPICS + MOST_VIEWS + len(TOPICS))
    after: int | None = Field(None, ge=0)
    instance: str | None = Field(None, max_length=40)
    places: dict[str, int] = Field(default_factory=dict, max_length=MOST_TOPICS)
    per_second: float = Field(USUAL_PACE, ge=0.1, le=LARGEST_PACE)


class Wish(Body):
    """A later message: topics of market data, and views, to add and to give up."""

    subscribe: list[str] = Field(default_factory=list, max_length=MOST_TOPICS + MOST_VIEWS)
    unsubscribe: list[str] = Field(default_factory=list, max_length=MOST_TOPICS + MOST_VIEWS)


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
        entrance = await _entrance(deck, socket, hello.key or key_of(socket))
        user = (await entrance()).user
        if deck.hub.clients[user] >= MOST_STREAMS:
            raise _Refused(TOO_MANY, f"{user} has {MOST_STREAMS} streams open: close some")
        deck.hub.clients[user] += 1
        try:
            await _serve(socket, deck, hello, entrance)
        finally:
            deck.hub.clients[user] -= 1
            if not deck.hub.clients[user]:
                del deck.hub.clients[user]
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


async def _entrance(deck: Services, socket: WebSocket, key: str | None) -> Entrance:
    """How this client is let in, and looked at again: by a key, or by the session that its browser is signed in to."""
    if key:
        return partial(_checked, partial(deck.doorkeeper.admit, key, socket))
    if not has_session(socket):
        raise _Refused(UNAUTHORIZED, 'sign in, or give an API key: in the first message as "key", or in a header')
    door = deck.doorkeeper.sessions
    try:
        # A page of another site may open sockets, and browsers send our cookies along: its origin tells.
        await door.check_origin(socket)
        session = (await door.known(socket)).id
    except ProblemError as error:
        raise _Refused(UNAUTHORIZED, error.detail) from None
    except TradeError as error:
        raise _Refused(NOT_READY, str(error)) from None
    return partial(_checked, partial(deck.doorkeeper.readmit_session, session))


async def _checked(admit: Entrance) -> Caller:
    try:
        caller = await admit()
        caller.require(Right.VIEW)
    except ProblemError as error:
        raise _Refused(UNAUTHORIZED, error.detail) from None
    except TradeError as error:
        raise _Refused(NOT_READY, str(error)) from None
    return caller


async def _again(entrance: Entrance) -> Caller | None:
    """The caller as they are now; None while the database is away, when nobody can shut them out either."""
    try:
        return await entrance()
    except _Refused as refused:
        if refused.code != NOT_READY:
            raise
        return None


async def _serve(socket: WebSocket, deck: Services, hello: Hello, entrance: Entrance) -> None:
    wanted = list(TOPICS) if hello.topics is None else hello.topics
    kinds = (is_market, is_log, is_view)
    unknown = sorted(each for each in wanted if each not in TOPICS and not any(kind(each) for kind in kinds))
    if unknown:
        known = ", ".join((*TOPICS, *FORMS, FORM, VIEW_FORM))
        raise _Refused(BAD_HELLO, f"topics: no topic {unknown[0][:30]!r}; there are {known}")
    hub = deck.hub
    here = hello.instance in (None, hub.instance)
    client = MarketClient(deck.market, hello.places if here else {})
    logs = LogClient(deck)
    views = ViewClient(deck)
    outlet = _Outlet(socket)
    news = asyncio.Event()
    try:
        joined = await _join(deck, client, [each for each in wanted if is_market(each)])
        # Lines are numbered by the database: their places are good wherever they come from.
        await _join_logs(deck, logs, [each for each in wanted if is_log(each)], hello, entrance)
        await _join_views(views, [each for each in wanted if is_view(each)], entrance)
        changes = frozenset(each for each in wanted if each in TOPICS)
        resumed = hello.after is not None and here and hub.has(hello.after)
        place = hello.after if resumed and hello.after is not None else hub.newest
        greeting: dict[str, object] = {"instance": hub.instance, "sequence": place, "topics": wanted, **_told(joined)}
        if hello.after is not None and not resumed:
            greeting["reset"] = True
        await outlet.send(greeting)
        tasks = [
            asyncio.create_task(_push(outlet, deck, changes, place, entrance)),
            asyncio.create_task(_push_market(outlet, deck, client, 1.0 / hello.per_second, news)),
            asyncio.create_task(_push_views(outlet, views, entrance)),
            asyncio.create_task(_hear(outlet, deck, client, views, news, entrance)),
            asyncio.create_task(logs.run(outlet.send, partial(_again, entrance))),
        ]
        await _first_to_end(tasks)
    finally:
        client.leave()
        views.leave()


async def _first_to_end(tasks: list[asyncio.Task[None]]) -> None:
    """Wait until one of them ends, end the others; raises what one of them raised."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(tasks)
    for task in tasks:
        trouble = None if task.cancelled() else task.exception()
        if isinstance(trouble, Exception) and not isinstance(trouble, WebSocketDisconnect):
            raise trouble


async def _join(deck: Services, client: MarketClient, texts: list[str]) -> list[Topic]:
    try:
        for text in texts:
            if len(text) > _LONGEST_TOPIC:
                raise BadInput("topics", f"{text[:30]!r}… is longer than {_LONGEST_TOPIC} characters")
        return await client.join(await read_topics(texts, deck.desired, deck.instruments))
    except (BadInput, UnknownThing) as error:
        raise _Refused(BAD_HELLO, str(error)) from None
    except TradeError as error:
        raise _Refused(NOT_READY, str(error)) from None


async def _join_views(views: ViewClient, texts: list[str], entrance: Entrance) -> None:
    if not texts:
        return
    try:
        views.join(await entrance(), texts)
    except BadInput as error:
        raise _Refused(BAD_HELLO, str(error)) from None


async def _join_logs(deck: Services, logs: LogClient, texts: list[str], hello: Hello, entrance: Entrance) -> None:
    if not texts:
        return
    try:
        await logs.join(await entrance(), texts, hello.places)
    except (BadInput, UnknownThing) as error:
        raise _Refused(BAD_HELLO, str(error)) from None
    except TradeError as error:
        raise _Refused(NOT_READY, str(error)) from None


def _told(joined: list[Topic]) -> dict[str, object]:
    """What a client is told of topics of market data that it gets from now on."""
    if not joined:
        return {}
    return {
        "since": {each.topic.text: time_text(each.since) for each in joined if each.since is not None},
        "limits": {"topics": MOST_TOPICS, "per_second": LARGEST_PACE},
    }


async def _hear(
    outlet: _Outlet, deck: Services, client: MarketClient, views: ViewClient, news: asyncio.Event, entrance: Entrance
) -> None:
    """Read on, for only so is a client's going noticed, and take its wishes."""
    while True:
        message = await outlet.socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            wish = Wish.model_validate_json(message.get("text") or "")
        except ValidationError as error:
            wrong = error.errors()[0]
            await outlet.send({"error": f"{'.'.join(str(part) for part in wrong['loc']) or 'message'}: {wrong['msg']}"})
            continue
        client.leave(wish.unsubscribe)
        views.leave(wish.unsubscribe)
        try:
            other = sorted(each for each in wish.subscribe if not is_market(each) and not is_view(each))
            if other:
                raise _Refused(BAD_HELLO, f"{other[0][:30]!r} can be asked for in the first message only")
            await _join_views(views, [each for each in wish.subscribe if is_view(each)], entrance)
            joined = await _join(deck, client, [each for each in wish.subscribe if is_market(each)])
        except _Refused as refused:
            if refused.code == UNAUTHORIZED:
                raise
            await outlet.send({"error": refused.reason})
            continue
        await outlet.send({"topics": [*client.topics, *views.topics], **_told(joined)})
        news.set()


async def _push_market(
    outlet: _Outlet, deck: Services, client: MarketClient, every_s: float, news: asyncio.Event
) -> None:
    """Look for what is new and send it, at the client's pace: meanwhile newer values take the place of older ones."""
    loop = asyncio.get_running_loop()
    deck.market.clients.inc()
    try:
        while True:
            news.clear()
            began = loop.time()
            text = client.collect()
            if text:
                await outlet.send_text(text)
            elif client.topics:
                await deck.market.news(5.0)
            else:
                await news.wait()
            left = began + every_s - loop.time()
            if left > 0:
                await asyncio.sleep(left)
    except _Refused as refused:
        if refused.code == TOO_SLOW:
            deck.market.too_slow.inc()
        raise
    finally:
        deck.market.clients.dec()


async def _push_views(outlet: _Outlet, views: ViewClient, entrance: Entrance) -> None:
    """Send new versions of what is watched, to whoever the client is by now."""
    checked = time.monotonic()
    while True:
        if views.topics and time.monotonic() - checked > CHECK_S:
            checked = time.monotonic()
            caller = await _again(entrance)
            if caller is not None:
                views.readmit(caller)
        text = views.collect()
        if text:
            await outlet.send_text(text)
            continue
        try:
            async with asyncio.timeout(CHECK_S):
                await views.news.wait()
        except TimeoutError:
            continue


async def _push(outlet: _Outlet, deck: Services, wanted: frozenset[str], place: int, entrance: Entrance) -> None:
    """Send changes, and see to it that the key, or the session, is still good."""
    hub = deck.hub
    caller, checked = await entrance(), time.monotonic()
    while True:
        if time.monotonic() - checked > CHECK_S:
            checked = time.monotonic()
            caller = await _again(entrance) or caller
        if not wanted:
            await asyncio.sleep(CHECK_S)
            continue
        if not hub.has(place):
            raise _Refused(TOO_SLOW, "too slow: changes were lost; read again what you show, then connect again")
        for entry in hub.after(place):
            if text := _text_of(entry, caller, wanted):
                await outlet.send_text(text)
            place = entry.sequence
            if not hub.has(place):
                break
        if place == hub.newest:
            await hub.news(CHECK_S)


class _Outlet:
    """The way out to one client: one message at a time, and none for ever."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self._one_at_a_time = asyncio.Lock()

    async def send(self, message: dict[str, object]) -> None:
        await self.send_text(json.dumps(message, separators=(",", ":")))

    async def send_text(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_S), self._one_at_a_time:
                await self.socket.send_text(text)
        except TimeoutError:
            raise _Refused(TOO_SLOW, f"too slow: nothing was read for {SEND_S:g} s") from None


def _text_of(entry: Entry, caller: Caller, wanted: frozenset[str]) -> str:
    if entry.change is not None and entry.change.topic not in wanted:
        return ""
    return entry.text_for(caller)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    # A close frame holds at most 123 bytes of reason.
    text = reason.encode()[:120].decode(errors="ignore")
    try:
        async with asyncio.timeout(2):
            await socket.close(code, text)
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        return  # it was gone already
