"""``/v1/surveillance/terms``: when trading counts as unusual, for the deck and for accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import ConfigDict

from api.formats import Body, Instant, Shown
from api.problems import ProblemError
from api.security import Caller, FreshOperator, Operator
from api.services import Deck, Services
from storage.surveillance_terms import SetTerms
from trading.errors import BadInput, Conflict
from trading.ids import AccountId
from trading.surveillance_terms import settled

router = APIRouter(prefix="/v1/surveillance", tags=["risk"])


class TermsWanted(Body):
    """Terms to set, by name; what is left out is the deck's, or, for the deck, the default.

    ``seen``: what was set when somebody looked; 409 `terms_moved` where something else is by now, shown in ``present``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"terms": {"times": 10, "share": 0.25, "cancels": 60}}]})

    terms: dict[str, float]
    seen: dict[str, float] | None = None


class TermsShown(Shown):
    """Terms of the deck (``account`` null) or of an account: what is ``set``, and all that is in force then."""

    account: str | None
    set: dict[str, float]
    in_force: dict[str, float]
    changed_at: Instant | None
    changed_by: str


@router.get("/terms", response_model=list[TermsShown])
async def list_terms(_: Operator, deck: Deck) -> list[dict[str, Any]]:
    """The deck's terms, then those of accounts that have their own."""
    found = await deck.surveillance_terms.all()
    return [_shown(found, each) for each in (None, *sorted(account for account in found if account is not None))]


@router.put("/terms", response_model=TermsShown)
async def set_terms(body: TermsWanted, caller: FreshOperator, deck: Deck) -> dict[str, Any]:
    """Set the deck's terms, taken up within seconds.  {} makes them the defaults again."""
    return await _set(deck, None, body, caller)


@router.put("/terms/{account}", response_model=TermsShown)
async def set_terms_of_account(account: str, body: TermsWanted, caller: FreshOperator, deck: Deck) -> dict[str, Any]:
    """Set those of an account, on top of the deck's.  {} lets it have the deck's again."""
    record = await deck.desired.account(AccountId(account))
    return await _set(deck, record.id, body, caller)


async def _set(deck: Services, account: AccountId | None, body: TermsWanted, caller: Caller) -> dict[str, Any]:
    seen = None if body.seen is None else _whole(body.seen)
    try:
        with _of_body():
            await deck.surveillance_terms.put(account, _whole(body.terms), by=caller.user, seen=seen)
    except Conflict as error:
        present = TermsShown.model_validate(_shown(await deck.surveillance_terms.all(), account))
        more = present.model_dump(mode="json")
        raise ProblemError(409, error.code, "Conflict", error.detail, present=more) from error
    return _shown(await deck.surveillance_terms.all(), account)


@contextmanager
def _of_body() -> Iterator[None]:
    """Name fields as the body has them."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"terms.{error.field}", error.detail) from error


def _whole(terms: Mapping[str, float]) -> dict[str, float | int]:
    """Numbers without a fraction as whole ones: JSON does not tell 6.0 from 6."""
    return {name: int(value) if value.is_integer() else value for name, value in terms.items()}


def _shown(found: Mapping[AccountId | None, SetTerms], account: AccountId | None) -> dict[str, Any]:
    nothing = SetTerms(account=account, terms={})
    deck, one = found.get(None, nothing), found.get(account, nothing)
    return {
        "account": account,
        "set": one.terms,
        "in_force": msgspec.to_builtins(settled(deck.terms, one.terms)),
        "changed_at": one.changed_at or None,
        "changed_by": one.changed_by,
    }
