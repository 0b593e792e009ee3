from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import names
from cluster.names import ActorName, Kind, parse

ids = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?", fullmatch=True)
NUMBERED = (Kind.ALGO, Kind.WORKER)


@given(st.sampled_from(Kind), ids, st.integers(0, 10**9))
def test_name_comes_back_as_it_was(kind: Kind, id_: str, number: int) -> None:
    name = ActorName(kind, id_, number if kind in NUMBERED else None)
    assert parse(str(name)) == name


@given(st.one_of(st.text(max_size=20), st.from_regex(r"(algo|worker|risk|x)(/[a-z0-9+-]{0,3}){0,3}", fullmatch=True)))
def test_whatever_is_read_is_written_the_same(text: str) -> None:
    name = parse(text)
    assert name is None or str(name) == text


@pytest.mark.parametrize(
    "text",
    ["", "algo", "algo/x", "algo/x/y", "algo/x/1/2", "algo/x/01", "algo/x/+1", "algo//1", "session/", "session/u/1"],
)
def test_what_is_not_ours_is_no_name(text: str) -> None:
    assert parse(text) is None


def test_every_kind_has_its_spelling() -> None:
    assert [
        names.supervisor(),
        names.risk(),
        names.surveillance(),
        names.session("u42"),
        names.connection("zerodha-u42"),
        names.coordinator("crypto"),
        names.recorder("crypto"),
        names.worker("crypto", 3),
        names.algo("momo-17", 5),
        names.node("laptop"),
        names.namespace("main"),
    ] == [
        "supervisor/main",
        "risk/main",
        "surveillance/main",
        "session/u42",
        "connection/zerodha-u42",
        "coordinator/crypto",
        "recorder/crypto",
        "worker/crypto/3",
        "algo/momo-17/5",
        "node/laptop",
        "quarterdeck-main",
    ]
