"""The run that is tortured: a very small model and 64 small videos through the real loader and the real trainer.

torchrun --nproc-per-node 2 -m torture.child '{"videos": "train.jsonl", "folder": "run"}'
"""

import builtins
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # this and the next before the processes fork that would each import them
import transformers.models.bert.modeling_bert  # noqa: F401
from torch import nn

from small import CONFIG
from svilm.data.augment import CutPaste
from svilm.data.language import Language, Tokenizer
from svilm.data.loader import Data, Items, training_batches
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.data.sample import Sampling
from svilm.engine import checkpoint
from svilm.engine.checkpoint import Checkpoints
from svilm.engine.optim import Optim
from svilm.engine.trainer import NonFiniteError, Training, train
from svilm.models.dual import DualEncoder
from svilm.runtime import close_distributed, init_distributed, rank
from svilm.tasks.common import Reader, encode_clips, recall_at_10
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Batch, Terms, VideoFeatures

sys.path.append(str(Path(__file__).parents[1] / "data"))
from make_videos import write_video

CLIPS, BATCH = 64, 8
EPOCH = CLIPS // BATCH
"""Steps of an epoch."""


@dataclass(frozen=True)
class Toy:
    """A run, and what is done to it."""

    videos: str
    """The manifest."""
    folder: str
    seed: int = 0
    steps: int = 3 * EPOCH
    workers: int = 1
    save_every: int = 2
    pause: float = 0.0
    """Seconds that each batch takes longer."""
    kill_at: int | None = None
    """Number of the call into the file system, from the third save on, before which the process kills itself."""
    poison: str = ""
    """What becomes NaN at step 5 of the last rank: input, loss or gradient."""

    @property
    def data(self) -> Data:
        """How the videos are read; pasting pairs stay together for any number of ranks."""
        return Data(
            manifest=self.videos,
            batch=BATCH,
            workers=self.workers,
            flip=0.5,
            skip_budget=1.0,
            sampling=Sampling(num_frames=8, size=16),
            language=Language(max_length=12),
            paste=CutPaste(block=2),
        )


POISONED_STEP = 5


def make_videos(folder: Path, seed: int, nouns: bool = True, frames: int = 10) -> Path:
    """Write the videos and their manifest."""
    folder.mkdir()
    rng = random.Random(f"videos {seed}")
    entries = []
    for number in range(CLIPS):
        size = rng.choice((32, 40, 48))
        write_video(folder / f"{number}.mp4", frames, width=size, height=32, gop=rng.choice((1, 5, 12)))
        captions = tuple(f"a {rng.choice(('red', 'blue'))} number {number} to the {side}" for side in ("left", "top"))
        entries.append(Entry(f"clip {number}", f"{number}.mp4", captions, (("number",) if nouns else (),) * 2))
    path = folder / "train.jsonl"
    write_manifest(path, Header("toy", str(folder), CLIPS), entries)
    return path


def parts_of(toy: Toy) -> tuple[Items, Tokenizer]:
    """What the loader needs."""
    manifest = Manifest(toy.videos)
    return Items(manifest), Tokenizer.train((text for entry in manifest for text in entry.captions), 120)


def make_model(tokenizer: Tokenizer, seed: int) -> DualEncoder:
    """The encoders with weights from the seed."""
    torch.manual_seed(seed)
    text = CONFIG.text.model_copy(update={"vocabulary": len(tokenizer)})
    return DualEncoder(CONFIG.model_copy(update={"text": text}))


def run_toy(toy: Toy) -> nn.Module:
    """Train from the last checkpoint to the end; ``trace0.jsonl`` tells what each step was given."""
    torch.set_num_threads(1)
    init_distributed(torch.device("cpu"), timeout_minutes=1 / 3)
    folder = Path(toy.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"pid{rank()}").write_text(str(os.getpid()))
    items, tokenizer = parts_of(toy)
    model = make_model(tokenizer, toy.seed)
    last_rank = rank() == int(os.environ.get("WORLD_SIZE", "1")) - 1
    task = Poisoned(toy.poison if last_rank else "", model)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        stream = iter(training_batches(items, toy.data, tokenizer, seed=toy.seed, start=start, stop=stop))
        append(folder / f"trace{rank()}.jsonl", {"start": start})
        for step in range(start, stop):
            time.sleep(toy.pause)
            batch = next(stream)
            pixels = hashlib.sha256(batch.video.numpy().tobytes()).hexdigest()[:16]
            row = {"step": step, "ids": batch.ids, "pixels": pixels, "captions": batch.captions}
            append(folder / f"trace{rank()}.jsonl", {**row, "skipped": dict(batch.skipped)})
            if toy.poison and step == POISONED_STEP:
                append(folder / f"before{rank()}.jsonl", {"weights": digest(model.state_dict())})
            task.step = step
            yield batch

    if toy.kill_at is not None:
        die_while_saving(toy.kill_at, 3 * toy.save_every, folder / "calls.jsonl")
    try:
        return train(
            model,
            task,
            batches,
            training=Training(steps=toy.steps, log_every=1, save_every=toy.save_every),
            optim=Optim(optimizer="adamw", lr=1e-2),
            steps=toy.steps,
            seed=toy.seed,
            device=torch.device("cpu"),
            folder=folder,
            skip_budget=toy.data.skip_budget,
        )
    except NonFiniteError as error:
        append(folder / f"after{rank()}.jsonl", {"weights": digest(model.state_dict()), "message": str(error)})
        raise
    finally:
        close_distributed()


class Poisoned(PretrainTask):
    """Pre-training in which something is not a number at one step."""

    def __init__(self, poison: str, model: DualEncoder) -> None:
        super().__init__(Pretrain())
        self.step, self.poison = 0, poison
        model.video_projection.weight.register_hook(lambda gradient: gradient * self.factor("gradient"))

    def factor(self, place: str) -> float:
        """1, or NaN where and when it is to be."""
        return float("nan") if (self.poison, self.step) == (place, POISONED_STEP) else 1.0

    def features(self, model: DualEncoder, batch: Batch) -> Any:
        """As ever, but for the input."""
        return {
            name: value * self.factor("input") if value.is_floating_point() else value
            for name, value in super().features(model, batch).items()
        }

    def loss(self, model: DualEncoder, features: Any, batch: Batch) -> Terms:
        """As ever, but for the sum."""
        terms = super().loss(model, features, batch)
        return Terms(terms.total * self.factor("loss"), terms.losses, terms.watched)


def append(path: Path, row: Any) -> None:
    """Add a line to a file; it is there whatever happens to the process next."""
    with open(path, "ab", buffering=0) as file:
        file.write(json.dumps(row).encode() + b"\n")


def digest(value: Any) -> str:
    """A hash of tensors and plain values in dicts and lists."""
    return hashlib.sha256(b"".join(_bytes(value))).hexdigest()


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield str(key).encode()
            yield from _bytes(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _bytes(item)
    elif isinstance(value, torch.Tensor):
        yield str(value.dtype).encode() + value.detach().contiguous().numpy().tobytes()
    else:
        yield repr(value).encode()


def die_while_saving(number: int, step: int, calls: Path) -> None:
    """Note every call into the file system while the checkpoint of ``step`` is saved, and die before one of them.

    A write is two calls: before the first nothing is there, before the second half of it.
    """
    count, saving, whole = 0, False, Checkpoints.save

    def reached(name: str) -> None:
        nonlocal count
        if saving:
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            append(calls, name)
            count += 1

    def watched(place: Any, name: str) -> None:
        function = getattr(place, name)

        def call(*arguments: Any, **named: Any) -> Any:
            reached(name)
            return function(*arguments, **named)

        setattr(place, name, call)

    def save(self: Checkpoints, at: int, *arguments: Any) -> Path:
        nonlocal saving
        saving = at == step
        try:
            return whole(self, at, *arguments)
        finally:
            saving = False

    for name in ("mkdir", "fsync", "rename", "unlink", "rmdir"):
        watched(os, name)
    checkpoint.open = lambda file, mode: Halving(file, mode, reached)  # type: ignore[attr-defined]
    Checkpoints.save = save  # type: ignore[method-assign]


class Halving:
    """A file that writes in two halves."""

    def __init__(self, file: Path, mode: str, reached: Any) -> None:
        self.reached, self.name = reached, file.name
        reached(f"open {self.name}")
        self.file = builtins.open(file, mode)  # noqa: SIM115

    def write(self, data: Any) -> None:
        """Write, in two calls."""
        half = len(data) // 2
        self.file.write(data[:half])
        self.file.flush()
        self.reached(f"write {self.name}")
        self.file.write(data[half:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Halving":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def in_a_process_of_its_own(toy: Toy, environment: Mapping[str, str]) -> None:
    """``run_toy`` as leader of a group, with what it says in the run's log."""
    os.setsid()
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # or the workers would be started as this process was
    folder = Path(toy.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    run_toy(toy)


def score_in_a_process_of_its_own(toy: Toy, environment: Mapping[str, str]) -> None:
    """Encode the manifest with weights from the seed, and write the vectors and a score of them."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    init_distributed(torch.device("cpu"), timeout_minutes=1)
    items, tokenizer = parts_of(toy)
    model, reader = make_model(tokenizer, toy.seed), Reader(tokenizer, toy.data.sampling, toy.data.language, batch=4)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        vectors = encode_clips(model, items.manifest, reader, _vector, "encoding")
        score = recall_at_10(model, items.manifest, reader)
    Path(toy.folder).mkdir(exist_ok=True)
    append(Path(toy.folder) / f"scores{rank()}.jsonl", {"vectors": vectors, "score": score})
    close_distributed()


def _vector(clip: Any, features: VideoFeatures, row: int) -> Any:
    return features.embedding[row].tolist()


if __name__ == "__main__":
    run_toy(Toy(**json.loads(sys.argv[1])))
