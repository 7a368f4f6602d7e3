"""Checkpoints that are whole or absent.

A checkpoint is a new folder: weights (safetensors), training state, then a COMMIT.json with the hash of every
file, all flushed to disk, then renamed into place.  Only committed, undamaged folders are ever loaded.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_COMMIT = "COMMIT.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing or damaged; the message names folder and file."""


class Checkpoints:
    """The checkpoints of a run, newest last; the newest ``keep`` (at least 2) stay on disk."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, max(2, keep)

    def save(self, step: int, weights: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of ``step``: named sets of weights, and training state of tensors and plain values.

        Older ones go only after the new one is committed.  Raises OSError when the disk is full, in which case
        nothing that was there before has changed.
        """
        final = self.folder / f"step_{step:08d}"
        if final.exists():
            return final
        part = final.with_name(final.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for name, tensors in weights.items():
                save_file(
                    {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
                    part / f"{name}.safetensors",
                )
            torch.save(dict(state), part / "training.pt")
            hashes = {file.name: _sha256(file) for file in sorted(part.iterdir())}
            (part / _COMMIT).write_text(json.dumps({"step": step, "sha256": hashes}, indent=1) + "\n")
            for file in part.iterdir():
                _flush(file)
            os.rename(part, final)
            _flush(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in self.committed()[: -self.keep]:
            shutil.rmtree(old)
        return final

    def committed(self) -> list[Path]:
        """Folders with a commit file, oldest first."""
        return sorted(p.parent for p in self.folder.glob(f"step_*/{_COMMIT}") if p.parent.suffix != ".part")

    def latest(self) -> Path | None:
        """The newest undamaged checkpoint, or None.  A damaged one is passed over with a warning that names it."""
        for folder in reversed(self.committed()):
            try:
                verify(folder)
                return folder
            except CheckpointError as error:
                warnings.warn(f"{error}; using the checkpoint before it", stacklevel=2)
        return None


def verify(folder: Path) -> int:
    """Check every file of a checkpoint against its hash and return its step.

    Raises CheckpointError naming the file that is missing or differs.
    """
    try:
        commit = json.loads((folder / _COMMIT).read_text())
        step, hashes = int(commit["step"]), dict(commit["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / _COMMIT} is not readable ({error})") from None
    for name, wanted in hashes.items():
        file = folder / Path(name).name
        if not file.is_file() or _sha256(file) != wanted:
            raise CheckpointError(f"{file} is missing or damaged")
    return step


def load_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """One named set of weights of a checkpoint."""
    return load_file(folder / f"{name}.safetensors")


def load_state(folder: Path) -> dict[str, Any]:
    """The training state of a checkpoint; only tensors and plain values are accepted, never code."""
    state: dict[str, Any] = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
    return state


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
