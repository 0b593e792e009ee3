"""How amounts are written by people and programs outside: one form, so that nobody's text means what they did not.

`Decimal` reads more: ``1_0`` as 10, digits of any script, words for what is no number.
"""

from __future__ import annotations

import re
from typing import Final

#: A sign, digits with a fraction, and an exponent: what programs write of a small `Decimal`, ours too.
_AMOUNT: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
#: What to say where a text is none.
FORM: Final = 'write it in digits, such as "0.01"'


def is_amount(text: str) -> bool:
    """Whether ``text`` is a number in plain digits, and nothing beside it."""
    return _AMOUNT.fullmatch(text) is not None
