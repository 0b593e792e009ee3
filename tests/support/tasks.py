"""Ending the tasks of an actor that runs in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], seconds: float = 20.0) -> None:
    """Cancel them until they have ended.

    Once is not always enough: on Python 3.11 ``asyncio.wait_for``, which libraries use, loses a cancellation that comes
    at the very moment at which what it waits for is done.
    """
    left = set(tasks)
    deadline = asyncio.get_running_loop().time() + seconds
    while left:
        assert asyncio.get_running_loop().time() < deadline, f"not ended within {seconds:g} s: {left}"
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.5)
