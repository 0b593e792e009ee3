"""Which code a machine runs: the digest changes with the code and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.code_version import HOME, ROOMS, CodeVersion, installed, version


def test_the_digest_is_of_the_code(tmp_path: Path) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
    path = tmp_path / "trading" / "orders.py"
    path.write_text("x = 1\n")
    code = CodeVersion(tmp_path)
    first = code.now()
    assert first.startswith(f"{version()}+")
    os.utime(path, (1, 1))
    assert code.now() == first
    (tmp_path / "trading" / "notes.txt").write_text("not code")
    assert code.now() == first
    # What the panel is built with is no code of a process of ours, and no wheel has it.
    (tmp_path / "api" / "panel" / "node_modules" / "gyp").mkdir(parents=True)
    (tmp_path / "api" / "panel" / "node_modules" / "gyp" / "build.py").write_text("x = 1\n")
    assert code.now() == first
    path.write_text("x = 2\n")
    changed = code.now()
    assert changed != first
    # The same text in another file is other code.
    path.rename(tmp_path / "cluster" / "orders.py")
    assert code.now() not in (first, changed)
    (tmp_path / "cluster" / "orders.py").rename(path)
    path.write_text("x = 1\n")
    assert code.now() == first == CodeVersion(tmp_path).now()


def test_ours_is_found() -> None:
    assert CodeVersion().now() == CodeVersion(HOME).now()
    assert installed(["quarterdeck", "there-is-no-such-package"]) == {"quarterdeck": version()}
