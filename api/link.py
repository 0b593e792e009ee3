"""The API's own tie to the cluster: connected as a driver, and a Supervisor that exists."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from cluster import names
from cluster.names import ActorName, Kind
from cluster.settings import DeckSettings
from cluster.specs import ActorSpec
from trading.errors import Conflict, NotReady
from trading.ids import UserId

if TYPE_CHECKING:
    from cluster.calls import Peer

log = logging.getLogger("quarterdeck")

CHECK_EVERY_S = 5.0
#: Connecting and listing block a thread; after so long the head counts as away.
PATIENCE_S = 30.0


class Link:
    """Keeps the cluster alive from outside: whoever runs the API runs a deck."""

    def __init__(self, deck: DeckSettings) -> None:
        self.deck = deck
        #: Why the cluster cannot be used; "" when it can.
        self.trouble = "not connected to the head yet"

    def session(self, user: UserId) -> Peer:
        """A user's session."""
        # Imported late: without a cluster the API need not load Ray.
        from cluster.calls import Peer

        return Peer(names.session(user))

    def risk(self) -> Peer:
        """Central risk."""
        from cluster.calls import Peer

        return Peer(names.risk())

    async def run(self) -> None:
        """Connect and keep a Supervisor, for ever."""
        delay = 0.5
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.to_thread(self._ensure)
            except (NotReady, TimeoutError) as error:
                said = str(error) or f"the head has not answered for {PATIENCE_S:g} s"
                if self.trouble != said:
                    log.warning("the cluster is not ready: %s", said)
                self.trouble = said
                await asyncio.sleep(delay)
                delay = min(delay * 1.7, CHECK_EVERY_S)
            except Exception as error:  # noqa: BLE001 - Ray raises its own kinds, which only `cluster` may name
                log.warning("the cluster could not be looked at: %r", error)
                self.trouble = f"{type(error).__name__}: {error}"
                await asyncio.sleep(CHECK_EVERY_S)
            else:
                if self.trouble:
                    log.info("connected to the cluster")
                self.trouble = ""
                delay = 0.5
                await asyncio.sleep(CHECK_EVERY_S)

    def _ensure(self) -> None:
        runtime: Any
        from cluster import runtime

        runtime.connect(self.deck)
        name = ActorName(Kind.SUPERVISOR, "main")
        if name not in runtime.running():
            log.info("creating the Supervisor")
            try:
                runtime.spawn(ActorSpec(name=name, args=("main",)))
            except Conflict:
                # Another API was faster.
                return
