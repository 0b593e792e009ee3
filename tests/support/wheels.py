"""Small wheels and zips for tests, and an index that has the wheels and nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """A zip of these files, the same bytes each time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def wheel(
    name: str, version: str, modules: Mapping[str, str], requires: Sequence[str] = (), entry: str = ""
) -> tuple[str, bytes]:
    """File name and bytes of a wheel (PEP 427) of these modules; ``entry``: a strategy that it names."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = dict(modules)
    files[f"{info}/METADATA"] = metadata + "".join(f"Requires-Dist: {each}\n" for each in requires)
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry:
        files[f"{info}/entry_points.txt"] = f"[quarterdeck.strategies]\n{name} = {entry}\n"
    lines = [f"{each},{_digest(content)},{len(content.encode())}\n" for each, content in files.items()]
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    return f"{name}-{version}-py3-none-any.whl", packed(files)


def index(folder: Path, *wheels: tuple[str, bytes]) -> dict[str, str]:
    """Put wheels into a folder; the environment in which pip sees these and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in wheels:
        (folder / name).write_bytes(content)
    return {"PIP_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1"}


def _digest(content: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
