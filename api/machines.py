"""Registered machines with their facts and their health, as routes and metrics show them."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from cluster.code_version import version
from cluster.node_facts import NodeFacts
from cluster.node_health import SILENT_S, VIEW_S, Health, Judgement, Reference, judge, told_at
from storage.records import NodeRecord
from trading.ids import Nanos


class MachineSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A registered machine; ``facts`` are as old as they may be, ``fresh`` says whether they are of now."""

    record: NodeRecord
    facts: NodeFacts | None
    fresh: bool
    health: Judgement


class Hearsay(Protocol):
    """What is to be had about machines, by key, and why where it is not; and the code that the head runs."""

    async def look(self, key: str) -> tuple[dict[str, Any] | None, str]: ...

    async def look_all(self, prefix: str) -> tuple[dict[str, dict[str, Any]], str]: ...

    async def code(self) -> str: ...


async def see(deck: Hearsay, records: Iterable[NodeRecord]) -> list[MachineSeen]:
    """Judge machines by what they told last and by the Supervisor's view of the cluster.

    A store that is away leaves them without facts: what is shown beside a record must not hide the record.
    """
    told, _ = await deck.look_all("node:")
    view, _ = await deck.look("cluster")
    now = Nanos(time.time_ns())
    if view is not None and now - view["at"] > VIEW_S * 1e9:
        view = None
    head = Reference(code=await deck.code(), ray=version("ray"), python=platform.python_version())
    return [_seen(record, told.get(f"node:{record.name}"), view, head, now) for record in records]


def _seen(
    record: NodeRecord, told: dict[str, Any] | None, view: dict[str, Any] | None, head: Reference, now: Nanos
) -> MachineSeen:
    facts, unreadable = None, ""
    if told is not None:
        try:
            facts = msgspec.convert(told, NodeFacts)
        except msgspec.ValidationError as error:
            unreadable = f"what its agent tells cannot be read, so it runs another version than the head: {error}"
    here = None if view is None else record.name in view["nodes"]
    unfit = "" if view is None else view.get("unfit", {}).get(record.name, "")
    health = judge(facts, here, head, unfit, now)
    if unreadable and health.health is Health.SILENT:
        health = Judgement(Health.DEGRADED, (unreadable,))
    fresh = facts is not None and now - told_at(facts) <= SILENT_S * 1e9
    return MachineSeen(record=record, facts=facts, fresh=fresh, health=health)
