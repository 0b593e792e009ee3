"""A child process that may misbehave: bounded in time, in what it prints, and ended with everything it started.

It answers over a pipe of its own, so that what it prints cannot pass for an answer.  What it may use of the machine it
limits itself (`cluster.confinement`) before it runs any foreign code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

#: Of what it prints so much is kept, at the beginning and at the end.
_KEPT: Final = 4_000
#: A child that prints more than this is ended.
MOST_PRINTED: Final = 10_000_000
_LARGEST_ANSWER: Final = 4_000_000
_PART: Final = 1 << 16
#: Environment that children get: nothing of ours, no addresses, no passwords.
_PASSED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended.  ``ended_for`` is why we ended it: ``time``, ``output`` or ""."""

    answer: bytes
    printed: str
    code: int
    ended_for: str = ""


def plain_environment(**more: str) -> dict[str, str]:
    """An environment for children that are to know nothing of ours."""
    known = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return {**known, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}


async def run(
    command: Sequence[str],
    question: bytes = b"",
    *,
    seconds: float,
    folder: Path,
    environment: Mapping[str, str],
    answers: bool = True,
) -> Outcome:
    """Run ``command`` in ``folder`` with ``question`` on its stdin; where it ``answers``, descriptor ``{fd}`` of the
    command is where to."""
    read_end, write_end = os.pipe()
    try:
        child = await asyncio.create_subprocess_exec(
            *(word.replace("{fd}", str(write_end)) for word in command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            pass_fds=(write_end,) if answers else (),
            start_new_session=True,
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    talk = _Talk(child, read_end)
    ended_for = ""
    try:
        async with asyncio.timeout(seconds):
            await talk.hear(question)
            await child.wait()
    except TimeoutError:
        ended_for = "time"
    except _TooMuchError:
        ended_for = "output"
    finally:
        await _end(child)
        os.close(read_end)
    return Outcome(answer=bytes(talk.answer), printed=talk.printed(), code=child.returncode or 0, ended_for=ended_for)


class _TooMuchError(Exception):
    """The child printed or answered too much."""


class _Talk:
    """What is said to a child and heard from it."""

    def __init__(self, child: asyncio.subprocess.Process, answers: int) -> None:
        self.answer = bytearray()
        self._child = child
        self._answers = answers
        self._head = bytearray()
        self._tail = bytearray()
        self._count = 0

    async def hear(self, question: bytes) -> None:
        """Say the question, hear all until the child has closed both its mouths."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(question))
                group.create_task(self._hear_prints())
                group.create_task(self._hear_answer())
        except* _TooMuchError:
            raise _TooMuchError from None

    async def _ask(self, question: bytes) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        # One that ends without reading its question says so by its end.
        with contextlib.suppress(ConnectionError):
            stdin.write(question)
            await stdin.drain()
            stdin.close()

    async def _hear_prints(self) -> None:
        stdout = self._child.stdout
        assert stdout is not None
        while part := await stdout.read(_PART):
            self._count += len(part)
            if self._count > MOST_PRINTED:
                raise _TooMuchError
            room = _KEPT - len(self._head)
            self._head += part[:room]
            self._tail = (self._tail + part[room:])[-_KEPT:]

    async def _hear_answer(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_PART)
        # A copy: the transport closes what it is given.
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(self._answers), "rb", buffering=0)
        )
        try:
            while part := await reader.read(_PART):
                self.answer += part
                if len(self.answer) > _LARGEST_ANSWER:
                    raise _TooMuchError
        finally:
            transport.close()

    def printed(self) -> str:
        """What it printed, the middle left out where that is long."""
        left_out = self._count - len(self._head) - len(self._tail)
        middle = f"\n… {left_out} bytes left out …\n".encode() if left_out > 0 else b""
        return (bytes(self._head) + middle + bytes(self._tail)).decode("utf-8", "replace")


async def _end(child: asyncio.subprocess.Process) -> None:
    """End the child and all of its group: what it started must not stay behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
