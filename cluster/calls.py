"""Calls between actors: cached handles, a time limit on every call, errors named by their remedy.

An outcome that is not known is `Unreachable`; an actor that is not there is `NotReady`.  Nothing is ever
retried here: only the caller knows whether doing it twice is safe.  A call to one that is known to be dead is not sent
to it at all: Ray would answer as for a call that was under way when it died.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import Any, TypeVar, cast

import msgspec
import ray
from ray import exceptions
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

import cluster.runtime  # noqa: F401 - sets the flags that Ray reads when it is imported
from cluster.names import namespace
from cluster.settings import settings
from trading.errors import NotReady, TradeError, Unreachable

T = TypeVar("T")

_DEAD = ActorTableData.ActorState.DEAD

_UNKNOWN_OUTCOME = (exceptions.ActorUnavailableError, exceptions.GetTimeoutError, exceptions.TaskCancelledError)


class _Packed:
    """Structs that travel as one piece: pickling each for itself costs ten times as much."""

    __slots__ = ("raw", "type")

    def __init__(self, type_: Any, raw: bytes) -> None:
        self.type, self.raw = type_, raw

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self.type, self.raw)


def pack(argument: T) -> T:
    """``argument``, or a result, as it travels fastest; it arrives as what it was."""
    if not isinstance(argument, list | tuple) or not argument:
        return argument
    item = type(argument[0])
    if not issubclass(item, msgspec.Struct) or any(type(each) is not item for each in argument):
        return argument
    try:
        raw = msgspec.msgpack.encode(argument)
    except (UnicodeEncodeError, OverflowError, TypeError):
        return argument  # pickle takes what msgpack has no room for; who receives it says what is wrong with it
    packed: Any = _Packed(list[item] if isinstance(argument, list) else tuple[item, ...], raw)  # type: ignore[valid-type]
    return cast("T", packed)


def _unpack(type_: Any, raw: bytes) -> Any:
    return _decoder(type_).decode(raw)


@functools.cache
def _decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type_)


class Peer:
    """Another actor, by name.  The handle is looked up once, and again after the actor has died or was away."""

    __slots__ = ("_handle", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._handle: Any = None

    async def call(self, method: str, *args: Any, timeout: float = 5.0, group: str | None = None) -> Any:
        """Call ``method``; raises what the actor raised, `NotReady` (it is not there, nothing was done) or
        `Unreachable` (no answer in time, or it died meanwhile: the outcome is unknown)."""
        handle = self._handle
        if handle is None or _is_dead(handle):
            handle = await self._resolve()
            if _is_dead(handle):
                # For a moment Ray's control store may still give the name's last owner.
                self._handle = None
                raise NotReady(f"{self.name} has died, and is not started again yet", 1.0)
        bound = getattr(handle, method)
        if group is not None:
            bound = bound.options(concurrency_group=group)
        try:
            async with asyncio.timeout(timeout):
                return await bound.remote(*map(pack, args))
        except TimeoutError:
            raise Unreachable(self.name, f"no answer to {method} within {timeout:g} s") from None
        except exceptions.ActorDiedError as error:
            self._handle = None
            if getattr(error, "_preempted", False):
                raise Unreachable(self.name, "its machine went away") from None
            raise Unreachable(self.name, f"it died ({method})") from None
        except exceptions.ActorUnschedulableError as error:
            raise NotReady(f"{self.name} has no machine to run on: {error}", 5.0) from None
        except exceptions.PendingCallsLimitExceeded:
            raise NotReady(f"{self.name} has too many calls waiting", 0.5) from None
        except _UNKNOWN_OUTCOME as error:
            if isinstance(error, exceptions.ActorUnavailableError):
                # Where Ray's head was replaced, a handle of the old cluster would say this for ever.
                self._handle = None
            raise Unreachable(self.name, f"{method}: {type(error).__name__}") from None
        except exceptions.RayTaskError as error:
            if isinstance(error, TradeError):
                raise _plain(error) from None
            raise

    async def _resolve(self) -> Any:
        try:
            async with asyncio.timeout(10):
                self._handle = await asyncio.to_thread(
                    ray.get_actor, self.name, namespace=namespace(settings().cluster)
                )
        except ValueError:
            raise NotReady(f"{self.name} is not running now", 1.0) from None
        except exceptions.RaySystemError as error:
            raise NotReady(f"{self.name} cannot be looked up: not connected to the Ray head ({error})", 2.0) from None
        except TimeoutError:
            raise NotReady(f"{self.name} could not be looked up: the Ray head does not answer", 5.0) from None
        return self._handle

    def forget(self) -> None:
        """Look the name up again at the next call."""
        self._handle = None


def _is_dead(handle: Any) -> bool:
    """Whether this process has been told that the actor is dead for good; asks nobody.

    Ray tells it of every actor that it has called, and does not send what is called after that.
    """
    return bool(handle._get_local_state() == _DEAD)  # Ray has no public name for it


def _plain(error: TradeError) -> TradeError:
    """The error as the actor raised it, without Ray's wrapping."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, TradeError) else error


class Coalescer:
    """One call in flight to a batch method; what is asked meanwhile goes together as the next call.

    ``method`` takes a list of items and answers a sequence of results, one each, in order; a result that is a
    `TradeError` is raised to its own asker only.  When idle an item leaves at once.
    """

    def __init__(self, peer: Peer, method: str, *, timeout: float = 5.0, most: int = 200) -> None:
        self._peer = peer
        self._method = method
        self._timeout = timeout
        self._most = most
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def ask(self, item: Any) -> Any:
        """The result for ``item``; raises as `Peer.call` does."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
            try:
                results = await self._peer.call(self._method, [item for item, _ in batch], timeout=self._timeout)
            except TradeError as error:
                results = [error] * len(batch)
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.done():
                    continue
                if isinstance(result, TradeError):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
            # Whoever has just been answered may ask again at once: let that go with what is waiting.
            await asyncio.sleep(0)
