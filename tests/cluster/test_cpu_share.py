from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cpu_share import NICE, CpuShare


def test_a_share_is_known_once_the_window_is_full_and_forgets_what_is_before_it() -> None:
    share = CpuShare(10.0)
    assert [share.take(float(at), at * 1.0) for at in range(10)] == [None] * 10
    assert share.take(10.0, 10.0) == pytest.approx(1.0)
    assert share.take(15.0, 10.0) == pytest.approx(0.5)
    assert share.take(20.0, 10.0) == pytest.approx(0.0)
    assert share.take(120.0, 60.0) == pytest.approx(0.5), "nobody looked for long: the average since"


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.floats(0.0, 2.0)), min_size=1, max_size=60))
def test_a_share_lies_between_the_least_and_the_most_that_was_taken(steps: list[tuple[float, float]]) -> None:
    share, at, cpu = CpuShare(10.0), 0.0, 0.0
    assert share.take(at, cpu) is None
    for elapsed, rate in steps:
        at, cpu = at + elapsed, cpu + elapsed * rate
        found = share.take(at, cpu)
        rates = [each for _, each in steps]
        assert found is None or min(rates) - 1e-6 <= found <= max(rates) + 1e-6


def test_every_thread_gives_way_and_so_do_those_that_come_after() -> None:
    code = """
import os, threading, time
from cluster.cpu_share import give_way
stop = threading.Event()
threading.Thread(target=stop.wait).start()
print(give_way(), give_way())
threading.Thread(target=stop.wait).start()
print(sorted({os.getpriority(os.PRIO_PROCESS, int(t)) for t in os.listdir("/proc/self/task")}))
stop.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    first, second = done.stdout.splitlines()
    niced, again = map(int, first.split())
    # It may run as nicely as that already.
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert (niced, again) == (2 if own < NICE else 0, 0)
    assert second == f"[{max(own, NICE)}]"
