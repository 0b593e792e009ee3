"""``/v1/algos/batch``: one command to many algos, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field, model_validator

from api.formats import Body, Shown
from api.problems import Problem, body_of
from api.routes import algo_commands as commands
from api.routes.algo_commands import AlgoPaused, EntryLeft
from api.routes.algos import fields_of, find_traded, shown
from api.security import AlgoRunner, Caller
from api.services import Deck, Services
from api.shapes import AlgoShown
from cluster.algo_labels import select
from storage.records import AlgoRecord, KillRecord

router = APIRouter(prefix="/v1/algos", tags=["algos"])

Action = Literal["start", "stop", "restart", "pause", "resume", "move"]


class BatchWanted(Body):
    """A command to the algos named by ``ids`` or meant by ``selector``, of those that the caller may command.

    A selector asks for labels, and for what algos are: id, user, account, strategy, feed, node, want, state.  The other
    fields are those of the command itself.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "pause", "selector": "desk=alpha,strategy=ma-cross"}]}
    )

    action: Action
    ids: list[str] | None = Field(None, min_length=1, max_length=1_000)
    selector: str | None = Field(None, min_length=1, max_length=2_000)
    orders: Literal["cancel", "leave"] = "cancel"
    position: Literal["keep", "flatten"] = "keep"
    because: str = Field("", max_length=500)
    cancel_open: bool = False
    node: str | None = None
    force: bool = False

    @model_validator(mode="after")
    def _fits(self) -> BatchWanted:
        if (self.ids is None) == (self.selector is None):
            raise ValueError("name the algos by either ids or selector")
        if (self.action == "move") != (self.node is not None):
            raise ValueError("node is for the action move, which needs it")
        foreign = {"orders": "stop", "position": "stop", "because": "pause", "cancel_open": "pause", "force": "move"}
        for field, action in foreign.items():
            if field in self.model_fields_set and self.action != action:
                raise ValueError(f"{field} is for the action {action}")
        return self


class BatchResult(Shown):
    """What came of it for one algo: the algo as it stands, or the problem; ``status`` as if it had been asked alone.

    ``cancelled``, ``left``: of a pause with ``cancel_open``, the keys of the orders that are being taken back, and
    those that are not, and may still fill.
    """

    id: str
    status: int
    algo: AlgoShown | None = None
    problem: Problem | None = None
    cancelled: list[str] = Field(default_factory=list)
    left: list[EntryLeft] = Field(default_factory=list)


class BatchShown(Shown):
    """What came of it for each algo; ``refused`` of them have a problem.

    ``holds``: of a pause, whether every session has heard of it.
    """

    action: Action
    done: int
    refused: int
    holds: bool | None = None
    results: list[BatchResult]


@router.post("/batch", response_model=BatchShown, status_code=207)
async def command_many(body: BatchWanted, caller: AlgoRunner, deck: Deck) -> BatchShown:
    """Command many algos at once.  One that is refused does not keep the others from it; each result tells its own."""
    if body.selector is not None:
        mine = [algo for algo in await deck.desired.algos() if caller.trades_algo(algo)]
        ids = [str(algo.id) for algo in select(mine, body.selector)]
    else:
        ids = list(dict.fromkeys(body.ids or ()))
    done: dict[str, AlgoRecord] = {}
    problems: dict[str, dict[str, Any]] = {}
    kills: list[tuple[AlgoRecord, KillRecord]] = []
    for id in ids:
        try:
            done[id], kill = await _act(deck, caller, await find_traded(deck, caller, id), body)
        except Exception as error:  # noqa: BLE001 - what was done for the others must be told, whatever this is
            problems[id] = body_of(error)
            continue
        if kill is not None:
            kills.append((done[id], kill))
    # Sessions that do not answer take their time, but all at once.
    await asyncio.gather(*(commands.tell(deck, record, kill) for record, kill in kills))
    holds = None
    taken_back: dict[str, AlgoPaused] = {}
    if body.action == "pause" and done:
        # Limits come in order: whoever has heard of the last has heard of all.
        holds = await commands.until_heard(deck, max(done.values(), key=lambda each: each.paused_at))
        if body.cancel_open:
            taken_back, failed = await _cancel_open(deck, caller, done)
            problems |= failed
    results = [
        _done(id, taken_back[id] if id in taken_back else await shown(deck, done[id]))
        if id not in problems
        else BatchResult(id=id, status=problems[id]["status"], problem=Problem.model_validate(problems[id]))
        for id in ids
    ]
    refused = len(problems)
    return BatchShown(action=body.action, done=len(ids) - refused, refused=refused, holds=holds, results=results)


def _done(id: str, algo: AlgoShown) -> BatchResult:
    if not isinstance(algo, AlgoPaused):
        return BatchResult(id=id, status=200, algo=algo)
    return BatchResult(
        id=id, status=200, algo=AlgoShown(**fields_of(algo)), cancelled=algo.cancelled, left=algo.refused
    )


async def _cancel_open(
    deck: Services, caller: Caller, paused: dict[str, AlgoRecord]
) -> tuple[dict[str, AlgoPaused], dict[str, dict[str, Any]]]:
    """Take back what could enlarge positions: what came of it, and the problems of those where that did not work."""
    wanted = commands.PauseWanted(cancel_open=True)
    outcomes = await asyncio.gather(
        *(commands.paused(deck, caller, record, wanted, holds=True) for record in paused.values()),
        return_exceptions=True,
    )
    done, failed = dict[str, AlgoPaused](), dict[str, dict[str, Any]]()
    for id, outcome in zip(paused, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failed[id] = body_of(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            done[id] = outcome
    return done, failed


async def _act(
    deck: Services, caller: Caller, record: AlgoRecord, body: BatchWanted
) -> tuple[AlgoRecord, KillRecord | None]:
    if body.action == "stop":
        wanted = commands.StopWanted(orders=body.orders, position=body.position)
        return await commands.stop(deck, caller, record, wanted)
    return await _act_alone(deck, caller, record, body), None


async def _act_alone(deck: Services, caller: Caller, record: AlgoRecord, body: BatchWanted) -> AlgoRecord:
    match body.action:
        case "start":
            return await commands.start(deck, caller, record)
        case "restart":
            return await commands.restart(deck, caller, record)
        case "pause":
            return await commands.pause(deck, caller, record, commands.PauseWanted(because=body.because))
        case "resume":
            return await commands.resume(deck, caller, record)
    move = commands.MoveWanted(node=body.node or "", force=body.force)
    return await commands.move(deck, caller, record, move)
