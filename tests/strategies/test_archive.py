from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import archive
from strategies.archive import MOST_FILES, Contents, read, top_levels, unzip
from trading.errors import BadInput

MINE = b"from strategies import Strategy\nclass Mine(Strategy): pass\n"


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive_:
        for name, content in files.items():
            archive_.writestr(name, content)
    return out.getvalue()


def refused(data: bytes, says: str, file_name: str = "mine.zip") -> None:
    with pytest.raises(BadInput, match=says) as caught:
        read(file_name, data)
    assert caught.value.field == "file"


PART = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
NAME = st.lists(PART, min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@given(files=st.dictionaries(NAME, st.binary(max_size=300), max_size=8))
def test_what_was_packed_comes_out_in_order_of_names(files: dict[str, bytes]) -> None:
    files = {f"own/{name}.txt": content for name, content in files.items()} | {"own/mine.py": MINE}
    assert list(unzip("mine.zip", packed(files)).items()) == sorted(files.items())


@settings(deadline=None)
@given(
    name=st.lists(st.sampled_from(["..", ".", "", "a", "C:", "b.py", "\\", "x\\y", "\0", "/"]), min_size=1, max_size=5)
    .map("/".join)
    .filter(bool)
)
def test_no_name_ever_leads_out_of_the_folder(name: str) -> None:
    # Names as they stand in a zip: `zipfile` would mend some when it writes.
    placeholder = "Q" * len(name.encode())
    data = packed({placeholder: MINE, "mine.py": MINE}).replace(placeholder.encode(), name.encode())
    try:
        files = read("mine.zip", data).files
    except BadInput as error:
        assert error.field == "file"  # noqa: PT017
        return
    for found in files:
        path = PurePosixPath(found)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert "\\" not in found
        assert "\0" not in found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil.py", r"'\.\./evil\.py' leads out"),
        ("own/../../evil.py", "leads out"),
        ("/etc/evil.py", "'/etc/evil.py' is absolute"),
        ("C:/evil.py", "is absolute"),
        ("own\\evil.py", "characters that no file name"),
        ("own/./evil.py", "no plain path"),
        ("own/e\x1bvil.py", "characters"),
        ("own/" + "e" * 250 + ".py", "longer than 200"),
    ],
)
def test_a_bad_name_is_refused_by_name(name: str, says: str) -> None:
    placeholder = "Q" * len(name)
    refused(packed({placeholder: MINE}).replace(placeholder.encode(), name.encode()), says)


def test_a_symbolic_link_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive_:
        link = zipfile.ZipInfo("own/secrets.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive_.writestr(link, "/root/.quarterdeck/secret-key")
    refused(out.getvalue(), "'own/secrets.py' is a symbolic link")


def test_a_zip_bomb_is_refused_by_the_member_that_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_UNPACKED", 1_000_000)
    data = packed({"a.py": MINE, "b.bin": bytes(999_000), "c.bin": bytes(10_000)})
    assert len(data) < 5_000
    refused(data, r"with 'c\.bin' it unpacks to more than 1000000 bytes: is this a zip bomb")


def test_a_size_that_lies_is_not_believed() -> None:
    data = bytearray(packed({"mine.py": MINE, "z.bin": bytes(5_000_000)}))
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 10)
    refused(bytes(data), "no sound zip")


def test_overlapping_members_count_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_UNPACKED", 100_000)
    # Two entries of the directory that lead to the same data.
    data = packed({"aa.py": bytes(60_000), "bb.py": b""})
    first = data.find(b"PK\x01\x02")
    second = data.rfind(b"PK\x01\x02")
    entry = bytearray(data[first:second])
    entry[46:51] = b"bb.py"
    refused(data[:second] + bytes(entry) + data[second + len(entry) :], "unpacks to more than|no sound zip")


def test_too_many_files_and_a_swollen_directory_are_refused_before_they_are_read() -> None:
    refused(packed({f"m{n}.py": b"" for n in range(MOST_FILES + 1)}), f"more than {MOST_FILES} files")
    refused(packed({f"m{n}.py": b"" for n in range(20 * MOST_FILES)}), "has a directory of")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"trading/orders.py": MINE}, "trading: a module of that name belongs to Python or the deck"),
        ({"json.py": MINE, "mine.py": MINE}, "json: a module of that name belongs to Python or the deck"),
        ({"README.md": b"hello"}, "no Python module"),
        ({"own.py": MINE, "Own.py": MINE}, "one file on some machines"),
        ({"own": b"", "own/mine.py": MINE}, "both a file and a folder"),
    ],
)
def test_a_zip_that_cannot_be_used_says_why(files: dict[str, bytes], says: str) -> None:
    refused(packed(files), says)


def test_other_methods_and_encryption_are_refused() -> None:
    refused(packed({"mine.py": MINE}, zipfile.ZIP_LZMA), "another method than deflate")
    data = bytearray(packed({"mine.py": MINE}))
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(sign) + at] |= 1
    refused(bytes(data), "is encrypted")


def test_what_editors_leave_behind_is_left_out() -> None:
    files = {"own/mine.py": MINE, "own/__pycache__/mine.cpython-311.pyc": b"x", "__MACOSX/own/._mine.py": b"x"}
    assert list(unzip("mine.zip", packed(files))) == ["own/mine.py"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_zip_is_taken_or_refused_but_never_raises_else(data: st.DataObject) -> None:
    raw = bytearray(packed({"own/mine.py": MINE, "own/table.csv": b"1,2\n" * 50}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for each in (bytes(raw), bytes(raw[:cut])):
        try:
            unzip("mine.zip", each)
        except BadInput as error:
            assert error.field == "file"  # noqa: PT017


def test_a_wheel_is_its_code_with_the_entry_that_it_names() -> None:
    files = {
        "own/__init__.py": MINE,
        "own-1.0.dist-info/METADATA": b"Name: own\nVersion: 1.0\n",
        "own-1.0.dist-info/entry_points.txt": b"[console_scripts]\nx = y:z\n[quarterdeck.strategies]\nown = own:Mine\n",
        "own-1.0.data/purelib/more.py": b"",
        "own-1.0.data/scripts/run": b"",
    }
    found = read("own-1.0-py3-none-any.whl", packed(files))
    assert (found.kind, found.entry) == ("wheel", "own:Mine")
    assert {name for name in found.files if "dist-info" not in name} == {"own/__init__.py", "more.py"}
    refused(packed(files), "no name of a wheel", "own.whl")
    refused(packed({"own.py": MINE}), "no .dist-info/METADATA", "own-1.0-py3-none-any.whl")


def test_a_lone_module_is_text_and_other_files_are_refused() -> None:
    assert read("mine.py", MINE) == Contents(kind="file", files={"strategy.py": MINE})
    refused(b"\xff", r"not UTF-8 text \(byte 0\)", "mine.py")
    refused(MINE, "none of .py, .zip and .whl", "mine.tar")
    refused(b"PK nothing", "does not end as one")
    refused(bytes(archive.LARGEST_UPLOAD + 1), re.escape(f"at most {archive.LARGEST_UPLOAD} are taken"))


def test_top_levels_are_what_can_be_imported() -> None:
    assert top_levels(["own/a.py", "lone.py", "fast.cpython-311-x86_64-linux-gnu.so", "README.md"]) == {
        "own",
        "lone",
        "fast",
    }
