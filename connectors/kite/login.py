"""The daily log-in: the ``request_token`` that a person brings from Kite's page becomes an ``access_token``.

Source: "Login flow" and "Authentication and token exchange" of the Kite Connect v3 documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.kite.market import KiteMarket


async def finish(settings: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """``given`` with an access_token in the place of a request_token; unchanged where there is none.

    Raises `NeedsOperator` (Kite refuses the token, the key or the secret), `Unreachable` or `BadInput` (settings).
    """
    request_token = given.get("request_token", "")
    kept = {name: value for name, value in given.items() if name != "request_token"}
    market = KiteMarket(settings, kept)
    try:
        if not request_token or kept.get("access_token"):
            return dict(given)
        session = await market.exchange(request_token)
    finally:
        await market.close()
    return {**kept, "access_token": session.access_token}
