"""A child process that loads one strategy and says what it is: ``python -m cluster.strategy_check``.

Reads JSON {name, source, entry, parameters?} from stdin; writes {version, entry, schema} or {field, detail}.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from strategies.loader import check_parameters, load_source
from trading.errors import BadInput


def check(question: dict[str, Any]) -> dict[str, Any]:
    """Load the source, check the parameters where there are some."""
    try:
        loaded = load_source(question["source"], question["name"], question["entry"])
        if question.get("parameters") is not None:
            check_parameters(loaded.strategy_class, question["parameters"])
    except BadInput as error:
        return {"field": error.field, "detail": error.detail}
    return {"version": loaded.version, "entry": loaded.entry, "schema": loaded.schema}


def main() -> None:
    """Answer one question."""
    # What the strategy prints while it is loaded must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    said = msgspec.json.encode(check(msgspec.json.decode(sys.stdin.buffer.read())))
    with os.fdopen(answer, "wb") as out:
        out.write(said)
    # At once: threads that the strategy left must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
