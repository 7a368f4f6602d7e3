"""What a run must survive beside the checks of `make torture`; and files that would run code, which never do."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import svilm
from svilm.engine.checkpoint import CheckpointError, Checkpoints, load_state, load_weights
from svilm.engine.logbook import Logbook, read_metrics
from svilm.models.published import WeightsError, read_tensors

SOURCES = Path(svilm.__file__).parent


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.folder,)


def write_malicious(path: Path, canary: Path, kind: str) -> None:
    """A file that makes the folder ``canary`` when somebody unpickles it."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Canary(canary), protocol=2))
    else:
        torch.save(
            {"weight": torch.ones(2), "more": Canary(canary)}, path, _use_new_zipfile_serialization=kind == "zip"
        )


@pytest.mark.parametrize("kind", ["pickle", "zip", "old"])
def test_code_in_files_of_weights_is_never_run(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    folder = Checkpoints(tmp_path / "run").save(1, {"model": {"w": torch.ones(1)}}, {"step": 1})
    write_malicious(folder / "training.pt", canary, kind)
    write_malicious(folder / "model.safetensors", canary, kind)
    with pytest.raises(CheckpointError, match=r"training\.pt is no training state, or holds code"):
        load_state(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds no weights"):
        load_weights(folder, "model")
    for name in ("pytorch_model.bin", "model.safetensors"):
        write_malicious(tmp_path / name, canary, kind)
        with pytest.raises(WeightsError, match=name):
            read_tensors(tmp_path)
    assert not canary.exists()
    with pytest.raises(TypeError):  # the canary does sing where it is let
        write_malicious(tmp_path / "x", canary, "pickle")
        pickle.loads((tmp_path / "x").read_bytes())
        raise TypeError
    assert canary.exists()


def test_nothing_in_the_sources_unpickles_freely() -> None:
    for path in SOURCES.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|pickle\.loads?\(|trust_remote", text), (
            path
        )
        for call in re.findall(r"torch\.load\(.*", text):
            assert "weights_only=True" in call, path


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        folder = checkpoints.save(step, {"model": {"w": torch.ones(1)}}, {"step": step})
    (folder / "training.pt").write_bytes(b"")
    assert checkpoints.save(2, {"model": {"w": torch.ones(1)}}, {"step": 2}) == folder
    assert checkpoints.latest() == folder


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "step_00000007.part").mkdir()
    Checkpoints(tmp_path).save(8, {"model": {"w": torch.ones(1)}}, {"step": 8})
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000008"]


def test_lines_of_the_logbook_wait_for_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("svilm.engine.logbook._tensorboard", lambda folder: None)  # its thread has limits of its own
    with Logbook(tmp_path, start=0, steps=3) as book:
        book.log(1, {"loss/total": 1.0})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size + 9, hard))
        try:
            with pytest.warns(UserWarning, match=r"metrics\.jsonl: .*; training goes on"):
                book.log(2, {"loss/total": 2.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
        book.log(3, {"loss/total": 3.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
