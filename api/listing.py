"""Instruments that a request names for a feed: written rightly, each once, listed by its provider, not expired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.problems import ProblemError
from api.security import Caller
from api.services import Services
from cluster import catalog
from trading.errors import BadInput
from trading.ids import InstrumentId, instrument_id
from trading.instruments import Instrument


def parse_instruments(texts: Sequence[str], field: str = "instruments") -> tuple[InstrumentId, ...]:
    """The instruments that ``texts`` spell; `BadInput` for one that is written wrongly, or twice."""
    found: dict[InstrumentId, None] = {}
    for text in texts:
        instrument = instrument_id(text, field)
        if instrument in found:
            raise BadInput(field, f"{instrument} is named twice")
        found[instrument] = None
    return tuple(found)


async def require_listed(
    deck: Services,
    caller: Caller,
    provider: str,
    settings: Mapping[str, Any],
    instruments: Sequence[InstrumentId],
    field: str = "instruments",
) -> None:
    """Raise 422 naming those that the provider does not have, or that have expired.

    Where one is not stored, the provider's list is fetched first.
    """
    found = await _stored(deck, provider, instruments)
    if len(found) < len(instruments):
        credentials = await deck.credentials_for(caller, settings)
        await deck.instruments.upsert(await catalog.listing(provider, settings, credentials))
        found = await _stored(deck, provider, instruments)
    unknown = [each for each in instruments if each not in found]
    if unknown:
        raise _problem("unknown_instrument", f"{provider} does not list", unknown, field)
    today = datetime.now(UTC).date().isoformat()
    expired = [each for each in instruments if found[each].expires_on and found[each].expires_on < today]
    if expired:
        raise _problem("expired_instrument", "no longer traded:", expired, field)


def _problem(code: str, what: str, instruments: Sequence[InstrumentId], field: str) -> ProblemError:
    detail = f"{what} {', '.join(instruments[:20])}" + (" …" if len(instruments) > 20 else "")
    return ProblemError(422, code, "Bad input", detail, field=field, unknown=list(instruments))


async def _stored(deck: Services, provider: str, ids: Sequence[InstrumentId]) -> dict[InstrumentId, Instrument]:
    return {each.id: each for each in await deck.instruments.get(ids) if each.provider == provider}
