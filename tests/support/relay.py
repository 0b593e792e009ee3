"""A way to PostgreSQL that breaks at a chosen moment of one transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from urllib.parse import urlsplit


class Cut(StrEnum):
    """Where a connection breaks."""

    #: A statement with the words does not arrive.
    STATEMENT = "statement"
    #: The commit of a transaction with the words does not arrive.
    COMMIT = "commit"
    #: It is made, and the answer is lost.
    ANSWER = "answer"


class Relay:
    """Passes all on, until it is told where to cut; then it does so once."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self._cut: tuple[Cut, bytes] | None = None
        self.port = 0
        #: How often it has cut.
        self.cuts = 0

    @property
    def url(self) -> str:
        """The server by this way."""
        user = f"{self._to.username}:{self._to.password}"
        return f"postgresql://{user}@127.0.0.1:{self.port}{self._to.path}"

    def cut(self, where: Cut, words: str) -> None:
        """Break the next connection that says ``words`` in a transaction."""
        self._cut = (where, words.encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        theirs, ours = await asyncio.open_connection(self._to.hostname, self._to.port)
        answers = asyncio.create_task(self._copy(theirs, writer))
        said = b""
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65_536):
                    said += data
                    where = self._due(said, data)
                    if where is Cut.ANSWER:
                        answers.cancel()
                        await asyncio.wait([answers])
                        ours.write(data)
                        await theirs.read(65_536)
                    if where is not None:
                        self._cut, self.cuts = None, self.cuts + 1
                        break
                    if b"COMMIT" in data or b"ROLLBACK" in data:
                        said = b""
                    ours.write(data)
                    await ours.drain()
        finally:
            answers.cancel()
            for each in (ours, writer):
                each.close()

    def _due(self, said: bytes, data: bytes) -> Cut | None:
        if self._cut is None or self._cut[1] not in said:
            return None
        where = self._cut[0]
        return where if where is Cut.STATEMENT or b"COMMIT" in data else None

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[Relay]:
    """A relay before the server at ``url``."""
    relay = Relay(url)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
