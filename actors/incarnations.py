"""Which incarnation of each algo a session listens to: the newest it has heard of, and none before.

An algo whose machine was given up runs elsewhere under a higher epoch; should the old process still be alive, and
reach the session, what it asks for is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trading.errors import Fenced
from trading.ids import AlgoId


class Incarnations:
    """The newest epoch of each algo."""

    def __init__(self) -> None:
        self._newest: dict[AlgoId, int] = {}

    def __repr__(self) -> str:
        return f"<Incarnations of {len(self._newest)} algos>"

    def know(self, epochs: Mapping[AlgoId, int]) -> None:
        """Hear of epochs; lower ones than known change nothing."""
        for algo, epoch in epochs.items():
            self._newest[algo] = max(epoch, self._newest.get(algo, 0))

    def begin(self, algo: AlgoId, epoch: int) -> None:
        """An incarnation begins: those before it are refused from now on.  `Fenced` where it is itself an older one."""
        self.check([algo], epoch)
        self._newest[algo] = epoch

    def check(self, algos: Iterable[AlgoId | None], epoch: int) -> None:
        """Raise `Fenced` where a newer incarnation of any of these has begun."""
        for algo in algos:
            newest = self._newest.get(algo, 0) if algo else 0
            if newest > epoch:
                raise Fenced(f"algo/{algo}", epoch, newest)
