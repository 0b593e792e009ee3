"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_S: Final = 0.5


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended; what they raise meanwhile is theirs.

    Once is not enough: on Python 3.11 ``asyncio.wait_for``, which psycopg and its pool use, loses a cancellation that
    comes at the very moment at which what it waits for is done (https://github.com/python/cpython/issues/86296), and a
    task that works in rounds then goes on for ever.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
