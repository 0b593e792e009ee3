"""`ray up` with the on-premise configuration, over SSH to two machines (namespaces of this one), its file unchanged
but for addresses, key, and where Python is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.client import ApiClient
from tests.support.data import ROOT
from tests.support.machines import Machine, Wire, connect, why_not
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}
SETTING_OUT = """#!/bin/sh
cd {root} && exec {python} -m {module} "$@"
"""


class Launcher:
    """`ray up` and `ray down` as an operator runs them, from this machine."""

    def __init__(self, folder: Path, config: Path) -> None:
        self._config = config
        # What it notes of a cluster is in its own folder, and no deck of the test run is its business.
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "QUARTERDECK_"))}
        self._environment = {**mine, "RAY_TMPDIR": str(folder), "TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}

    def __call__(self, verb: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", verb, "-y", *options, str(self._config)],
            capture_output=True,
            text=True,
            timeout=100 * PATIENCE,
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"ray {verb}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since Ray's sockets are below it."""
    path = Path(tempfile.mkdtemp(prefix="qd-up-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """A head that this machine reaches, and a worker that only the head reaches; the same commands on both."""
    if reason := why_not():
        pytest.skip(reason)
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=20)
    # No two runs at once on the same networks.
    number = os.getpid() % 5_000 * 2
    to_head, to_worker = Wire(number, f"qd{os.getpid():x}h"), Wire(number + 1, f"qd{os.getpid():x}w")
    made: list[Machine] = []
    try:
        for name in ("head", "edge"):
            made.append(Machine(name, folder, folder / "h", key))
            for command, module in (("quarterdeck", "cluster"), ("ray", "ray.scripts.scripts")):
                text = SETTING_OUT.format(root=ROOT, python=sys.executable, module=module)
                made[-1].write(f"bin/{command}", text, 0o755)
            made[-1].write(".bashrc", "export PATH=~/bin:$PATH\n")
        head, worker = made
        connect(to_head, (None, head))
        connect(to_worker, (head, worker))
        worker.ip("route", "add", "default", "via", to_worker.address(0))
        head.boot()
        worker.boot()
        yield head, worker
    finally:
        for machine in made:
            machine.end()


@pytest.fixture
def launch(machines: tuple[Machine, Machine], folder: Path) -> Launcher:
    """The launcher, with the file as it is shipped but for addresses, key, and what is installed."""
    head, worker = machines
    config = yaml.safe_load((ROOT / "ray-cluster-local.yaml").read_text())
    config["provider"].update(head_ip=head.addresses[0], worker_ips=worker.addresses)
    config["auth"].update(ssh_user="root", ssh_private_key=str(folder / "key"))
    config.update(min_workers=1, max_workers=1, setup_commands=[])
    path = folder / "ray-cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return Launcher(folder, path)


class Cluster:
    """What runs on the two machines, by the head's API."""

    def __init__(self, head: Machine, folder: Path, key: str) -> None:
        self.api = ApiClient(f"http://{head.addresses[0]}:8470", key)
        self._head = head
        self._folder = folder
        self._simulator: subprocess.Popen[str] | None = None

    def wait(self, what: str, ready: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds * PATIENCE
        while not (found := ready()):
            assert time.monotonic() < deadline, f"{what} was not so within {seconds * PATIENCE:g} s\n{self.logs()}"
            time.sleep(0.2)
        return found

    def logs(self) -> str:
        """Ends of what the machines wrote, for a failure's text."""
        logs = [*self._folder.glob("*/home/.quarterdeck*/logs/*.log"), *self._folder.rglob("monitor*.log")]
        return "\n".join(f"--- {log}\n" + "\n".join(log.read_text().splitlines()[-25:]) for log in logs)

    def node(self, name: str) -> dict[str, Any]:
        return next((dict(each) for each in self.api.get("/nodes")["items"] if each["name"] == name), {})

    def algo(self) -> dict[str, Any]:
        return dict(self.api.get("/algos/guest"))

    def pid(self) -> int:
        """The algo's process, as its own machine counts; 0 where the Supervisor sees none, or several."""
        actors = self.api.get("/cluster")["actors"]
        found = [int(each["pid"]) for each in actors if each["name"].startswith("algo/guest/") and each["pid"]]
        return found[0] if len(found) == 1 else 0

    def start_algo(self) -> None:
        """A market maker on whatever machine is labelled as the launcher's file says, on a market of the head's."""
        command = [
            sys.executable,
            "-m",
            "cluster",
            "simulate",
            "binance",
            "--port",
            "0",
            "--symbols",
            "2",
            "--rate",
            "50",
        ]
        self._simulator = subprocess.Popen(
            self._head.inside(*command), cwd=ROOT, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._simulator.stdout is not None
        told = json.loads(self._simulator.stdout.readline())
        source = {"provider": told["provider"], "settings": {"base_url": told["url"]}}
        self.api.post("/instruments/import", source)
        self.api.post("/feeds", {"id": "main", **source, "instruments": ["BINANCE:BTCUSDT"], "workers": 1})
        self.api.post("/users", {"id": "ann", "roles": ["trader", "quant"]})
        paper = {"cash": "1000000", "currency": "USDT", "feed": "main"}
        self.api.post("/accounts", {"id": "ann-paper", "user": "ann", "connector": "paper", "settings": paper})
        self.api.post(
            "/algos",
            {"id": "guest", "strategy": "market-maker", "account": "ann-paper", "feed": "main", "parameters": MAKER,
             "instruments": ["BINANCE:BTCUSDT"], "placement": {"selector": "site=own"}, "start": True},
        )  # fmt: skip

    def end(self) -> None:
        self.api.close()
        if self._simulator is not None:
            self._simulator.kill()
            self._simulator.wait(timeout=5)


def test_up_up_again_and_down(machines: tuple[Machine, Machine], launch: Launcher, folder: Path) -> None:
    head, worker = machines
    told = launch("up", "--no-config-cache")
    key = re.search(r"qd_[\w-]+", told)
    assert key, told
    cluster = Cluster(head, folder, key.group())
    try:
        # The head's monitor goes on where the launcher ended, and lets the worker join as any machine does.
        node = cluster.wait(
            "the worker with its facts", lambda: cluster.node("edge").get("facts") and cluster.node("edge"), 60
        )
        assert node["labels"].items() >= {"site": "own", "egress": worker.addresses[0]}.items()
        cluster.start_algo()
        cluster.wait("the algo trading there", lambda: (cluster.algo()["live"] or {}).get("orders_acked"), 60)
        pid = cluster.wait("its process", cluster.pid, 20)
        before = cluster.algo()
        assert before["placed"] == "edge"
        running = {
            each.pid for machine in machines for each in machine.processes() if each.name() in ("raylet", "gcs_server")
        }
        assert len(running) == 3

        # Again, once as one should and once as one should not: neither ends anything, here or there.
        for options in (["--no-restart"], []):
            again = launch("up", "--no-config-cache", *options)
            assert "qd_" not in again
        assert "The deck is up at" in again
        # The monitor looks every five seconds.
        acked = cluster.algo()["live"]["orders_acked"]
        cluster.wait(
            "the algo trading on", lambda: (cluster.algo()["live"] or {}).get("orders_acked", 0) > acked + 20, 30
        )
        assert cluster.algo()["epoch"] == before["epoch"]
        assert cluster.wait("its process", cluster.pid, 20) == pid
        assert running <= {each.pid for machine in machines for each in machine.processes()}

        launch("down")
        cluster.wait("the end of the deck", lambda: not (head.home / ".quarterdeck" / "deck.json").exists(), 40)
        cluster.wait(
            "the end on both machines", lambda: not {"raylet", "gcs_server"} & (head.names() | worker.names()), 20
        )
        node_file = worker.home / ".quarterdeck-node" / "node.json"
        cluster.wait("the worker's leave", lambda: not node_file.exists(), 20)
        assert not (head.home / ".quarterdeck-pool-token").exists()
    finally:
        cluster.end()
