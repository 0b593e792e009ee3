"""A child process that tries a strategy: ``python -m cluster.strategy_check FD``.

Reads a `Question` as JSON from stdin, confines itself, loads the strategy, and writes a `Report` or {field, detail} as
JSON to the descriptor.  Nothing of the strategy runs before it is confined.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from cluster.confinement import CPU_S, MEMORY, confine

_MEMORY_HINT: Final = f" (while it is checked a strategy may use {MEMORY >> 20} MB)"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to try.  ``parameters`` None are not looked at; ``smoke``: run it over a made-up market."""

    folder: str
    packages: str | None
    kind: str
    name: str
    entry: str
    parameters: dict[str, Any] | None = None
    smoke: bool = False
    instruments: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came out.  ``smoke`` is a `strategies.smoke.SmokeReport`, or {} where it was not asked for."""

    entry: str
    schema: dict[str, Any]
    smoke: dict[str, Any]
    #: What held while it was tried, in words.
    confined: tuple[str, ...]
    python: str
    took_s: float
    memory_mb: int
    #: What the strategy printed, shortened; the parent fills it in.
    printed: str = ""


def check(question: Question, confined: list[str]) -> Report:
    """Load it, check the parameters, run it; raises `BadInput`."""
    # Only now: all that this imports is under the limits too.
    from strategies.loader import check_parameters, load_folder
    from strategies.smoke import smoke

    began = time.monotonic()
    packages = None if question.packages is None else Path(question.packages)
    loaded = load_folder(Path(question.folder), question.kind, question.name, question.entry, packages=packages)
    found: dict[str, Any] = {}
    if question.smoke:
        told = smoke(loaded.strategy_class, question.parameters or {}, question.instruments)
        found = msgspec.to_builtins(told)
    elif question.parameters is not None:
        check_parameters(loaded.strategy_class, question.parameters)
    return Report(
        entry=loaded.entry,
        schema=loaded.schema,
        smoke=found,
        confined=tuple(confined),
        python=platform.python_version(),
        took_s=round(time.monotonic() - began, 3),
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    )


def main() -> None:
    """Answer one question."""
    answer = int(sys.argv[1])
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    confined = confine()
    from trading.errors import BadInput

    try:
        said = msgspec.json.encode(check(question, confined))
    except BadInput as error:
        hint = _MEMORY_HINT if "MemoryError" in error.detail else ""
        said = msgspec.json.encode({"field": error.field, "detail": error.detail + hint})
    except MemoryError:
        said = msgspec.json.encode({"field": "file", "detail": f"it ran out of memory{_MEMORY_HINT}"})
    with os.fdopen(answer, "wb") as out:
        out.write(said)
    sys.stdout.flush()
    # At once: threads that the strategy left must not keep this process.
    os._exit(0)


def cpu_limit_words() -> str:
    """What is said of one that used up its CPU time."""
    return (
        f"it used more than {CPU_S} s of CPU; a strategy's module must only define things, and its callbacks return "
        "soon (where they cannot, submit it without the smoke test)"
    )


if __name__ == "__main__":
    main()
