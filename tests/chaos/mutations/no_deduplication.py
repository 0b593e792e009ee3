"""Every request is a new order, whatever key it bears: neither memory nor the journal's constraint is asked."""

from __future__ import annotations

import itertools
from typing import Any

from msgspec.structs import force_setattr

from trading.ids import ClientOrderId
from trading.session import SessionCore

_again = itertools.count(1)
_checked = SessionCore._checked


def _forgetful(core: SessionCore, intent: Any) -> Any:
    book = core._book(intent.account)
    if intent.client_order_id in book.orders:
        force_setattr(intent, "client_order_id", ClientOrderId(f"{intent.client_order_id}.{next(_again)}"))
    return _checked(core, intent)


SessionCore._checked = _forgetful  # type: ignore[method-assign,assignment]
