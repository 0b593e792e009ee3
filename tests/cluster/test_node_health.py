"""How machines are judged, and which of them get algos."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.node_facts import (
    METRICS,
    ClockFacts,
    NetworkFacts,
    NodeFacts,
    ProcessFacts,
    Temperature,
    by_kind,
    minute_of,
)
from cluster.node_health import MOST_SKEW_MS, SILENT_S, Health, Reference, difference, judge, told_at, unfit
from trading.ids import Nanos, NodeName

SECOND = 1_000_000_000
NOW = Nanos(1_700_000_000 * SECOND)
HEAD = Reference(code="0.1.0+aaaa", ray="2.60.0", python="3.11.7")
EDGE, HOME = NodeName("edge"), NodeName("home")


def facts(**changes: Any) -> NodeFacts:
    """A machine that is well."""
    well = NodeFacts(
        name="edge", at=Nanos(NOW - SECOND), host="h", cpus=4, cpu_percent=20.0, load=(0.5, 0.4, 0.3),
        memory_total_mb=16_000, memory_used_mb=4_000, disk_total_mb=100_000, disk_free_mb=50_000, python="3.11.9",
        platform="Linux", uptime_s=100, processes=(process(),), code=HEAD.code, packages={"ray": "2.60.0"},
        clock=ClockFacts(skew_ms=3.0, error_ms=1.0, measured_at=NOW), descriptors=3_000, descriptors_limit=1_000_000,
    )  # fmt: skip
    return replace(well, **changes)


def process(**changes: Any) -> ProcessFacts:
    values: dict[str, Any] = {
        "pid": 7, "title": "AlgoHost", "memory_mb": 90.0, "descriptors": 60, "cpu_s": 1.0, "cpu_percent": 2.5,
        "descriptors_limit": 1_024,
    }  # fmt: skip
    return ProcessFacts(**{**values, **changes})


def network(**changes: Any) -> NetworkFacts:
    values: dict[str, Any] = {
        "name": "eth0", "received_bytes_s": 10.0, "sent_bytes_s": 20.0, "errors_s": 0.0, "drops_s": 0.0, "errors": 5,
        "drops": 6,
    }  # fmt: skip
    return NetworkFacts(**{**values, **changes})


def test_a_machine_that_is_well_is_ok() -> None:
    assert judge(facts(), True, HEAD, "", NOW) == judge(facts(), None, HEAD, "", NOW)
    assert judge(facts(), True, HEAD, "", NOW).health is Health.OK
    assert judge(facts(), True, HEAD, "", NOW).reasons == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clock": ClockFacts(skew_ms=300.0, error_ms=2.0, measured_at=NOW)}, "300 ms ahead of the database's"),
        ({"clock": ClockFacts(skew_ms=-900.0, error_ms=2.0, measured_at=NOW)}, "900 ms behind the database's"),
        ({"code": "0.1.0+bbbb"}, "runs another build of Quarterdeck 0.1.0 than the head"),
        ({"code": "0.0.9+bbbb"}, "runs Quarterdeck 0.0.9+bbbb, the head 0.1.0+aaaa"),
        ({"code": ""}, "does not say which Quarterdeck it runs"),
        ({"packages": {"ray": "2.59.0"}}, "has Ray 2.59.0, the head 2.60.0"),
        ({"python": "3.12.1"}, "has Python 3.12.1, the head 3.11.7"),
        ({"disk_free_mb": 900}, "900 MiB of its disk are free"),
        ({"disk_free_mb": 4_999}, "4,999 MiB of its disk are free"),
        ({"memory_used_mb": 15_800}, "200 of 16,000 MiB of its memory are free"),
        ({"load": (1.0, 8.1, 3.0)}, "load has been 8.1 for five minutes, on 4 cores"),
        ({"load": (1.0, 2.1, 3.0), "cpus": 1}, "on one core"),
        ({"processes": (process(descriptors=900),)}, "AlgoHost (process 7) has 900 of the 1,024 file descriptors"),
        ({"descriptors": 900_000}, "900,000 of the machine's 1,000,000 file descriptors are open"),
        ({"temperature": Temperature(sensor="cpu", celsius=81.0, high=80.0)}, "cpu is at 81 °C"),
        ({"temperature": Temperature(sensor="cpu", celsius=91.0)}, "cpu is at 91 °C"),
        ({"network": (network(errors_s=12.0),)}, "eth0 has 12 errors a second"),
    ],
)  # fmt: skip
def test_each_trouble_degrades_by_itself_and_is_told_in_words(changes: dict[str, Any], words: str) -> None:
    told = judge(facts(**changes), True, HEAD, "", NOW)
    assert told.health is Health.DEGRADED
    (reason,) = told.reasons
    assert words in reason


def test_what_is_near_a_limit_or_not_known_is_no_trouble() -> None:
    near = facts(
        clock=ClockFacts(skew_ms=MOST_SKEW_MS + 5, error_ms=6.0, measured_at=NOW), load=(99.0, 8.0, 99.0),
        processes=(process(descriptors_limit=0, descriptors=10**6), process(descriptors=819)),
        temperature=Temperature(sensor="cpu", celsius=89.0), network=(network(errors=10**6),), descriptors_limit=0,
    )  # fmt: skip
    assert judge(near, True, HEAD, "", NOW).reasons == ()
    assert judge(facts(code=""), True, Reference(), "", NOW).health is Health.OK
    assert judge(facts(clock=None, packages={}), True, HEAD, "", NOW).health is Health.OK


def test_all_reasons_are_told_and_none_twice() -> None:
    why = difference("0.1.0+bbbb", HEAD.code)
    told = judge(facts(code="0.1.0+bbbb", disk_free_mb=1), True, HEAD, why, NOW)
    assert [why, "1 MiB of its disk are free"] == list(told.reasons)
    twice = judge(facts(), True, HEAD, "2 machines call themselves edge", NOW)
    assert (twice.health, twice.reasons) == (Health.DEGRADED, ("2 machines call themselves edge",))


def test_silence_and_absence() -> None:
    old = facts(at=Nanos(NOW - 42 * SECOND))
    for here in (True, None):
        told = judge(old, here, HEAD, "", NOW)
        assert told.health is Health.SILENT
        assert told.reasons == ("its agent has not answered since 2023-11-14 22:12:37 UTC (42 s)",)
    gone = judge(old, False, HEAD, "", NOW)
    assert gone.health is Health.GONE
    assert gone.reasons == ("it is not part of the cluster; last heard of at 2023-11-14 22:12:37 UTC",)
    assert "within a day" in judge(None, False, HEAD, "", NOW).reasons[0]
    assert judge(None, True, HEAD, "", NOW).reasons == ("its agent has not told anything yet",)
    # What it told a moment ago counts for nothing once it is not part of the cluster.
    assert judge(facts(), False, HEAD, "", NOW).health is Health.GONE


@given(st.integers(-10_000, 10_000), st.floats(0, 60))
def test_a_wrong_clock_makes_nobody_silent(skew_ms: int, age_s: float) -> None:
    at = NOW - int(age_s * SECOND) + skew_ms * 1_000_000
    clock = ClockFacts(skew_ms=float(skew_ms), error_ms=0.0, measured_at=NOW)
    told = judge(facts(at=Nanos(at), clock=clock), True, HEAD, "", NOW)
    assert abs(told_at(facts(at=Nanos(at), clock=clock)) - (NOW - age_s * SECOND)) < 1_000
    assert (told.health is Health.SILENT) is (age_s > SILENT_S + 1e-6) or abs(age_s - SILENT_S) < 1e-3


def test_machines_that_run_other_code_or_share_a_name_get_no_algos() -> None:
    codes = {EDGE: HEAD.code, HOME: "0.1.0+bbbb", NodeName("old"): ""}
    here = [EDGE, HOME, NodeName("old"), NodeName("new")]
    found = unfit(codes, HEAD.code, here)
    assert found.keys() == {HOME, "old", "new"}
    assert "another build" in found[HOME]
    assert "does not say" in found[NodeName("old")]
    assert "has not said yet" in found[NodeName("new")]
    twice = unfit(codes, HEAD.code, [EDGE, EDGE])
    assert twice.keys() == {EDGE}
    assert twice[EDGE].startswith("2 machines call themselves edge: end Ray on those that should not")


def test_processes_are_summed_up_by_kind() -> None:
    many = [process(pid=1), process(pid=2, memory_mb=10.0), process(pid=3, title="raylet")]
    found = by_kind(many)
    assert list(found) == ["AlgoHost", "raylet"]
    assert (found["AlgoHost"].count, found["AlgoHost"].memory_mb) == (2, 100.0)
    assert (found["AlgoHost"].descriptors, found["AlgoHost"].cpu_percent) == (120, 5.0)


def test_a_minute_is_made_of_its_looks() -> None:
    looks = [
        facts(cpu_percent=10.0, memory_used_mb=1_000, disk_free_mb=50, network=(network(), network(name="wg0"))),
        facts(cpu_percent=90.0, memory_used_mb=3_000, disk_free_mb=70, temperature=Temperature(sensor="a", celsius=50)),
    ]
    row = minute_of(looks)
    assert (row["cpu_percent"], row["cpu_percent_most"]) == (50.0, 90.0)
    assert (row["memory_used_mb"], row["memory_used_mb_most"], row["disk_free_mb"]) == (2_000.0, 3_000.0, 50.0)
    assert (row["received_bytes_s"], row["sent_bytes_s"]) == (10.0, 20.0)
    assert (row["temperature_c"], row["clock_skew_ms"]) == (50.0, 3.0)
    assert (row["algos"], row["algos_memory_mb"]) == (1.0, 90.0)
    assert row.keys() == METRICS.keys()
    # What the machine does not have is left out, not nought.
    assert "temperature_c" not in minute_of([facts()])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=70))
def test_a_minute_lies_between_its_looks(shares: list[float]) -> None:
    row = minute_of([facts(cpu_percent=each) for each in shares])
    assert min(shares) - 0.01 <= row["cpu_percent"] <= row["cpu_percent_most"] + 0.01
    assert abs(row["cpu_percent_most"] - max(shares)) <= 0.01


def test_facts_of_an_older_release_can_be_read() -> None:
    old = {
        "name": "edge", "at": int(NOW), "host": "h", "cpus": 2, "cpu_percent": 1.5, "load": [0.1, 0.2, 0.3],
        "memory_total_mb": 1_000, "memory_used_mb": 1, "disk_free_mb": 9_000, "python": "3.11.1", "platform": "Linux",
        "uptime_s": 5,
        "processes": [{"pid": 1, "title": "AlgoHost", "memory_mb": 1.0, "descriptors": 3, "cpu_s": 0.1}],
    }  # fmt: skip
    read = msgspec.convert(old, NodeFacts)
    told = judge(read, True, HEAD, "", NOW)
    assert [reason[:11] for reason in told.reasons] == ["it does not"]
