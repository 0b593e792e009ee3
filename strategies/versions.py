"""Versions of a strategy: what makes two the same, and how two differ.  Pure."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from strategies.archive import MODULE

#: Files with more lines or bytes than this are not compared line by line: that takes their product of time.
_MOST_LINES: Final = 5_000
_MOST_BYTES: Final = 400_000


def version_of(files: Mapping[str, bytes], entry: str = "", requirements: Sequence[str] = ()) -> str:
    """The version that this content is: SHA-256, in hexadecimal.

    Of a lone module without entry or requirements it is the file's own; else of the names and digests of the files, the
    entry and the requirements as they were asked for.  How a zip was packed makes no difference.
    """
    if set(files) == {MODULE} and not entry and not requirements:
        return hashlib.sha256(files[MODULE]).hexdigest()
    digest = hashlib.sha256(b"quarterdeck strategy 1\n")
    # Each piece with its length: no two lists of pieces look alike.
    for piece in _pieces(files, entry, requirements):
        digest.update(b"%d:%b" % (len(piece), piece))
    return digest.hexdigest()


def _pieces(files: Mapping[str, bytes], entry: str, requirements: Sequence[str]) -> Iterator[bytes]:
    yield entry.encode()
    yield b"%d" % len(requirements)
    yield from (each.encode() for each in sorted(requirements))
    for name, content in sorted(files.items()):
        yield name.encode()
        yield hashlib.sha256(content).digest()


def diff(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str:
    """The unified diff from one version's files to another's, "" where they are the same."""
    parts: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            parts += _diff_of(name, old, new)
    return "".join(parts)


def _diff_of(name: str, old: bytes | None, new: bytes | None) -> list[str]:
    from_name = f"a/{name}" if old is not None else "/dev/null"
    to_name = f"b/{name}" if new is not None else "/dev/null"
    texts = [_lines(content) for content in (old, new)]
    if texts[0] is None or texts[1] is None:
        return [f"{from_name} and {to_name} differ: {_size(old)}, then {_size(new)}\n"]
    lines = [*difflib.unified_diff(texts[0], texts[1], from_name, to_name)]
    # An empty file that comes or goes has no line to show.
    lines = lines or [f"--- {from_name}\n", f"+++ {to_name}\n"]
    return [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]


def _lines(content: bytes | None) -> list[str] | None:
    """Its lines; None where it is no text, or too long to compare."""
    if content is None:
        return []
    if b"\0" in content or len(content) > _MOST_BYTES:
        return None
    try:
        # Only at line feeds: other breaks belong to a line's text.
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    whole = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return whole if len(whole) <= _MOST_LINES else None


def _size(content: bytes | None) -> str:
    return "absent" if content is None else f"{len(content)} bytes"
