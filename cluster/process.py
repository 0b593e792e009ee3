"""The process an actor runs in: its clock, its end, its log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import NoReturn

from storage import redaction
from trading.ids import Nanos


def now() -> Nanos:
    """UTC nanoseconds."""
    return Nanos(time.time_ns())


def elapsed() -> float:
    """Seconds of a clock that only goes forward, and goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def end(reason: str, code: int = 0) -> NoReturn:
    """End this process at once.  For one that must not act any more: an orderly way out could still act."""
    logging.getLogger("quarterdeck").warning("ending: %s", reason)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def set_up_logging(name: str) -> None:
    """One line a record, with the actor's name and no secret, to this process's stderr (Ray keeps that in a file).

    What libraries warn of goes the same way: an exception that nobody took may have a request in its text.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(redaction.Formatter(f"%(asctime)s %(levelname)s {name} %(message)s"))
    ours = logging.getLogger("quarterdeck")
    ours.handlers[:] = [handler]
    ours.setLevel(os.environ.get("QUARTERDECK_LOG_LEVEL", "INFO"))
    ours.propagate = False
    others = logging.getLogger()
    if not any(isinstance(each.formatter, redaction.Formatter) for each in others.handlers):
        others.addHandler(handler)
