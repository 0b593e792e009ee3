"""What a submitted file holds: a lone module, a zip of modules and packages, or a wheel.  Pure: bytes in, files out.

Nothing is written to disk here, so a name that leads elsewhere cannot hurt yet; but the files are written out on every
node later, so it is refused, by name.  A zip is not believed: sizes are counted while it is read.
Formats: APPNOTE.TXT 6.3 (zip), PEP 427 (wheel).
"""

from __future__ import annotations

import io
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

import msgspec

from trading.errors import BadInput

#: Largest file that can be submitted, in bytes.
LARGEST_UPLOAD: Final = 20_000_000
#: Largest module that is submitted alone, in bytes.
LARGEST_MODULE: Final = 4_000_000
#: Most files of a zip or wheel, and how many bytes they may be together when unpacked.
MOST_FILES: Final = 500
LARGEST_UNPACKED: Final = 64_000_000
LONGEST_NAME: Final = 200
#: Where a lone module is put.
MODULE: Final = "strategy.py"
#: Names of modules that are the deck's own; a strategy's must not hide them.
OURS: Final = frozenset({"trading", "strategies", "connectors", "storage", "cluster", "actors", "api"})
#: What file managers and editors leave in folders.
_LITTER: Final = re.compile(r"(^|/)(__MACOSX|\.DS_Store|__pycache__|\.git|\.idea|\.vscode)(/|$)|\.py[co]$")
_END: Final = b"PK\x05\x06"
_END_64: Final = b"PK\x06\x07"
#: A name's entry in the directory of a zip: its fixed part, the name, and room for what systems add.
_LARGEST_DIRECTORY: Final = 2 * MOST_FILES * (46 + LONGEST_NAME + 256)
_PART: Final = 1 << 16
#: What `zipfile` raises over bytes that are no zip.
_UNSOUND: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError
)  # fmt: skip


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """A submission, taken apart.  ``kind`` is ``file``, ``zip`` or ``wheel``; ``files`` are what a node unpacks."""

    kind: str
    files: dict[str, bytes]
    #: What a wheel names as its entry (``module:Class``), "" where it names none.
    entry: str = ""


def read(file_name: str, data: bytes) -> Contents:
    """Take a file apart by its name: ``.py``, ``.zip`` or ``.whl``.

    Raises `BadInput` for field ``file`` that names the member and says what is wrong with it.
    """
    suffix = PurePosixPath(file_name).suffix
    if len(data) > LARGEST_UPLOAD:
        raise _bad(f"{file_name} has {len(data)} bytes; at most {LARGEST_UPLOAD} are taken")
    if suffix == ".py":
        return module(data)
    if suffix == ".zip":
        files = unzip(file_name, data)
        _check_tops(files)
        return Contents(kind="zip", files=files)
    if suffix == ".whl":
        return _wheel(file_name, data)
    raise _bad(f"{file_name!r} is none of .py, .zip and .whl")


def module(data: bytes) -> Contents:
    """A lone module."""
    if len(data) > LARGEST_MODULE:
        raise _bad(f"{len(data)} bytes; a module that is submitted alone has at most {LARGEST_MODULE}: make a zip")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"it is not UTF-8 text (byte {error.start})") from error
    return Contents(kind="file", files={MODULE: data})


def unzip(file_name: str, data: bytes) -> dict[str, bytes]:
    """The files of a zip by name, in order of their names; what editors leave behind is left out."""
    _check_directory(file_name, data)
    found: dict[str, bytes] = {}
    folded: dict[str, str] = {}
    total = 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > 2 * MOST_FILES:
                raise _bad(f"{file_name} has {len(members)} members; at most {MOST_FILES} files are taken")
            for member in members:
                name = _check_name(member)
                if member.is_dir() or _LITTER.search(name):
                    continue
                _check_member(member)
                twin = folded.setdefault(name.casefold(), name)
                if name in found:
                    raise _bad(f"{name!r} is in the zip twice")
                if twin != name:
                    raise _bad(f"{name!r} and {twin!r} are one file on some machines: rename one")
                found[name] = _bounded(archive, member, LARGEST_UNPACKED - total)
                total += len(found[name])
                if len(found) > MOST_FILES:
                    raise _bad(f"{file_name} has more than {MOST_FILES} files")
    except _UNSOUND as error:
        raise _bad(f"{file_name} is no sound zip: {error}") from error
    _check_folders(found)
    if not any(name.endswith(".py") for name in found):
        raise _bad(f"{file_name} holds no Python module")
    return dict(sorted(found.items()))


def top_levels(files: Iterable[str]) -> set[str]:
    """Names by which these files can be imported: of modules, packages and extensions at the top."""
    return {
        parts[0] if len(parts) > 1 else parts[0].partition(".")[0]
        for parts in (PurePosixPath(name).parts for name in files)
        if len(parts) > 1 or parts[0].endswith((".py", ".so", ".pyd"))
    }


def hidden(tops: Iterable[str], more: Iterable[str] = ()) -> list[str]:
    """Those of ``tops`` that would hide modules of Python, of the deck or ``more``."""
    return sorted(set(tops) & (OURS | set(sys.stdlib_module_names) | set(more)))


def _check_tops(files: Mapping[str, bytes]) -> None:
    if wrong := hidden(top_levels(files)):
        raise _bad(
            f"{', '.join(wrong)}: a module of that name belongs to Python or the deck and would be hidden: rename"
        )


def _check_directory(file_name: str, data: bytes) -> None:
    """The directory is read into memory whole, whatever the members' number says: so its size is looked at first."""
    at = data.rfind(_END)
    if at < 0 or at + 22 > len(data) or at + 22 + int.from_bytes(data[at + 20 : at + 22], "little") != len(data):
        raise _bad(f"{file_name} is no sound zip: it does not end as one")
    if data[max(0, at - 20) : at].startswith(_END_64):
        raise _bad(f"{file_name} is a zip64; a strategy is small, write a plain zip")
    size = int.from_bytes(data[at + 12 : at + 16], "little")
    if size > _LARGEST_DIRECTORY:
        raise _bad(f"{file_name} has a directory of {size} bytes; at most {MOST_FILES} files are taken")


def _check_name(member: zipfile.ZipInfo) -> str:
    # `filename` has been cut at a NUL and had backslashes turned; what stands in the zip is `orig_filename`.
    name = member.orig_filename
    shown = repr(name[:80])
    if "\\" in name or "\0" in name or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name):
        raise _bad(f"{shown} has characters that no file name should have")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise _bad(f"{shown} is absolute: names in a zip are relative")
    parts = name.removesuffix("/").split("/")
    if ".." in parts or "." in parts or "" in parts:
        raise _bad(f"{shown} leads out of the zip's own folder, or is no plain path")
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise _bad(f"{shown}… is longer than {LONGEST_NAME} bytes")
    return name


def _check_member(member: zipfile.ZipInfo) -> None:
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no plain file"
        raise _bad(f"{member.filename!r} is {what}: put the file itself into the zip")
    if member.flag_bits & 0x1:
        raise _bad(f"{member.filename!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad(f"{member.filename!r} is compressed by another method than deflate")


def _bounded(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: int) -> bytes:
    parts: list[bytes] = []
    taken = 0
    with archive.open(member) as source:
        while part := source.read(_PART):
            taken += len(part)
            if taken > room:
                raise _bad(
                    f"with {member.filename!r} it unpacks to more than {LARGEST_UNPACKED} bytes: is this a zip bomb?"
                )
            parts.append(part)
    return b"".join(parts)


def _check_folders(files: Mapping[str, bytes]) -> None:
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    for name in files:
        if name in folders:
            raise _bad(f"{name!r} is both a file and a folder")


def _wheel(file_name: str, data: bytes) -> Contents:
    if not re.fullmatch(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.!+]+){4,5}\.whl", file_name):
        raise _bad(f"{file_name!r} is no name of a wheel: name-version-python-abi-platform.whl, as it was built")
    members = unzip(file_name, data)
    if not any(re.fullmatch(r"[^/]+\.dist-info/METADATA", name) for name in members):
        raise _bad(f"{file_name} has no .dist-info/METADATA: it is no wheel")
    files: dict[str, bytes] = {}
    for name, content in members.items():
        # Files of a `.data` folder go beside the code, if they are code; scripts and the like are not installed.
        match = re.fullmatch(r"[^/]+\.data/([^/]+)/(.+)", name)
        if match is None:
            files[name] = content
        elif match[1] in ("purelib", "platlib"):
            files[match[2]] = content
    _check_folders(files)
    _check_tops({name: b"" for name in files if ".dist-info/" not in name})
    return Contents(kind="wheel", files=dict(sorted(files.items())), entry=_named_entry(files))


def _named_entry(files: Mapping[str, bytes]) -> str:
    """``module:Class`` where a wheel's entry points name one under ``quarterdeck.strategies``."""
    for name, content in files.items():
        if re.fullmatch(r"[^/]+\.dist-info/entry_points\.txt", name):
            text = content.decode("utf-8", "replace")
            part = re.search(r"^\[quarterdeck\.strategies\]\s*$(.*?)(?=^\[|\Z)", text, re.M | re.S)
            lines = [line for line in (part[1] if part else "").splitlines() if "=" in line]
            if len(lines) == 1:
                return lines[0].partition("=")[2].strip()
    return ""


def _bad(detail: str) -> BadInput:
    return BadInput("file", detail)
