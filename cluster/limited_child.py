"""A child process that may misbehave: bounded in time, in what it prints, and ended with everything it started.

It answers over a pipe of its own, so that what it prints cannot pass for an answer.  What it may use of the machine it
limits itself (`cluster.confinement`) before it runs any foreign code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
    # Pipes of our own: asyncio's own would keep `wait` waiting for one that nobody reads to its end.
    printed, prints_to = os.pipe()
    answered, answers_to = os.pipe()
    talk = _Talk(printed, answered)
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(question)
            stdin.seek(0)
            child = await asyncio.create_subprocess_exec(
                *(word.replace("{fd}", str(answers_to)) for word in command),
                stdin=stdin,
                stdout=prints_to,
                stderr=asyncio.subprocess.STDOUT,
                cwd=folder,
                env=dict(environment),
                pass_fds=(answers_to,) if answers else (),
                start_new_session=True,
            )
    except BaseException:
        os.close(printed)
        os.close(answered)
        raise
    finally:
        os.close(prints_to)
        os.close(answers_to)
    ended_for = ""
    try:
        async with asyncio.timeout(seconds):
            await talk.hear(child)
    except TimeoutError:
        ended_for = "time"
    except _TooMuchError:
        ended_for = "output"
    finally:
        await _end(child)
    return Outcome(answer=bytes(talk.answer), printed=talk.printed(), code=child.returncode or 0, ended_for=ended_for)


class _TooMuchError(Exception):
    """The child printed or answered too much."""


class _Talk:
    """What is heard from a child, over two descriptors that are closed in the end."""

    def __init__(self, prints: int, answers: int) -> None:
        self.answer = bytearray()
        self._prints = prints
        self._answers = answers
        self._head = bytearray()
        self._tail = bytearray()
        self._count = 0

    async def hear(self, child: asyncio.subprocess.Process) -> None:
        """Hear all until the child has ended."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_hear(self._prints, self._take_print))
                group.create_task(_hear(self._answers, self._take_answer))
                # What it started would keep the pipes open.
                group.create_task(_end(child, at_once=False))
        except* _TooMuchError:
            raise _TooMuchError from None

    def _take_print(self, part: bytes) -> None:
        self._count += len(part)
        if self._count > MOST_PRINTED:
            raise _TooMuchError
        room = _KEPT - len(self._head)
        self._head += part[:room]
        self._tail = (self._tail + part[room:])[-_KEPT:]

    def _take_answer(self, part: bytes) -> None:
        self.answer += part
        if len(self.answer) > _LARGEST_ANSWER:
            raise _TooMuchError

    def printed(self) -> str:
        """What it printed, the middle left out where that is long."""
        left_out = self._count - len(self._head) - len(self._tail)
        middle = f"\n… {left_out} bytes left out …\n".encode() if left_out > 0 else b""
        return (bytes(self._head) + middle + bytes(self._tail)).decode("utf-8", "replace")


async def _hear(descriptor: int, take: Callable[[bytes], None]) -> None:
    reader = asyncio.StreamReader(limit=_PART)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
    except BaseException:
        pipe.close()
        raise
    try:
        while part := await reader.read(_PART):
            take(part)
    finally:
        transport.close()
        # It is closed when the loop comes round.
        await asyncio.sleep(0)


async def _end(child: asyncio.subprocess.Process, *, at_once: bool = True) -> None:
    """End the child (``at_once``, else when it has ended by itself) and all of its group: nothing stays behind."""
    if not at_once:
        await child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
