"""What the head does about Ray's processes that end; with a stand-in for Ray's own node."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

from cluster.head import CALM_S, LONGEST_PAUSE_S, RAYLET_ENDED, Head


class Node:
    """Ray's, as far as the head uses it."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.did: list[str] = []

    def dead_processes(self) -> list[tuple[str, object]]:
        return [(kind, SimpleNamespace()) for kind in self.dead]

    def kill_gcs_server(self, *, check_alive: bool) -> None:
        self.dead.discard("gcs_server")

    def start_gcs_server(self) -> None:
        self.did.append("gcs_server")

    def _kill_process_type(self, kind: str, *, check_alive: bool) -> None:
        self.dead.discard(kind)

    def start_log_monitor(self) -> None:
        self.did.append("log_monitor")


def test_what_ends_is_started_again_but_the_raylet() -> None:
    node, said = Node(), list[str]()
    head = Head(node, said.append)
    assert head.look(0.0) is None
    assert said == []
    node.dead = {"log_monitor"}
    assert head.look(1.0) is None
    node.dead = {"gcs_server"}
    assert head.look(1.0) is None
    assert node.did == ["log_monitor", "gcs_server"]
    node.dead = {"raylet", "gcs_server"}
    assert head.look(2.0) == RAYLET_ENDED


def test_a_store_that_ends_again_and_again_is_started_after_longer_pauses_and_never_given_up() -> None:
    node = Node()
    head = Head(node, lambda _: None)
    starts = []
    for tick in range(400):
        now = 100.0 + tick / 4
        node.dead = {"gcs_server"}
        head.look(now)
        if len(node.did) > len(starts):
            starts.append(now)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert gaps[:4] == [0.25, 1.0, 2.0, 4.0]
    assert set(gaps[4:]) == {LONGEST_PAUSE_S}
    node.dead = {"gcs_server"}
    calm = starts[-1] + CALM_S + 1
    head.look(calm)
    node.dead = {"gcs_server"}
    head.look(calm + 0.25)
    assert len(node.did) == len(starts) + 2
