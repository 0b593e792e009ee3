from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backoff import FIRST_NS, LOOP_COUNT, LOOP_WINDOW_NS, MOST_NS, Attempts
from cluster.placement import Machine, check_placement, choose
from cluster.selectors import read_selector
from storage.records import Apart, Packing, Placement
from trading.errors import BadInput
from trading.ids import AccountId, Nanos, NodeName

A, B = AccountId("a"), AccountId("b")
ANY = NodeName("")


@st.composite
def machines(draw: st.DrawFn) -> list[Machine]:
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6))
    found = []
    for name in names:
        machine = Machine(
            name=NodeName(name),
            alive=draw(st.booleans()),
            cordoned=draw(st.booleans()),
            labels=draw(st.dictionaries(st.sampled_from(["region", "ssd", "accounts"]), st.sampled_from(["a", "eu"]))),
            cpus=draw(st.none() | st.floats(0.5, 4)),
            memory_mb=draw(st.none() | st.integers(100, 4_000)),
        )
        for account in draw(st.lists(st.sampled_from([A, B]), max_size=3)):
            machine.take(account, Placement())
        found.append(machine)
    return found


placements = st.builds(
    Placement,
    selector=st.sampled_from(["", "region=eu", "region!=eu,ssd", "!ssd", "region in (a, eu)"]),
    packing=st.sampled_from(Packing),
    apart=st.sampled_from(Apart),
    cpus=st.floats(0.1, 2),
    memory_mb=st.integers(64, 1_000),
)


@given(machines(), placements, st.sampled_from([A, B]), st.sampled_from(["", *"abcdef"]).map(NodeName))
def test_what_is_chosen_is_possible_and_the_best_and_else_each_is_said_why(
    machines: list[Machine], placement: Placement, account: AccountId, node: NodeName
) -> None:
    def possible(m: Machine) -> bool:
        return (
            m.alive
            and not m.cordoned
            and node in ("", m.name)
            and read_selector(placement.selector).matches(m.labels)
            and account in m.labels.get("accounts", account)
            and not (placement.apart is Apart.REQUIRE and m.accounts.get(account))
            and (m.cpus is None or m.cpus_taken + placement.cpus <= m.cpus + 1e-9)
            and (m.memory_mb is None or m.memory_mb_taken + placement.memory_mb <= m.memory_mb)
        )

    chosen, why = choose(account, node, placement, machines)
    able = [m for m in machines if possible(m)]
    assert (chosen is not None) is bool(able)
    assert (chosen is None) is bool(why)
    # Asked again, whatever the order, the answer is the same.
    assert choose(account, node, placement, machines[::-1])[0] is chosen
    if chosen is None:
        return
    assert chosen in able
    if placement.apart is not Apart.NO:
        fewest = min(m.accounts.get(account, 0) for m in able)
        assert chosen.accounts.get(account, 0) == fewest
        able = [m for m in able if m.accounts.get(account, 0) == fewest]
    shares = [m.share_taken for m in able]
    assert chosen.share_taken == (min(shares) if placement.packing is Packing.SPREAD else max(shares))


def test_spread_goes_round_and_pack_fills_up() -> None:
    def placed(packing: Packing) -> list[str]:
        here = [Machine(name=NodeName(n), alive=True, cpus=1.0, memory_mb=1_000) for n in "abc"]
        names = []
        for _ in range(7):
            chosen, _ = choose(A, ANY, Placement(packing=packing, memory_mb=400), here)
            if chosen is not None:
                chosen.take(A, Placement(memory_mb=400))
            names.append("" if chosen is None else str(chosen.name))
        return names

    assert placed(Packing.SPREAD) == ["a", "b", "c", "a", "b", "c", ""]
    assert placed(Packing.PACK) == ["a", "a", "b", "b", "c", "c", ""]


def test_why_not_is_told_of_each_machine() -> None:
    full = Machine(name=NodeName("full"), alive=True, cpus=1.0, memory_mb=700)
    full.take(A, Placement())
    here = [
        Machine(name=NodeName("gone"), alive=False),
        Machine(name=NodeName("held"), alive=True, cordoned=True),
        Machine(name=NodeName("us"), alive=True, labels={"region": "us"}),
        Machine(name=NodeName("other"), alive=True, labels={"region": "eu", "accounts": "b+c"}),
        labelled(full, {"region": "eu"}),
    ]
    asked = Placement(selector="region=eu")
    assert choose(A, ANY, asked, here) == (
        None,
        "node gone is not here now; node held is cordoned; node us does not match region=eu; "
        "node other is kept for the accounts b+c; node full has 188 MiB left, 512 are needed",
    )
    assert choose(A, NodeName("nowhere"), asked, here) == (None, "no node is named nowhere")
    assert choose(A, ANY, asked, []) == (None, "no node is registered")
    assert choose(B, ANY, asked, here) == (here[3], "")


def labelled(machine: Machine, labels: dict[str, str]) -> Machine:
    machine.labels = labels
    return machine


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        (Placement(cpus=0), "cpus"),
        (Placement(cpus=float("nan")), "cpus"),
        (Placement(memory_mb=10), "memory_mb"),
        (Placement(selector="a="), "selector"),
    ],
)
def test_a_placement_without_sense_is_refused_by_field(placement: Placement, field: str) -> None:
    with pytest.raises(BadInput) as told:
        check_placement(placement)
    assert told.value.field == field


def test_each_end_waits_twice_as_long_up_to_a_limit() -> None:
    attempts, at = Attempts(), Nanos(0)
    waits = []
    for _ in range(10):
        attempts = attempts.ended(at)
        waits.append(attempts.next_at - at)
        at = Nanos(at + 1)
    assert waits[:3] == [FIRST_NS, 2 * FIRST_NS, 4 * FIRST_NS]
    assert waits[-1] == MOST_NS
    assert all(a <= b for a, b in pairwise(waits))


def test_ends_in_a_short_time_are_a_loop_and_old_ones_are_forgotten() -> None:
    attempts = Attempts()
    for n in range(LOOP_COUNT):
        assert not attempts.is_loop()
        attempts = attempts.ended(Nanos(n))
    assert attempts.is_loop()
    assert not attempts.ended(Nanos(LOOP_WINDOW_NS + LOOP_COUNT)).is_loop()
    assert Attempts().next_at == 0
