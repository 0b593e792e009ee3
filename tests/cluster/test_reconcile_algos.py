"""The Supervisor's decisions about an algo: ends, failures, stops, changes, pauses, what it may take."""

from __future__ import annotations

from cluster.names import ActorName, Kind
from cluster.reconcile import Seen, ShowAlgo, StopAlgo, reconcile
from storage.records import OverCpu, Placement
from tests.cluster.reconciling import Cluster, algo, feed, running
from trading.ids import AlgoId, FeedId


def test_crashed_algo_waits_longer_each_time_and_fails_in_a_loop() -> None:
    cluster = running(x="")
    waits = []
    for _ in range(4):
        cluster.crash("x")
        before = cluster.now
        while cluster.name("x") not in cluster.actors:
            cluster.round()
        waits.append(cluster.now - before)
        cluster.settle()
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]
    cluster.crash("x")
    cluster.round()
    record = cluster.algos[AlgoId("x")]
    assert (record.state, "5 times" in record.reason) == ("failed", True)


def test_one_end_counts_once_however_often_it_is_looked_at() -> None:
    cluster = running(x="")
    cluster.crash("x")
    for _ in range(10):
        desired, observed = cluster.look()
        (shown,) = [a for a in reconcile(desired, observed, cluster.memory, cluster.now) if isinstance(a, ShowAlgo)]
        assert shown.state == "waiting"


def test_failed_algo_stays_failed_until_it_is_started_again_and_then_has_all_its_tries() -> None:
    cluster = running(x="")
    for _ in range(4):
        cluster.crash("x")
        while cluster.name("x") not in cluster.actors:
            cluster.round()
        cluster.settle()
    cluster.crash("x")
    cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "failed"
    assert cluster.round() == []
    cluster.set("x", state="waiting")
    cluster.settle()
    cluster.crash("x")
    cluster.round()
    assert cluster.algos[AlgoId("x")].state == "waiting"


def test_algo_that_reports_its_failure_is_shown_with_it_and_removed() -> None:
    cluster = running(x="")
    cluster.see(cluster.name("x"), state="failed", reason="ValueError: no")
    cluster.settle()
    record = cluster.algos[AlgoId("x")]
    assert (record.state, record.reason, cluster.of(Kind.ALGO)) == ("failed", "ValueError: no", [])


def test_stopped_algo_ends_in_order_and_is_stopped() -> None:
    cluster = running(x="")
    cluster.desire(feed("f", 1))
    cluster.settle()
    cluster.set("x", want="stopped")
    desired, observed = cluster.look()
    actions = reconcile(desired, observed, cluster.memory, cluster.now)
    assert StopAlgo(cluster.name("x"), "asked to stop") in actions
    cluster.settle()
    assert (cluster.algos[AlgoId("x")].state, cluster.of(Kind.ALGO)) == ("stopped", [])


def test_changed_algo_is_stopped_and_started_under_a_new_epoch() -> None:
    cluster = running(x="")
    cluster.set("x", generation=2, restart_generation=2)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/2"]
    assert cluster.actors[cluster.name("x")].generation == 2


def test_what_a_running_algo_takes_up_itself_does_not_replace_it() -> None:
    cluster = running(x="")
    cluster.set("x", generation=3)
    assert cluster.round() == []
    cluster.set("x", generation=5, restart_generation=4)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/2"]


def test_a_paused_algo_runs_and_says_by_whom_also_after_a_crash_and_on_another_node() -> None:
    cluster = running("n1", "n2", x="")
    cluster.set("x", paused_by="asha", paused_because="prices look wrong")
    cluster.settle()
    said = "paused by asha: prices look wrong; only orders that reduce pass"
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].reason) == ("paused", said)
    cluster.crash("x")
    cluster.settle()
    assert (cluster.of(Kind.ALGO), cluster.algos[AlgoId("x")].state) == (["algo/x/2"], "paused")
    cluster.alive.discard(cluster.algos[AlgoId("x")].placed)
    cluster.crash("x")
    cluster.settle()
    assert (cluster.of(Kind.ALGO), cluster.algos[AlgoId("x")].state) == (["algo/x/3"], "paused")
    cluster.see(cluster.name("x"), answers=False)
    cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "paused", "as it was last seen"
    cluster.see(cluster.name("x"), answers=True)
    cluster.set("x", paused_by="")
    cluster.settle()
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].reason) == ("running", "")


def test_an_algo_that_takes_more_cpu_than_allowed_says_so_or_is_ended_if_that_is_set() -> None:
    cluster = running("n1", x="", y="")
    cluster.set("y", placement=Placement(cpu_limit=0.5, over_cpu=OverCpu.END))
    for id_ in ("x", "y"):
        cluster.see(cluster.name(id_), over_cpu=True, cpu_share=1.234)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/1"]
    assert cluster.algos[AlgoId("x")].state == "running"
    assert cluster.algos[AlgoId("x")].reason.startswith("takes more CPU than the 0.9 cores")
    assert cluster.algos[AlgoId("y")].state == "failed"
    assert cluster.algos[AlgoId("y")].reason == "its process took 1.23 cores, 0.5 are allowed it"


def test_an_algo_that_takes_more_memory_than_it_may_is_ended_and_says_so() -> None:
    cluster = running("n1", x="", y="")
    cluster.see(cluster.name("x"), memory_mb=513)
    cluster.see(cluster.name("y"), memory_mb=512)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/y/1"]
    assert cluster.algos[AlgoId("x")].state == "failed"
    assert cluster.algos[AlgoId("x")].reason == "its process took 513 MiB, 512 are allowed it"


def test_old_incarnations_are_removed() -> None:
    cluster = running(x="")
    old = ActorName(Kind.ALGO, "x", 0)
    stranger = ActorName(Kind.ALGO, "gone", 3)
    for name in (old, stranger):
        cluster.actors[name] = Seen(name=name, answers=True, state="ready")
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/1"]


def test_blocked_and_silent_algos_are_shown_as_such() -> None:
    cluster = running(x="")
    cluster.see(cluster.name("x"), heart_age_s=7.0)
    cluster.round()
    assert "blocked" in cluster.algos[AlgoId("x")].reason
    cluster.see(cluster.name("x"), answers=False, heart_age_s=0.0)
    cluster.round()
    assert "does not answer" in cluster.algos[AlgoId("x")].reason


def test_an_algo_whose_feed_was_deleted_says_so() -> None:
    cluster = Cluster("n1")
    cluster.desire(feed("f", 1), algo("x"))
    cluster.settle()
    cluster.set("x", want="stopped", feed=FeedId("f"))
    del cluster.feeds[FeedId("f")]
    cluster.round()
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].reason) == (
        "stopping",
        "its feed f was deleted",
    )
    cluster.settle()
    assert cluster.algos[AlgoId("x")].reason == "its feed f was deleted"
