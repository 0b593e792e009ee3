"""Ray's launcher takes both of our configurations, and what they have machines run is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cluster.commands import app
from cluster.joining import version
from tests.support.data import ROOT

FILES = [ROOT / "ray-cluster.yaml", ROOT / "ray-cluster-local.yaml"]
START = ("head_start_ray_commands", "worker_start_ray_commands")


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict)
    return found


def prepared(path: Path) -> dict[str, Any]:
    """As `ray up` and the monitor on the head read it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(path))
    validate_config(config)
    return dict(config)


def ours(commands: list[str]) -> list[list[str]]:
    """The words of each call of our command in shell commands."""
    calls = [shlex.split(part) for command in commands for part in command.split(";")]
    return [words for words in calls if words[:1] == ["quarterdeck"]]


def check(words: list[str]) -> None:
    """Whether the command line takes these words."""
    name, *rest = words[1:]
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, rest)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_launcher_takes_it(path: Path) -> None:
    config = prepared(path)
    types = config["available_node_types"]
    workers = sum(each["min_workers"] for each in types.values())
    assert workers >= 2
    assert types[config["head_node_type"]]["max_workers"] == (0 if path.name == "ray-cluster.yaml" else 2)
    # Ray counts machines that only algos use as idle for ever.
    assert config["idle_timeout_minutes"] >= 365 * 24 * 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_command_is_one_of_ours_and_may_be_run_again(path: Path) -> None:
    config = prepared(path)
    (up,), (join,) = (ours(config[key]) for key in START)
    check(up)
    check(join)
    assert (up[1], join[1]) == ("up", "join")
    # Ray's own defaults begin with `ray stop`, which would end every algo.
    assert "--unless-up" in up
    assert "--detach" in join
    for key in START:
        assert "ray stop" not in " ".join(config[key])
    # The same file: written by the head's command, handed on, read by the worker's.
    (synced,) = config["cluster_synced_files"]
    assert up[up.index("--pool-token") + 1] == join[join.index("--token-file") + 1] == synced
    assert f"http://$RAY_HEAD_IP:{up[up.index('--port') + 1]}" in join
    assert "--autoscaling-config" in up


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_version_is_pinned_to_this_one(path: Path) -> None:
    installed = [command for command in load(path)["setup_commands"] if "pip install" in command]
    assert len(installed) == 1
    assert f"'quarterdeck=={version()}'" in installed[0]


def test_aws_workers_are_told_apart_by_what_their_instance_is_called() -> None:
    config = prepared(FILES[0])
    (join,) = ours(config["worker_start_ray_commands"])
    assert join[join.index("--name") + 1] == "$RAY_CLOUD_INSTANCE_ID"
    assert join[join.index("--label") + 1] == "cloud=aws"
    assert config["provider"]["cache_stopped_nodes"] is True
    head = config["available_node_types"]["head"]["node_config"]
    assert head["IamInstanceProfile"]["Name"] == "quarterdeck-head"
    assert [disk["Ebs"]["DeleteOnTermination"] for disk in head["BlockDeviceMappings"]] == [False]
    for kind in config["available_node_types"].values():
        assert all(disk["Ebs"]["Encrypted"] for disk in kind["node_config"]["BlockDeviceMappings"])


def test_a_word_that_our_command_line_does_not_know_is_seen() -> None:
    with pytest.raises(Exception, match="--pool-tokens"):
        check(["quarterdeck", "up", "--pool-tokens", "x"])
    with pytest.raises(KeyError):
        check(["quarterdeck", "upp"])
