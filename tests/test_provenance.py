"""Where a number comes from."""

import subprocess

import torch

import svilm
from svilm.provenance import environment


def test_versions_hardware_and_time_are_named():
    found = environment()
    assert found["svilm"] == svilm.__version__ and found["torch"] == torch.__version__
    assert found["cpus"] >= 1 and found["gpus"] == [torch.cuda.get_device_name(i) for i in range(len(found["gpus"]))]
    assert found["command"].startswith("svilm") and found["ranks"] == 1


def test_without_git_the_commit_is_unknown(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert environment()["commit"] == "unknown"
