"""Whether a launcher ended Ray here is read from Ray's own log, in the words of Ray 2.60's raylet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from cluster.launched import ray_was_stopped

NOBODY = 2**22 + 1


def log(folder: Path, *lines: tuple[float, str]) -> None:
    path = folder / "session_latest" / "logs" / "raylet.out"
    path.parent.mkdir(parents=True, exist_ok=True)
    stamped = (f"[{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S},580 I 78 78] (raylet) {text}\n" for at, text in lines)
    path.write_text("".join(stamped))


ASKED = "main.cc:1174: received SIGTERM. Existing local drain request = None"


def test_a_node_that_was_asked_to_end_was_stopped(tmp_path: Path) -> None:
    now = time.time()
    assert not ray_was_stopped(NOBODY, now, tmp_path)
    log(tmp_path, (now, "main.cc:300: Starting"))
    assert not ray_was_stopped(NOBODY, now, tmp_path)
    log(tmp_path, (now, "main.cc:300: Starting"), (now + 5, ASKED), (now + 6, "bye"))
    assert ray_was_stopped(NOBODY, now, tmp_path)


def test_what_was_asked_of_an_earlier_one_counts_no_more(tmp_path: Path) -> None:
    now = time.time()
    log(tmp_path, (now - 60, ASKED), (now, "main.cc:300: Starting"))
    assert not ray_was_stopped(NOBODY, now, tmp_path)
    assert ray_was_stopped(NOBODY, now - 100, tmp_path)


def test_a_head_whose_store_runs_was_not_stopped(tmp_path: Path) -> None:
    now = time.time()
    log(tmp_path, (now + 5, ASKED))
    store = tmp_path / "gcs_server"
    store.symlink_to("/bin/sleep")
    script = f"import subprocess; subprocess.run([{str(store)!r}, '60'])"
    head = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while ray_was_stopped(head.pid, now, tmp_path):
            assert time.monotonic() < deadline, "a running store was not seen"
            time.sleep(0.05)
    finally:
        os.killpg(head.pid, 9)
        head.wait(timeout=5)
    assert ray_was_stopped(head.pid, now, tmp_path)
