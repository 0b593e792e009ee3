"""Text that can be kept and sent on: without NUL and without halves of surrogate pairs.

PostgreSQL takes neither, UTF-8 not the halves.  What clients give is refused at the door, before anything is done with
it; what comes from elsewhere, and is told of an act that was done, is cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from starlette.requests import HTTPConnection

from trading.errors import BadInput

#: Where something stands in a body: names of fields, numbers in lists.
Place: TypeAlias = tuple[str | int, ...]

WORDS: Final = "there is a character in it that no text may have: NUL, or half of a surrogate pair"
WORDS_OF_A_NAME: Final = "a name in it has a character that no text may have: NUL, or half of a surrogate pair"
_UNFIT: Final = re.compile("[\0\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Whether a text can be kept and sent on."""
    return _UNFIT.search(text) is None


def unfit_place(value: Any) -> tuple[Place, str] | None:
    """Where in a body, as it came out of JSON, there is text that cannot be kept, and what is wrong there.

    Of a name in a mapping, the mapping's place: the name itself could not be told.  None where all is well.
    """
    if all(is_plain(text) for text in _texts(value)):
        return None
    waiting: list[tuple[Place, Any]] = [((), value)]
    while waiting:
        place, each = waiting.pop()
        if isinstance(each, str):
            if not is_plain(each):
                return place, WORDS
        elif isinstance(each, dict):
            if not all(is_plain(name) for name in each if isinstance(name, str)):
                return place, WORDS_OF_A_NAME
            waiting += [((*place, name), inner) for name, inner in each.items()]
        elif isinstance(each, list | tuple):
            waiting += [((*place, number), inner) for number, inner in enumerate(each)]
    return None


def _texts(value: Any) -> Iterator[str]:
    # Not recursive: a body may be nested deeper than Python's stack.
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            yield from (name for name in each if isinstance(name, str))
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each


def cleaned(text: str) -> str:
    """``text`` as it can be kept: the mark � stands for what cannot."""
    return _UNFIT.sub("\ufffd", text)


def all_cleaned(value: Any) -> Any:
    """A value of JSON with all its texts `cleaned`."""
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, dict):
        return {all_cleaned(name): all_cleaned(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [all_cleaned(each) for each in value]
    return value


async def refuse_unfit_address(connection: HTTPConnection) -> None:
    """A dependency: refuse a path or a query with text that cannot be kept, naming the parameter."""
    if connection.scope["type"] != "http":
        return  # a stream takes nothing from its address
    for name, value in connection.path_params.items():
        if isinstance(value, str) and not is_plain(value):
            raise BadInput(name, WORDS)
    for name, value in connection.query_params.multi_items():
        if not is_plain(name):
            raise BadInput("query", WORDS_OF_A_NAME)
        if not is_plain(value):
            raise BadInput(name, WORDS)
