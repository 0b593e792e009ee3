"""A process that speaks to sessions as algos do: straight over Ray.  Lines of JSON in, lines of JSON out.

Apart from the suite's own process because a driver of Ray dies with its raylet, and the suite must not.

``{"id", "op": "call", "user", "method", "args"}`` calls a session; ``{"id", "op": "twin", "kind", "of"}`` starts a
second copy of an actor, as a cluster that is cut in two may do; ``{"id", "op": "untwin"}`` ends what is left of them.
Answers: ``{"id", "results": [{"order": …} | {"error", "detail"}]}``, ``{"id", "value"}``, or the error itself.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
from typing import Any

import msgspec
import ray

from cluster import names, runtime
from cluster.calls import Peer
from cluster.names import Kind
from cluster.settings import settings
from cluster.specs import CLASSES, NODE_LABEL
from trading.errors import TradeError
from trading.orders import CancelOrder, ModifyOrder, Order, PlaceOrder

TWINS = "chaos-twins"
#: Method and number of arguments -> what they are.
_ARGUMENTS: dict[tuple[str, int], Any] = {
    ("place", 1): tuple[list[PlaceOrder]],
    ("place", 2): tuple[list[PlaceOrder], int],
    ("modify", 1): tuple[ModifyOrder],
    ("cancel", 1): tuple[list[CancelOrder]],
    ("cancel", 3): tuple[list[CancelOrder], int, str],
    ("cancel_all", 3): tuple[str, str | None, str],
    ("begin_algo", 3): tuple[str, str, int],
    ("memory", 1): tuple[str],
}


class Direct:
    """Carries out what comes in, many at a time."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self._twins: list[Any] = []
        self._numbers = itertools.count(1)

    async def serve(self) -> None:
        """Read requests until stdin ends."""
        reader = asyncio.StreamReader(limit=1 << 24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        under_way = set()
        while line := await reader.readline():
            task = asyncio.create_task(self._answer(msgspec.json.decode(line)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    async def _answer(self, request: dict[str, Any]) -> None:
        said: dict[str, Any] = {"id": request["id"]}
        try:
            said |= await getattr(self, f"_{request['op']}")(request)
        except TradeError as error:
            said |= _error(error)
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()

    async def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        peer = self._peers.setdefault(request["user"], Peer(names.session(request["user"])))
        arguments = msgspec.convert(request["args"], _ARGUMENTS[request["method"], len(request["args"])])
        found = await peer.call(request["method"], *arguments, timeout=5.0)
        if request["method"] == "memory":
            return {"value": found}
        results = found if isinstance(found, tuple | list) else (found,)
        return {"results": [{"order": r} if isinstance(r, Order) else _error(r) for r in results]}

    async def _twin(self, request: dict[str, Any]) -> dict[str, Any]:
        module, _, name = CLASSES[Kind(request["kind"])].partition(":")
        cls = getattr(importlib.import_module(module), name)
        remote: Any = ray.remote
        actor = remote(concurrency_groups={"health": 2})(cls).options(
            name=f"{request['kind']}/{request['of']}/{next(self._numbers)}",
            namespace=TWINS,
            num_cpus=0,
            max_restarts=0,
            max_concurrency=1000,
            label_selector={NODE_LABEL: settings().node},
        )
        # Not detached: twins end with this process at the latest.
        self._twins.append(actor.remote(request["of"]))
        return {"value": None}

    async def _untwin(self, request: dict[str, Any]) -> dict[str, Any]:
        for twin in self._twins:
            ray.kill(twin)
        count, self._twins = len(self._twins), []
        return {"value": count}


def _error(error: TradeError) -> dict[str, str]:
    return {"error": type(error).__name__, "detail": str(error)}


if __name__ == "__main__":
    runtime.connect()
    asyncio.run(Direct().serve())
