"""Which node something runs on.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trading.ids import NodeName


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is alive and takes new work."""

    name: NodeName
    algos: int


def choose_node(wanted: NodeName, rooms: Sequence[Room], known: Mapping[NodeName, bool]) -> tuple[NodeName | None, str]:
    """``(node, "")`` or ``(None, why not)``.  ``known`` says of every registered node whether it is cordoned.

    A named node is taken or waited for; without a name the one with the fewest algos, ties by name.
    """
    if wanted:
        here = next((room.name for room in rooms if room.name == wanted), None)
        if here is not None:
            return here, ""
        if known.get(wanted):
            return None, f"node {wanted} is cordoned"
        return None, f"node {wanted} is not here now" if wanted in known else f"no node is named {wanted}"
    if not rooms:
        return None, "no node takes new algos now"
    return min(rooms, key=lambda room: (room.algos, room.name)).name, ""
