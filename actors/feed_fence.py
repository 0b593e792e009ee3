"""A feed worker's right to publish: it ends with a word in Redis, so that whoever can publish can read it."""

from __future__ import annotations

from typing import Final

from cluster import process
from cluster.feeds import fence_key
from cluster.process import elapsed
from storage.hot import Hot
from trading.errors import Fenced

#: Nothing is published on a look for a fence that began longer ago; whoever fences waits as long.
FENCE_S: Final = 1.0


class FenceLook:
    """Looks for the fence of one worker."""

    def __init__(self, name: str, hot: Hot) -> None:
        self.name = name
        self.epoch = 0
        self._hot = hot
        #: When the last look began that found no fence.
        self._unfenced_at = 0.0

    def began(self, epoch: int) -> None:
        """A lease was taken just now, so that nobody has fenced this epoch yet."""
        self.epoch = epoch
        self._unfenced_at = elapsed()

    async def look(self) -> None:
        """Raise `Fenced` where the worker has been given up: others carry its instruments.  Raises `NotReady`."""
        began = elapsed()
        fenced = await self._hot.get(fence_key(self.name), int)
        if fenced is not None and fenced >= self.epoch:
            raise Fenced(self.name, self.epoch, fenced)
        self._unfenced_at = began

    async def may_publish(self) -> None:
        """Look before publishing where that was long ago, as after a sleep of the machine.  Raises `NotReady`."""
        if elapsed() - self._unfenced_at > FENCE_S:
            try:
                await self.look()
            except Fenced as error:
                process.end(str(error))
