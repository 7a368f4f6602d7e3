"""Checkpoints that are whole or absent.

A checkpoint is a new folder: weights (safetensors), training state, then a COMMIT.json with the hash of every
file, all flushed to disk, then renamed into place.  Only committed, undamaged folders are ever loaded.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor

from svilm.models.published import load_plain

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
        final = self._folder_of(step)
        if final.exists():
            with suppress(CheckpointError):
                verify(final)
                return final
            _remove(final)
        self.folder.mkdir(parents=True, exist_ok=True)
        for rest in self.folder.glob("*.part"):  # of a process that was killed
            shutil.rmtree(rest, ignore_errors=True)
        part = final.with_name(final.name + ".part")
        part.mkdir()
        try:
            hashes = {}
            for name, tensors in weights.items():
                data = serialized({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
                hashes[f"{name}.safetensors"] = _write(part / f"{name}.safetensors", data)
            stream = io.BytesIO()
            torch.save(dict(state), stream)
            hashes["training.pt"] = _write(part / "training.pt", stream.getbuffer())
            _write(part / _COMMIT, _commit(step, hashes).encode())
            _flush(part)
            os.rename(part, final)
            _flush(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in self.committed()[: -self.keep]:
            _remove(old)
        return final

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, which a run that goes on from ``step`` takes again."""
        for folder in self.committed():
            if folder > self._folder_of(step):
                _remove(folder)

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

    def _folder_of(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"


def verify(folder: Path) -> int:
    """Check every file of a checkpoint against its hash and return its step.

    Raises CheckpointError naming the file that is missing or differs.
    """
    try:
        text = (folder / _COMMIT).read_bytes()
        commit = json.loads(text)
        step, hashes = int(commit["step"]), dict(commit["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / _COMMIT} is not readable ({error})") from None
    for name, wanted in hashes.items():
        file = folder / Path(name).name
        if not file.is_file() or _sha256(file) != wanted:
            raise CheckpointError(f"{file} is missing or damaged")
    if text != _commit(step, hashes).encode() or folder.name != f"step_{step:08d}":
        raise CheckpointError(f"{folder / _COMMIT} is damaged")
    return step


def load_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """One named set of weights of a checkpoint.  Raises CheckpointError for a file that is none."""
    file = folder / f"{name}.safetensors"
    try:
        return load_file(file)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file} holds no weights ({error})") from None


def load_state(folder: Path) -> dict[str, Any]:
    """The training state of a checkpoint; only tensors and plain values are accepted, never code.

    Raises CheckpointError for a file that holds anything else.
    """
    file = folder / "training.pt"
    try:
        state: dict[str, Any] = load_plain(file)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{file} is no training state, or holds code, which is never run ({reason})") from None
    return state


def _commit(step: int, hashes: Mapping[str, str]) -> str:
    """The commit file; every byte of it follows from what it says, so that any damage to it shows."""
    return json.dumps({"step": step, "sha256": hashes}, indent=1) + "\n"


def _write(file: Path, data: bytes | memoryview) -> str:
    """Write a file through to the disk and return the hash of what should be in it.

    The writers of torch and safetensors report a full disk as errors of their own; this one raises OSError.
    """
    with open(file, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(data).hexdigest()


def _remove(folder: Path) -> None:
    """Delete a checkpoint; from the first moment it no longer counts as one."""
    part = folder.with_name(folder.name + ".part")
    os.rename(folder, part)
    shutil.rmtree(part, ignore_errors=True)


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
