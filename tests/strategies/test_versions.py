from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.versions import diff, version_of

TEXT = st.text("ab \n\r\x0c\u2028é", max_size=40)
FILES = st.dictionaries(st.sampled_from(["a.py", "b.py", "own/c.py", "strategy.py"]), TEXT.map(str.encode), max_size=4)
TERMS = st.tuples(st.sampled_from(["", "Mine", "own.c:Mine"]), st.lists(st.sampled_from(["x", "y>=1"]), max_size=2))


@settings(deadline=None)
@given(first=FILES, second=FILES, terms=TERMS, other=TERMS)
def test_versions_are_the_same_exactly_where_the_content_is(
    first: dict[str, bytes], second: dict[str, bytes], terms: tuple[str, list[str]], other: tuple[str, list[str]]
) -> None:
    is_same = (first, terms[0], sorted(terms[1])) == (second, other[0], sorted(other[1]))
    assert (version_of(first, *terms) == version_of(second, *other)) == is_same
    assert version_of(dict(reversed(first.items())), *terms) == version_of(first, *terms)


def test_a_lone_module_is_known_by_its_own_digest() -> None:
    content = b"class Mine: ...\n"
    assert version_of({"strategy.py": content}) == hashlib.sha256(content).hexdigest()
    assert version_of({"strategy.py": content}, "Mine") != hashlib.sha256(content).hexdigest()


def patched(before: dict[str, bytes], text: str) -> dict[str, bytes]:
    """What a unified diff makes of files: a small `patch`."""
    files = dict(before)
    lines = text.split("\n")
    at = 0
    while at < len(lines) and lines[at].startswith("--- "):
        old, new = lines[at][4:], lines[at + 1][4:]
        source = files.pop(old.removeprefix("a/"), b"").decode().split("\n")
        source = [f"{line}\n" for line in source[:-1]] + ([source[-1]] if source[-1] else [])
        made: list[str] = []
        taken = 0
        at += 2
        while at < len(lines) and lines[at].startswith("@@"):
            start = int(lines[at].split()[1].split(",")[0][1:])
            length = lines[at].split()[1].split(",")[1:]
            begin = start - 1 if length != ["0"] else start
            made += source[taken:begin]
            taken = begin
            at += 1
            while at < len(lines) and lines[at][:1] in (" ", "+", "-") and not lines[at].startswith("--- "):
                mark, line = lines[at][0], lines[at][1:] + "\n"
                at += 1
                if at < len(lines) and lines[at].startswith("\\"):
                    line = line[:-1]
                    at += 1
                if mark != "+":
                    assert source[taken] == line
                    taken += 1
                if mark != "-":
                    made.append(line)
        if new != "/dev/null":
            files[new.removeprefix("b/")] = "".join(made + source[taken:]).encode()
    assert lines[at:] == [""]
    return files


@settings(deadline=None)
@given(before=FILES, after=FILES)
def test_a_diff_makes_one_version_of_the_other(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    assert patched(before, diff(before, after)) == after
    assert (diff(before, after) == "") == (before == after)


def test_what_cannot_be_compared_by_line_is_said_to_differ() -> None:
    assert diff({"t.npy": b"\0a"}, {"t.npy": b"\0bc"}) == "a/t.npy and b/t.npy differ: 2 bytes, then 3 bytes\n"
    assert diff({}, {"t.npy": b"\0"}) == "/dev/null and b/t.npy differ: absent, then 1 bytes\n"
    long = b"x\n" * 10_000
    assert diff({"l.py": long}, {"l.py": long + b"y\n"}) == "a/l.py and b/l.py differ: 20000 bytes, then 20002 bytes\n"
