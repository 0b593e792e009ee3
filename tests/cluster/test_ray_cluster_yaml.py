"""``ray-cluster.yaml`` is what Ray's launcher takes, and says the flags that the code says."""

from __future__ import annotations

import yaml

from cluster.settings import RAY_FLAGS
from cluster.specs import NODE_LABEL
from tests.support.data import ROOT


def test_the_launcher_takes_it() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "ray-cluster.yaml").read_text())
    validate_config(prepare_config(config))


def test_workers_get_every_flag_and_the_label() -> None:
    config = yaml.safe_load((ROOT / "ray-cluster.yaml").read_text())
    command = " ".join(config["worker_start_ray_commands"])
    for flag, value in RAY_FLAGS.items():
        assert f"{flag}={value}" in command, flag
    assert f'--labels="{NODE_LABEL}=' in command
