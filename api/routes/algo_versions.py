"""``/v1/algos/{id}/upgrade``, ``/rollback``: an algo goes to another version only when it is told to."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.formats import Body
from api.routes.algos import check_parameters, find_traded, refuse_deprecated, shown
from api.security import AlgoRunner
from api.services import Deck, Services
from api.shapes import AlgoShown
from storage.records import AlgoRecord, StrategyVersion
from trading.errors import BadInput, Conflict, UnknownThing

router = APIRouter(prefix="/v1/algos", tags=["algos"])


class Upgrade(Body):
    """The version to go to, by its first characters or the whole, and its parameters; null: as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": "3f8a1c92", "parameters": None}]})

    version: str = Field(max_length=64)
    parameters: dict[str, Any] | None = None


class Rollback(Body):
    """The parameters to go back with; null: those that it had before the upgrade."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"parameters": None}]})

    parameters: dict[str, Any] | None = None


@router.post("/{id}/upgrade", response_model=AlgoShown)
async def upgrade_algo(id: str, body: Upgrade, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Go to another version: parameters are checked first; if it runs, it stops in order and starts with the new one.

    It goes on from its snapshot, if the new version's `restore` takes it."""
    record = await find_traded(deck, caller, id)
    _check_submitted(record)
    target = await deck.strategies.version(record.strategy, body.version)
    refuse_deprecated(target)
    if target.version == record.strategy_version and body.parameters in (None, record.parameters):
        return await shown(deck, record)
    return await shown(deck, await _move(deck, record, target, body.parameters, caller.user))


@router.post("/{id}/rollback", response_model=AlgoShown)
async def roll_back_algo(id: str, caller: AlgoRunner, deck: Deck, body: Rollback | None = None) -> AlgoShown:
    """Go back to the version before the last upgrade, with the parameters of then; also where it is deprecated."""
    record = await find_traded(deck, caller, id)
    _check_submitted(record)
    before = record.previous.get("version")
    if before is None:
        raise Conflict("nothing_before", f"algo {id!r} was not upgraded: there is nothing to go back to")
    try:
        target = await deck.strategies.version(record.strategy, before)
    except UnknownThing as error:
        raise Conflict("version_is_gone", f"version {before[:12]} of {record.strategy} was deleted") from error
    given = body.parameters if body is not None else None
    parameters = given if given is not None else record.previous["parameters"]
    return await shown(deck, await _move(deck, record, target, parameters, caller.user))


async def _move(
    deck: Services, record: AlgoRecord, target: StrategyVersion, given: dict[str, Any] | None, by: str
) -> AlgoRecord:
    parameters = record.parameters if given is None else given
    present = await deck.strategies.version(record.strategy, record.strategy_version)
    if record.epoch and _class_of(target) != _class_of(present):
        raise Conflict(
            "other_class",
            f"the class is {_class_of(target)} there and {_class_of(present)} here, so the algo's snapshot, with its "
            "position, would not be taken: give the class its old name, or make another algo",
        )
    await check_parameters(deck, record.strategy, target, parameters)
    changes: dict[str, Any] = {"strategy_version": target.version, "parameters": parameters}
    if target.version != record.strategy_version:
        changes["previous"] = {"version": record.strategy_version, "parameters": record.parameters}
    # The generation that was looked at: of two who move it at once, one is told.
    return await deck.desired.update_algo(record.id, changes, by=by, generation=record.generation)


def _class_of(version: StrategyVersion) -> str:
    return version.entry.rpartition(":")[2]


def _check_submitted(record: AlgoRecord) -> None:
    if not record.strategy_version:
        raise BadInput("version", f"{record.strategy} is built in: it changes with the release, and only then")
