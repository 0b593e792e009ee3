"""Named places in the order path where a test may end or pause the process, to see what becomes of an order.

Inert unless this process was started with ``QUARTERDECK_CRASH_POINTS`` naming a folder that holds the file
`CONSENT`: then a file named after a point arms it, once, for the first process of the deck that comes by.
Nothing in the product makes that file, and a deck takes the variable out of the environment of everything it
starts (`cluster.settings.environment`) unless its settings object was told otherwise in code, which no variable,
file or option can do.  Unarmed in a real deck, a point costs one comparison with None.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

VARIABLE: Final = "QUARTERDECK_CRASH_POINTS"
CONSENT: Final = "processes-of-this-deck-may-be-killed"
#: A module that takes a safeguard out, to see whether the tests notice.
MUTATION: Final = "mutation"


class CrashPoint(StrEnum):
    """Every place, by actor."""

    SESSION_EPOCH_TAKEN = "session.epoch_taken"
    SESSION_BEFORE_APPEND = "session.before_append"
    SESSION_AFTER_APPEND = "session.after_append"
    SESSION_BEFORE_SEND = "session.before_send"
    SESSION_AFTER_SEND = "session.after_send"
    SESSION_BEFORE_REPLY = "session.before_reply"
    SESSION_UPDATES_RECEIVED = "session.updates_received"
    SESSION_UPDATES_TAKEN = "session.updates_taken"
    SESSION_BEFORE_REPORT = "session.before_report"
    SESSION_REPORT_RECEIVED = "session.report_received"
    SESSION_REPORT_TAKEN = "session.report_taken"
    SESSION_BEFORE_BUDGET = "session.before_budget"
    SESSION_BUDGET_RECEIVED = "session.budget_received"
    CONNECTION_EPOCH_TAKEN = "connection.epoch_taken"
    CONNECTION_LOGGED_IN = "connection.logged_in"
    CONNECTION_BEFORE_PLACE = "connection.before_place"
    CONNECTION_AFTER_PLACE = "connection.after_place"
    CONNECTION_BEFORE_MODIFY = "connection.before_modify"
    CONNECTION_AFTER_MODIFY = "connection.after_modify"
    CONNECTION_BEFORE_CANCEL = "connection.before_cancel"
    CONNECTION_AFTER_CANCEL = "connection.after_cancel"
    CONNECTION_UPDATE_RECEIVED = "connection.update_received"
    CONNECTION_BEFORE_UPDATES = "connection.before_updates"
    CONNECTION_REPORT_RECEIVED = "connection.report_received"
    RISK_EPOCH_TAKEN = "risk.epoch_taken"
    RISK_BEFORE_SAVE = "risk.before_save"
    RISK_AFTER_SAVE = "risk.after_save"
    LEDGER_BEFORE_SAVE = "ledger.before_save"
    LEDGER_AFTER_SAVE = "ledger.after_save"
    ALGO_BEFORE_PLACE = "algo.before_place"
    ALGO_AFTER_PLACE = "algo.after_place"


def _consented() -> Path | None:
    named = os.environ.get(VARIABLE, "")
    folder = Path(named) if named else None
    return folder if folder is not None and (folder / CONSENT).is_file() else None


#: Where points are armed; None in every real deck.
FOLDER: Final = _consented()


def crash_here(point: CrashPoint) -> None:
    """End or pause this process if a test has armed ``point``."""
    if FOLDER is not None:
        _meet(FOLDER, point)


def trace(what: str, **values: Any) -> None:
    """Note something that no book keeps (such as the epochs behind a broker call), for the tests' judge."""
    if FOLDER is not None:
        line = msgspec.json.encode({"at": time.time_ns(), "what": what, **values})
        with (FOLDER / f"trace-{os.getpid()}.jsonl").open("ab") as file:
            file.write(line + b"\n")


def take_up_mutation() -> None:
    """Import the module that the tests' folder names, if it names one: it takes a safeguard out of this process."""
    if FOLDER is not None and (FOLDER / MUTATION).is_file():
        importlib.import_module((FOLDER / MUTATION).read_text().strip())


def _meet(folder: Path, point: CrashPoint) -> None:
    taken = folder / f"{point}.{os.getpid()}"
    try:
        # Of several processes one succeeds.
        (folder / point).rename(taken)
    except FileNotFoundError:
        return
    # A paused process is continued by whoever armed the point.
    os.kill(os.getpid(), signal.SIGSTOP if taken.read_text() == "pause" else signal.SIGKILL)
