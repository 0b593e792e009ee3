"""``Idempotency-Key``: a request that is sent again under the same key acts once and gets the first answer.

An ASGI layer reads the request and keeps the answer; in between, once it is known who asks and that they may, and only
then, `allowed` has the key taken.  Neither key nor request is stored: the row's id is a digest of user and key, and
what was asked a digest under the key, which tells nothing to who reads the table.

A kept answer is given to nobody who has lost a right or a grant since, for it may tell of what is not theirs to see any
more, and the route that would judge that is not asked again.

Stopping must not wait for a promise: a kill, and whatever cancels, stops or pauses, goes ahead without one
(``Idempotency-Kept: no``) where PostgreSQL does not answer at once, and is done again where nobody knows of the first.

For all else a key is free again only where surely nothing was done: where a commit was lost, or something had been
committed before it failed, the same request again is told so (the first 504, or 424) and does nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections import deque
from typing import Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError
from storage.database import Commits, commits
from storage.idempotency import Answer, Claimed, Found, Idempotency, Standing
from trading.errors import BadInput, NeedsOperator, NotReady

log = logging.getLogger("quarterdeck")

HEADER: Final = "idempotency-key"
#: What one may look like.
FORM: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,98}[\x21-\x7e])?")
#: A kill or a cancel waits for its promise so long at most.
URGENT_S: Final = 0.25
#: Others are held up by a slow database as by any other statement of theirs.
PATIENCE_S: Final = 5.0
BEAT_EVERY_S: Final = 5.0
SWEEP_EVERY_S: Final = 600.0
#: Answers that could not be kept at once are tried again; so many wait at most.
_MOST_WAITING: Final = 1_000

_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
#: Signing in has rules of its own; a machine that joins has no user.
_EXEMPT: Final = re.compile(r"/v1/auth/.*")
_URGENT: Final = re.compile(
    r"POST /v1/risk/kill|POST /v1/accounts/[^/]+/(cancel-all|flatten)|DELETE /v1/orders/[^/]+/.+"
    r"|POST /v1/algos/[^/]+/(stop|pause)"
)
#: Of these, what was done long ago and since made undone would be done anew.
_ENTERS_ANEW: Final = re.compile(r"POST /v1/risk/kill|POST /v1/accounts/[^/]+/flatten")
#: One route for many commands: its body tells which.
_BATCH: Final = "POST /v1/algos/batch"
_URGENT_ACTIONS: Final = frozenset({"stop", "pause"})
#: Nothing was done, or will be by the same request in a moment: the key stays free.
_NOT_DONE: Final = frozenset({401, 403, 429, 503})
#: Unless something of it had been done already.
_NOT_READY: Final = 503
_OUTCOME_UNKNOWN: Final = 504
_KEPT_HEADERS: Final = frozenset({"content-type", "location", "cache-control", "content-disposition", "retry-after"})
_STATE: Final = "quarterdeck.idempotency"


class _Batch(msgspec.Struct):
    action: str


class Replayed(Exception):
    """The answer is there already."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Keys:
    """The keys that this process has taken: kept alive, finished, swept."""

    def __init__(self, store: Idempotency) -> None:
        self._store = store
        #: Claims under way.
        self._mine: dict[str, bytes] = {}
        self._waiting: deque[tuple[bytes, str, int | None, Answer | None]] = deque(maxlen=_MOST_WAITING)

    async def take(self, id: bytes, user: str, request: bytes, *, again: bool) -> Claimed:
        """As `Idempotency.claim`; what is new is this process's from then on."""
        claimed = await self._store.claim(id, user, request, again=again)
        if claimed.found is Found.NEW:
            self._mine[claimed.claim] = id
        return claimed

    async def done(self, claim: str, status: int | None, answer: Answer | None) -> bool:
        """Keep what came of it (``status`` None: nothing, it is free again); False where that is done later."""
        id = self._mine.pop(claim)
        try:
            async with asyncio.timeout(URGENT_S * 4):
                return await self._keep(id, claim, status, answer)
        except (NotReady, TimeoutError) as error:
            log.info("the answer to a request with a key is kept later: %s", error or "the database is slow")
            self._waiting.append((id, claim, status, answer))
            return False

    async def _keep(self, id: bytes, claim: str, status: int | None, answer: Answer | None) -> bool:
        if status is None:
            await self._store.give_back(id, claim)
            return True
        return await self._store.finish(id, claim, status, answer)

    def drop(self, claim: str) -> None:
        """It was broken off, and nobody here knows what it did: from now on it counts as cut off."""
        self._mine.pop(claim, None)

    async def run(self) -> None:
        """Keep what is under way alive, finish what could not be, forget what is old; for ever."""
        swept = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            waiting = list(self._waiting)
            beating = [*self._mine.items(), *((claim, id) for id, claim, _, _ in waiting)]
            try:
                await self._store.beat([claim for claim, _ in beating], [id for _, id in beating])
                for entry in waiting:
                    id, claim, status, answer = entry
                    await self._keep(id, claim, status, answer)
                    if entry in self._waiting:
                        self._waiting.remove(entry)
                if time.monotonic() - swept > SWEEP_EVERY_S and not await self._store.sweep():
                    swept = time.monotonic()
            except (NotReady, NeedsOperator):
                continue  # /readyz tells of it


class Ticket:
    """One request with a key."""

    def __init__(self, keys: Keys, scope: Scope, key: str, receive: Receive) -> None:
        self._keys = keys
        self._key = key
        self._receive = receive
        self._ahead: deque[Message] = deque()
        self._digest = hmac.new(key.encode(), digestmod=hashlib.sha256)
        for part in (scope["method"].encode(), scope.get("raw_path") or scope["path"].encode(), scope["query_string"]):
            self._digest.update(part + b"\n")
        self._is_whole = False
        #: Of a batch, which may be urgent or not.
        self._body = b""
        self._asked = f"{scope['method']} {scope['path']}"
        self._urgent = _URGENT.fullmatch(self._asked) is not None
        #: Whether anything was made durable since the key was taken.
        self.commits = Commits()
        #: "" while it has not been taken; and whether it is known what became of the first request.
        self.claim = ""
        self.is_told = False
        #: For what must be named alike by every try (`place_order`).
        self.token = ""
        #: What whoever asks may do.
        self._standing: Standing | None = None

    async def receive(self) -> Message:
        """The request's next message, as it came."""
        if self._ahead:
            return self._ahead.popleft()
        return await self._read()

    async def _read(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._digest.update(message.get("body", b""))
            if self._asked == _BATCH:
                self._body += message.get("body", b"")
            self._is_whole = not message.get("more_body", False)
        return message

    async def take(self, user: str, scope: str, standing: Standing) -> None:
        """Take the key for ``user``, with an API key of this ``scope``, who may do what ``standing`` says.

        Raises `Replayed`, the problem that tells what became of it, or what the store raises.
        """
        if self.claim:
            return
        self._standing = standing
        while not self._is_whole:
            message = await self._read()
            self._ahead.append(message)
            if message["type"] == "http.disconnect":
                return
        if self._asked == _BATCH:
            self._urgent = _action_of(self._body) in _URGENT_ACTIONS
        id = hashlib.sha256(f"{user}\n{scope}\n{self._key}".encode()).digest()
        # Without the scope: an order is the same one, whoever of the user's keys sends it again.
        self.token = hashlib.sha256(f"{user}\n{self._key}".encode()).hexdigest()[:24]
        try:
            async with asyncio.timeout(URGENT_S if self._urgent else PATIENCE_S):
                claimed = await self._keys.take(id, user, self._digest.digest(), again=self._urgent)
        except (NotReady, TimeoutError) as error:
            if self._urgent:
                log.info("a stop goes ahead without the promise of its key: %s", error or "the database is slow")
                return
            if isinstance(error, TimeoutError):
                raise NotReady("the database is too slow to take the Idempotency-Key") from error
            raise
        if self._urgent and claimed.found in (Found.RUNNING, Found.CUT_OFF, Found.ANSWER_LOST):
            # A stop is done again rather than refused: the first may never have come to it.
            return
        withheld = claimed.answer is not None and not _is_for(claimed.answer, standing)
        if self._urgent and withheld and not _ENTERS_ANEW.fullmatch(self._asked):
            return  # its route judges who may do it, and doing it twice does no harm
        self.claim, self.is_told = claimed.claim, claimed.found is not Found.NEW
        self.commits.any = False
        if withheld:
            raise _withheld(claimed)
        if claimed.answer is not None:
            raise Replayed(claimed.answer)
        if claimed.found is not Found.NEW:
            raise _problem(claimed)

    async def finish(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Keep the answer; False where that could not be done."""
        if status in _NOT_DONE and not (status == _NOT_READY and self.commits.any):
            return await self._keys.done(self.claim, None, None)
        if status == _NOT_READY or (status == _OUTCOME_UNKNOWN and self._urgent):
            # Another try does not get this answer: it is told that nobody knows, or, if it stops something, is done.
            return await self._keys.done(self.claim, status, None)
        told = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in headers
            if name.decode("latin-1").lower() in _KEPT_HEADERS
        ]
        answer = Answer(status=status, headers=told, body=body, standing=self._standing)
        return await self._keys.done(self.claim, status, answer)

    async def broke(self) -> None:
        """It ended with an error of ours: nobody knows what it did."""
        await self._keys.done(self.claim, 500, None)


class Kept:
    """The ASGI layer; outside the application's errors, inside what bounds the request."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _METHODS or _EXEMPT.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == HEADER.encode()]
        if not given:
            await self.app(scope, receive, send)
            return
        key = b",".join(given).decode("latin-1")
        ticket = Ticket(self.keys, scope, key, receive)
        scope[_STATE] = (key, ticket)
        kept = _Outlet(ticket, send)
        token = commits.set(ticket.commits)
        try:
            await self.app(scope, ticket.receive, kept.send)
        except Exception:
            if ticket.claim and not kept.is_done:
                await ticket.broke()
            raise
        finally:
            commits.reset(token)
            # Of one that was cancelled; the others have let go of theirs.
            self.keys.drop(ticket.claim)


class _Outlet:
    """Holds an answer back until it is kept."""

    def __init__(self, ticket: Ticket, send: Send) -> None:
        self._ticket = ticket
        self._send = send
        self._start: Message | None = None
        self._parts: list[bytes] = []
        self.is_done = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body" or self._start is None:
            await self._send(message)
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        start, body = self._start, b"".join(self._parts)
        headers = list(start.get("headers", ()))
        if self._ticket.claim:
            self.is_done = True
            if not await self._ticket.finish(start["status"], headers, body):
                headers.append((b"idempotency-kept", b"no"))
        elif not self._ticket.is_told:
            headers.append((b"idempotency-kept", b"no"))
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _action_of(body: bytes) -> str:
    """The action that a batch asks for; "" where that is not to be understood, which its route will say."""
    try:
        return msgspec.json.decode(body, type=_Batch).action
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


async def take_key(connection: HTTPConnection, user: str, scope: str, standing: Standing) -> None:
    """Take the request's key, if it bears one, now that it is known who asks, and that they may.

    ``scope``: how the API key that they came with is limited; ``standing``: what else they may do now.
    """
    key, ticket = connection.scope.get(_STATE, ("", None))
    if ticket is None:
        return
    if FORM.fullmatch(key) is None:
        raise BadInput("Idempotency-Key", "give 1 to 100 printable characters of ASCII, such as a UUID")
    await ticket.take(user, scope, standing)


def token_of(connection: HTTPConnection) -> str:
    """A token that every try of this request has in common; "" where it bears no key."""
    _, ticket = connection.scope.get(_STATE, ("", None))
    return ticket.token if ticket is not None else ""


def install(app: FastAPI) -> None:
    """Answer what has been answered already."""
    app.add_exception_handler(Replayed, _replayed)


async def _replayed(_: Request, error: Exception) -> Response:
    assert isinstance(error, Replayed)
    answer = error.answer
    return Response(answer.body, answer.status, {**dict(answer.headers), "Idempotency-Replayed": "true"})


def _is_for(answer: Answer, standing: Standing) -> bool:
    """Whether somebody may do all that whoever got the answer might."""
    return answer.standing is not None and standing.includes(answer.standing)


def _withheld(claimed: Claimed) -> ProblemError:
    detail = (
        f"the first request with this Idempotency-Key was answered with {claimed.status}; a role or a grant was taken "
        "from you since, so that its answer is not shown again: look what is there, or ask an operator"
    )
    return ProblemError(424, "outcome_unknown", "Outcome unknown", detail, answered=claimed.status)


def _problem(claimed: Claimed) -> ProblemError:
    if claimed.found is Found.OTHER:
        return ProblemError(
            422,
            "idempotency_mismatch",
            "Key of another request",
            "this Idempotency-Key was used for another request within a day: use a new one",
            field="Idempotency-Key",
        )
    if claimed.found is Found.RUNNING:
        return ProblemError(
            409,
            "in_progress",
            "In progress",
            "the first request with this Idempotency-Key is still being carried out: send it again in a moment",
            {"Retry-After": "1"},
            retry_after=1.0,
        )
    if claimed.found is Found.ANSWER_LOST and claimed.status == _NOT_READY:
        detail = (
            "the first request with this Idempotency-Key failed for something that was away when a part of it had been "
            "done: look what is there, then use a new key"
        )
        return ProblemError(424, "outcome_unknown", "Outcome unknown", detail, answered=claimed.status)
    if claimed.found is Found.ANSWER_LOST:
        detail = (
            f"the first request with this Idempotency-Key was answered with {claimed.status}, but its answer could not "
            "be kept: look what is there, then use a new key"
        )
        return ProblemError(424, "outcome_unknown", "Outcome unknown", detail, answered=claimed.status)
    detail = (
        "the first request with this Idempotency-Key was cut off, and nobody knows whether it acted: look what is "
        "there, then use a new key"
    )
    return ProblemError(424, "outcome_unknown", "Outcome unknown", detail)
