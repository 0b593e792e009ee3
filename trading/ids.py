"""Names of things, and the rules they keep.

Ids are plain strings under distinct types, so that mypy keeps an account from being passed as a user.
Instruments are ``VENUE:SYMBOL`` (``NSE:INFY``, ``BINANCE:BTCUSDT``).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NewType

from trading.errors import BadInput

UserId = NewType("UserId", str)
AccountId = NewType("AccountId", str)
AlgoId = NewType("AlgoId", str)
FeedId = NewType("FeedId", str)
NodeName = NewType("NodeName", str)
InstrumentId = NewType("InstrumentId", str)
ClientOrderId = NewType("ClientOrderId", str)
BrokerOrderId = NewType("BrokerOrderId", str)
ExecutionId = NewType("ExecutionId", str)
CauseId = NewType("CauseId", str)
#: Nanoseconds since the Unix epoch, UTC.
Nanos = NewType("Nanos", int)
#: Fencing number of one incarnation of an owner; a higher one ends all lower ones.
Epoch = NewType("Epoch", int)

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?")
_INSTRUMENT = re.compile(r"[A-Z][A-Z0-9_-]{0,15}:[A-Z0-9][A-Z0-9 ._&/-]{0,47}")
_CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9_.:-]{1,48}")


def name(text: str, field: str) -> str:
    """Return ``text`` if it may name a user, account, algo, feed or node, else raise `BadInput`."""
    if not _NAME.fullmatch(text):
        raise BadInput(
            field,
            f"{text[:60]!r} is not a name: use 1 to 42 of a-z, 0-9 and '-', starting and ending with a letter or digit",
        )
    return text


def instrument_id(text: str, field: str = "instrument") -> InstrumentId:
    """Return ``text`` if it has the form ``VENUE:SYMBOL`` in capitals, else raise `BadInput`."""
    if not _INSTRUMENT.fullmatch(text):
        raise BadInput(
            field,
            f"{text[:60]!r} is not an instrument: write VENUE:SYMBOL in capitals, such as BINANCE:BTCUSDT",
        )
    return InstrumentId(text)


def client_order_id(text: str, field: str = "client_order_id") -> ClientOrderId:
    """Return ``text`` if it may be the key of an intent, else raise `BadInput`."""
    if not _CLIENT_ORDER_ID.fullmatch(text):
        raise BadInput(field, f"{text[:60]!r}: use 1 to 48 of A-Z, a-z, 0-9, '_', '.', ':' and '-'")
    return ClientOrderId(text)


def successor_key(key: str) -> ClientOrderId:
    """The key of the order that takes the place of ``key`` where the broker cannot change it: ``a~2`` after ``a``.

    No intent can have such a key: `client_order_id` does not let "~" through.
    """
    base, _, number = key.partition("~")
    return ClientOrderId(f"{base}~{int(number or 1) + 1}")


def broker_tag(account: str, client_order_id: str) -> str:
    """The tag that goes with an order to a broker: 16 letters and digits, one per (account, key).

    80 bits of BLAKE2b in base 32: it fits the shortest tag field known (Kite's 20 alphanumerics) and can be
    computed again from the journal, so an order can be looked up at the broker after any crash.
    """
    digest = hashlib.blake2b(f"{account}\0{client_order_id}".encode(), digest_size=10).digest()
    return base64.b32encode(digest).decode()


def adopted_tag(broker_order_id: str) -> str:
    """What stands for the tag of an order that did not come from here; no broker's tag has a colon in it."""
    return f"broker:{broker_order_id}"
