"""Which machines get algos: those that run the code that the Supervisor's own machine has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cluster.code_version import CodeVersion
from cluster.node_health import unfit
from trading.ids import NodeName

#: The Supervisor's own code is looked at as often as agents look at theirs.
LOOK_S: Final = 30.0


class Fitness:
    """Remembers what each machine's agent has said that is run there, for as long as the machine is here."""

    def __init__(self) -> None:
        self._codes: dict[NodeName, str] = {}
        self._version = CodeVersion()
        self._head = ""
        self._looked_at = float("-inf")

    async def judge(self, here: Sequence[NodeName], told: Mapping[NodeName, Mapping[str, Any]]) -> dict[NodeName, str]:
        """Machines that must get no algos, with the reasons.

        ``here``: a name for each machine that Ray lists.  ``told``: the facts of the agents that answered this round;
        one that began a moment ago has none yet.
        """
        if time.monotonic() - self._looked_at >= LOOK_S:
            self._looked_at = time.monotonic()
            self._head = await asyncio.to_thread(self._version.now)
        self._codes.update({node: str(facts.get("code", "")) for node, facts in told.items() if facts})
        for gone in self._codes.keys() - set(here):
            del self._codes[gone]
        return unfit(self._codes, self._head, here)
