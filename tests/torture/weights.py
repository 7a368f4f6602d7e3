"""What becomes of files of weights and checkpoints that somebody made to do harm."""

import io
import json
import pickle
import random
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from svilm.data.sandbox import Death, Limits, each
from svilm.engine.checkpoint import CheckpointError, load_state, load_weights
from svilm.models.published import WeightsError, read_tensors
from torture.corpus import peak_megabytes
from torture.frame import Check, Outcome, Plan, first

SECONDS, MEGABYTES = 1.0, 256
"""What it may take to refuse one."""
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": ("model.safetensors", lambda folder: load_weights(folder, "model")),
    "training state": ("training.pt", load_state),
    "safetensors": ("model.safetensors", read_tensors),
    "bin": ("pytorch_model.bin", read_tensors),
}
"""What a file may be taken for: its name there, and who reads the folder."""


def malicious_weights(plan: Plan) -> Outcome:
    """Files that run code, or claim more than they hold, are refused by every reader, fast and in little room."""
    canary, tasks = plan.folder / "canary", []
    for name, content in (*_pickles(canary), *_safetensors(random.Random(f"weights {plan.seed}"))):
        for reader, (file, _) in READERS.items():
            if name == "not finite" and reader == "checkpoint":
                continue  # what a run saved itself is read as it was
            folder = plan.folder / name / reader
            folder.mkdir(parents=True)
            (folder / file).write_bytes(content)
            tasks.append((str(folder), reader))
    slowest, largest, problems, refused = 0.0, 0, list[str](), 0
    for (folder, reader), result in each(refusal_of, tasks, workers=1, limits=lambda _: Limits(20.0, 4096)):
        what = f"{Path(folder).parent.name} as {reader}"
        if isinstance(result, Death):
            problems.append(f"{what}: {result.message}")
            continue
        why, seconds, megabytes = result
        refused += bool(why)
        slowest, largest = max(slowest, seconds), max(largest, megabytes)
        problems += [] if why else [f"{what}: was read"]
        problems += [] if seconds < SECONDS else [f"{what}: {seconds:.1f} s to refuse it"]
        problems += [] if megabytes < MEGABYTES else [f"{what}: {megabytes} MB to refuse it"]
    problems += ["code was run"] if canary.exists() else []
    words = f"{refused} of {len(tasks)} attempts refused, the slowest in {slowest:.2f} s of processor time"
    return Outcome(f"{words}, with at most {largest} MB; no code was run", first(problems))


CHECKS: tuple[Check, ...] = (malicious_weights,)


def refusal_of(task: tuple[str, str]) -> tuple[str, float, int]:
    """Read a folder: why it is refused (nothing where it is not), seconds of processor time, megabytes gained."""
    folder, reader = task
    begun, before = time.process_time(), peak_megabytes()
    why = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[reader][1](Path(folder))
    except (CheckpointError, WeightsError) as error:
        why = str(error)
    return why, time.process_time() - begun, peak_megabytes() - before


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.folder,)


def _pickles(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Files that would run code, and one that would fill the memory."""
    bad = {"weight": torch.ones(2), "state": {"more": Canary(canary)}}
    yield "pickle", pickle.dumps(bad["state"], protocol=2)
    for name, form in (("torch", True), ("torch of old", False)):
        stream = io.BytesIO()
        torch.save(bad, stream, _use_new_zipfile_serialization=form)
        yield name, stream.getvalue()
    stream, bomb = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(1 << 28, dtype=torch.uint8)}, stream)
    with zipfile.ZipFile(stream) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in whole.infolist():
            packed.writestr(part.filename, whole.read(part))
    yield "bomb", bomb.getvalue()
    yield "zip of nothing", b"PK\x05\x06" + bytes(18)
    yield "empty", b""


def _safetensors(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Files whose headers are not true."""
    good = save({"a": torch.ones(4), "b": torch.ones(4)})
    length = struct.unpack("<Q", good[:8])[0]
    header, body = json.loads(good[8 : 8 + length]), good[8 + length :]

    def packed(header: Any, body: bytes = body) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    def changed(**fields: Any) -> bytes:
        return packed({**header, "b": {**header["b"], **fields}})

    yield "header of 2^63 bytes", struct.pack("<Q", 1 << 63) + good[8:]
    yield "header of 100 MB", struct.pack("<Q", 100_000_000) + good[8:]
    yield "overlap", changed(data_offsets=header["a"]["data_offsets"])
    yield "hole", packed({"a": header["a"], "b": {**header["b"], "data_offsets": [20, 36]}}, body + bytes(4))
    yield "more at the end", packed(header, body + rng.randbytes(8))
    yield "cut short", good[: -rng.randint(1, 8)]
    yield "shape too large", changed(shape=[1 << 40, 1 << 40])
    yield "shape overflows", changed(shape=[1 << 63, 2])
    yield "another shape", changed(shape=[5])
    yield "no such type", changed(dtype="F31")
    yield "key twice", packed(json.dumps(header).encode()[:-1] + b', "b": ' + json.dumps(header["a"]).encode() + b"}")
    yield "deep", packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    many = {f"t{n}": {"dtype": "F32", "shape": [1 << 20], "data_offsets": [0, 4 << 20]} for n in range(100_000)}
    yield "a hundred thousand tensors", packed(many)
    yield "not finite", save({"a": torch.from_numpy(np.full(4, np.nan, np.float32))})
