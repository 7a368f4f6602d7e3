import json
import pickle
import shutil

import pytest
import torch

from svilm.engine.checkpoint import CheckpointError, Checkpoints, load_state, load_weights, verify


def save(checkpoints, step, value=None):
    weight = {"w": torch.full((3,), float(step if value is None else value))}
    return checkpoints.save(step, {"model": weight}, {"step": step, "optimizer": {"m": torch.ones(2)}})


def test_round_trip(tmp_path):
    folder = save(Checkpoints(tmp_path), 7)
    assert verify(folder) == 7
    assert load_weights(folder, "model")["w"].tolist() == [7.0, 7.0, 7.0]
    assert load_state(folder)["step"] == 7


def test_the_newest_two_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 10):
        save(checkpoints, step)
    assert [p.name for p in checkpoints.committed()] == ["step_00000002", "step_00000010"]
    assert checkpoints.latest().name == "step_00000010"


def test_steps_after_the_start_are_forgotten(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 10):
        save(checkpoints, step)
    checkpoints.forget_after(2)
    assert [path.name for path in checkpoints.committed()] == ["step_00000001", "step_00000002"]
    checkpoints.forget_after(0)
    assert checkpoints.latest() is None and not list(tmp_path.iterdir())
    Checkpoints(tmp_path / "nothing").forget_after(0)


def test_none_yet(tmp_path):
    assert Checkpoints(tmp_path / "nothing").latest() is None


@pytest.mark.parametrize("file", ["model.safetensors", "training.pt", "COMMIT.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, file, damage):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    target = save(checkpoints, 2) / file
    data = bytearray(target.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
    elif damage == "cut":
        target.write_bytes(data[: len(data) // 2])
    else:
        target.unlink()
    if file == "COMMIT.json" and damage == "remove":
        assert checkpoints.latest().name == "step_00000001"
        return
    with pytest.warns(UserWarning, match="step_00000002"):
        assert checkpoints.latest().name == "step_00000001"


def test_a_half_written_folder_is_never_used(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    first = save(checkpoints, 1)
    shutil.copytree(first, tmp_path / "step_00000002.part")
    assert checkpoints.latest() == first


def test_a_failed_save_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svilm.engine.checkpoint._write", full)
    with pytest.raises(OSError, match="No space"):
        save(checkpoints, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000001"]
    assert verify(checkpoints.latest()) == 1


class Canary:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_code_in_the_training_state_is_refused(tmp_path):
    folder = save(Checkpoints(tmp_path), 1)
    (folder / "training.pt").write_bytes(pickle.dumps(Canary(), protocol=2))
    with pytest.raises(CheckpointError, match=r"training\.pt.*holds code, which is never run"):
        load_state(folder)


def test_commit_cannot_point_out_of_its_folder(tmp_path):
    folder = save(Checkpoints(tmp_path), 1)
    (folder / "COMMIT.json").write_text(json.dumps({"step": 1, "sha256": {"../../secret": "0"}}))
    with pytest.raises(CheckpointError, match="secret"):
        verify(folder)
