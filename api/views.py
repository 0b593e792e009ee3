"""Views for WebSocket clients: what a GET answers, read again about once a second while somebody watches it.

Those who see the same of it share one reading.  Only what has changed is sent, and every few seconds all of it, so that
a client knows how old what it shows can be.  Where the head is busy views are read less often: orders come first.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final

import msgspec

from api.formats import time_text
from api.problems import ProblemError
from storage.tasks import end_tasks
from trading.errors import TradeError
from trading.ids import Nanos

log = logging.getLogger("quarterdeck")

#: Seconds between two readings.
EVERY_S: Final = 1.0
#: A reading that took long is followed by a pause of so many times as long, up to `_LONGEST_S`.
_REST: Final = 5.0
_LONGEST_S: Final = 10.0
#: What has not changed is sent again after so many seconds.
AGAIN_S: Final = 5.0
#: Readings under way at a time, for all clients.
_AT_ONCE: Final = 4
#: When a reading was made is no change of what it shows.
_AT: Final = re.compile(rb'^"body":\{"at":"[^"]*"')

#: Makes the JSON of a view; raises `TradeError` or `ProblemError` where there is none.
Read = Callable[[], Awaitable[bytes]]


class View:
    """A view as some callers see it; ``number`` grows with every version that is to be sent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.number = 0
        self.at = 0
        self._body = b""
        self._told = 0.0
        self._watchers: set[asyncio.Event] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody does."""
        return bool(self._watchers)

    def watch(self, news: asyncio.Event) -> None:
        """Set ``news`` whenever there is a new version."""
        self._watchers.add(news)

    def leave(self, news: asyncio.Event) -> None:
        """The end of `watch`."""
        self._watchers.discard(news)

    def take(self, body: bytes, at: int) -> None:
        """What was read at ``at`` (nanoseconds)."""
        now = time.monotonic()
        same = _AT.sub(b"", body) == _AT.sub(b"", self._body)
        if same and now - self._told < AGAIN_S:
            return
        self.number, self.at, self._body, self._told = self.number + 1, at, body, now
        for news in self._watchers:
            news.set()

    def written(self, name: str, skipped: int) -> str:
        """The newest version as an update of topic ``name``."""
        head: dict[str, Any] = {
            "n": self.number, "skipped": skipped, "topic": name, "key": self.text, "at": time_text(Nanos(self.at)),
        }  # fmt: skip
        return f"{msgspec.json.encode(head).decode()[:-1]},{self._body.decode()}}}"


class Views:
    """All views that somebody watches.  The constructor does no IO."""

    def __init__(self) -> None:
        self._views: dict[tuple[Hashable, str], View] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._few = asyncio.Semaphore(_AT_ONCE)

    def __len__(self) -> int:
        return len(self._views)

    def watch(self, sight: Hashable, text: str, read: Read, news: asyncio.Event) -> View:
        """The view ``text`` for all of one ``sight``, read by ``read`` from now on if nobody watched it yet."""
        view = self._views.get((sight, text))
        if view is None:
            view = self._views[sight, text] = View(text)
            task = asyncio.get_running_loop().create_task(self._keep(sight, view, read), name=f"view {text}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        view.watch(news)
        return view

    async def close(self) -> None:
        """End all readings."""
        await end_tasks(list(self._tasks))

    async def _keep(self, sight: Hashable, view: View, read: Read) -> None:
        try:
            while True:
                began = time.monotonic()
                async with self._few:
                    at = time.time_ns()
                    body = await _read(view.text, read)
                view.take(body, at)
                # Waiting for one's turn counts: it is how a busy head is noticed.
                took = time.monotonic() - began
                await asyncio.sleep(min(max(EVERY_S - took, _REST * took), _LONGEST_S))
                if not view.watched:
                    return
        finally:
            if self._views.get((sight, view.text)) is view:
                del self._views[sight, view.text]


async def _read(text: str, read: Read) -> bytes:
    """``"body": …`` of a view, or ``"body": null`` and the problem."""
    try:
        return b'"body":' + await read()
    except (TradeError, ProblemError) as error:
        problem = {"code": error.code, "detail": error.detail}
    except Exception:
        log.exception("view %s cannot be read", text)
        problem = {"code": "internal_error", "detail": "something went wrong here; the API's log says what"}
    return b'"body":null,"problem":' + msgspec.json.encode(problem)
