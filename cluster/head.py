"""Ray's head on this machine, kept whole: ``python -m cluster.head``.

``ray start --head --block`` ends everything on the machine when its control store dies, and the store's memory dies
with it.  Here the store is kept on disk (Ray's embedded one) and started again in place: actors, here and on other
machines, go on meanwhile, and the store that comes back finds them.  Only where the raylet ends does the head end.

Ray 2.60: ``ray._private.node.Node`` is what ``ray start`` is made of; its own tests restart the store so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ray._private import ray_constants, services
from ray._private.node import Node
from ray._private.parameter import RayParams

from cluster.raylet import CPUS, OBJECT_STORE_BYTES, all_labels

LOOK_EVERY_S: Final = 0.25
#: One that ends again at once is started after ever longer pauses.  It is never given up: actors run on without it.
LONGEST_PAUSE_S: Final = 5.0
CALM_S: Final = 30.0
RAYLET_ENDED: Final = 1

_STORE = ray_constants.PROCESS_TYPE_GCS_SERVER


class Head:
    """The head's processes."""

    def __init__(self, node: Any, say: Callable[[str], None]) -> None:
        self._node = node
        self._say = say
        #: By kind: when it was last started again, and the pause that came before that.
        self._started: dict[str, tuple[float, float]] = {}

    def look(self, now: float) -> int | None:
        """Start again what has ended; an exit code where that cannot be done."""
        for kind in {kind for kind, _ in self._node.dead_processes()}:
            if kind == ray_constants.PROCESS_TYPE_RAYLET:
                self._say("the raylet has ended, and all actors of this machine with it")
                return RAYLET_ENDED
            started, pause = self._started.get(kind, (0.0, 0.0))
            if now < started + pause:
                continue
            pause = 0.0 if now - started > CALM_S else min(max(1.0, 2 * pause), LONGEST_PAUSE_S)
            self._started[kind] = (now, pause)
            self._say(f"Ray's {kind} has ended; it is started again")
            self._again(kind)
        return None

    def _again(self, kind: str) -> None:
        if kind == _STORE:
            self._node.kill_gcs_server(check_alive=False)
            self._node.start_gcs_server()
            return
        self._node._kill_process_type(kind, check_alive=False)
        if kind == ray_constants.PROCESS_TYPE_LOG_MONITOR:
            self._node.start_log_monitor()
        elif kind == ray_constants.PROCESS_TYPE_MONITOR:
            self._node.start_monitor()
        elif kind == ray_constants.PROCESS_TYPE_DASHBOARD:
            self._node.start_api_server(include_dashboard=False, raise_on_failure=False)
        else:
            self._say(f"nobody here knows how to start a {kind}; the head goes on without it")


def start(name: str, host: str, port: int, folder: Path, autoscaling_config: Path | None = None) -> Any:
    """A head node of Ray that listens on ``host:port``; its files in ``folder``.

    ``autoscaling_config``: of Ray's cluster launcher; a monitor here starts and keeps other machines by it.
    """
    # As `ray start` and `ray.init` both do: who says localhost means the machine's address.
    address = services.resolve_ip_for_localhost(host)
    params = RayParams(
        gcs_server_port=port,
        node_ip_address=address,
        node_name=address,
        num_cpus=CPUS,
        object_store_memory=OBJECT_STORE_BYTES,
        labels=all_labels(name),
        temp_dir=str(folder),
        include_dashboard=False,
        # It would read all logs several times a second to send them to drivers, of which none wants them.
        include_log_monitor=False,  # type: ignore[arg-type]  # Ray calls it a text and uses it as this
        autoscaling_config=str(autoscaling_config) if autoscaling_config is not None else None,
        dashboard_agent_listen_port=0,
    )
    return Node(params, head=True, shutdown_at_exit=True, spawn_reaper=True)


def main() -> int:
    """Run the head until it ends."""
    given = argparse.ArgumentParser(description="Ray's head, kept whole.")
    given.add_argument("--name", required=True)
    given.add_argument("--host", required=True)
    given.add_argument("--port", type=int, required=True)
    given.add_argument("--folder", type=Path, required=True)
    given.add_argument("--autoscaling-config", type=Path)
    asked = given.parse_args()
    head = Head(start(asked.name, asked.host, asked.port, asked.folder, asked.autoscaling_config), _say)
    _say(f"Ray's head listens on {asked.host}:{asked.port}")
    while True:
        time.sleep(LOOK_EVERY_S)
        code = head.look(time.monotonic())
        if code is not None:
            return code


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
