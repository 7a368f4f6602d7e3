"""What the subjects work on: clips to read, and runs of the two sizes by which training is judged."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from svilm.bench.frame import CPU
from svilm.data.augment import sample_paste
from svilm.data.language import Tokenizer
from svilm.data.loader import Items, training_batches
from svilm.data.manifest import Manifest
from svilm.engine.optim import build_optimizer
from svilm.engine.task import Context, Job, Task
from svilm.engine.trainer import Training, backward, gradient_norm
from svilm.entries import Entry
from svilm.models.dual import DualEncoder
from svilm.recipes import recipe
from svilm.run import Run
from svilm.runtime import all_reduce_gradients, seed_everything
from svilm.start import Start, fitted, initial_encoder
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Batch

FILM_RATE = 30
"""Frames a second of what `film` writes."""


def film(path: Path, width: int, height: int, gop: int, seconds: int, grain: float = 4.0) -> Path:
    """Write a clip with a moving background, a thing that crosses it, and ``grain``, a deviation of so many levels."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(40, 216, (height // 16 + 1, width // 8 + 2, 3)), np.ones((16, 16, 1)))
    with av.open(str(path), "w") as out:
        options = {"g": str(gop), "preset": "veryfast", "x264-params": "threads=1"}
        stream: Any = out.add_stream("libx264", rate=FILM_RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        noise = rng.normal(0, grain, (height + 16, width + 16, 1))
        for number in range(seconds * FILM_RATE):
            left, at = int(width * number / seconds / FILM_RATE), (number * 7 % 16, number * 5 % 16)
            picture = scene[:height, left : left + width] + noise[at[0] :, at[1] :][:height, :width]
            picture[height // 4 : height // 2, 3 * number % width :][:, : width // 8] = (number % 256, 80, 200)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@dataclass(frozen=True)
class Material:
    """A run that can be executed part by part, with its clips on disk."""

    run: Run
    """The recipe, with as many word pieces as the captions have."""
    manifest: Manifest
    tokenizer: Tokenizer
    folder: Path
    """Where the run may write."""

    def job(self, device: torch.device) -> Job:
        """The model on ``device`` and the task, as `svilm.run` puts them together."""
        context = Context(
            self.folder,
            self.run.seed,
            device,
            self.run.data,
            lambda: initial_encoder(self.run.model, self.run.start, self.run.seed).to(device),
            lambda: self.tokenizer,
            self.run.optim,
        )
        return self.run.task.job(context)

    def batches(self, count: int) -> list[Batch]:
        """The first batches of training, read in this process."""
        data = self.run.data.model_copy(update={"workers": 0})
        items = Items(self.manifest, data.captions)
        return list(training_batches(items, data, self.tokenizer, seed=self.run.seed, start=0, stop=count))


@contextmanager
def material(name: str, clips: int, batch: int) -> Iterator[Material]:
    """The recipe called ``name`` on ``clips`` clips of a drawn world, in batches of ``batch``; gone afterwards.

    Clips of `tiny` are those of the demo.  For larger frames the world is drawn at 256 pixels, with 10 s of 8 frames
    a second.  Nothing is read from the hub: the run starts from random weights.
    """
    from svilm.data.prepare import videocc
    from svilm.data.prepare.common import prepare
    from svilm.data.world import draw_world

    run = recipe(name)
    size, frames = (64, 16) if run.data.sampling.size <= 64 else (256, 80)
    with TemporaryDirectory() as place:
        world = Path(place) / "world"
        draw_world(world, clips=clips, test_clips=1, untrimmed=0, workers=1, size=size, frames=frames)
        file = Path(place) / "train.jsonl"
        prepare(videocc.listing(world / "videocc" / "video_cc_public.csv"), to=file, videos=world / "videos")
        manifest = Manifest(file)
        tokenizer = Tokenizer.train((caption for entry in manifest for caption in entry.captions), 2048)
        data = run.data.model_copy(update={"manifest": str(file), "batch": batch})
        model = fitted(run.model, Start(), len(tokenizer))
        run = run.model_copy(update={"data": data, "start": Start(), "model": model, "device": "cpu"})
        yield Material(run, manifest, tokenizer, Path(place) / "run")


def noise_batch(run: Run, clips: int, seed: int = 0) -> Batch:
    """A batch of the shape that ``run`` trains on, of random pixels and word pieces: for what only costs time.

    Captions have 16 word pieces and noun prompts 8, one in four of them a repetition.
    """
    s, language = run.data.sampling, run.data.language
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    captions, nouns = clips, max(1, 3 * clips * language.nouns // 4)
    lengths = torch.tensor([16] * captions + [8] * nouns).clamp(max=language.max_length)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(1, run.model.text.vocabulary, mask.shape, generator=generator) * mask
    names = [f"clip{number}" for number in range(clips)]
    return Batch(
        entries=tuple(Entry(name, f"{name}.mp4", (name,), ((name,),)) for name in names),
        captions=tuple(names),
        nouns=tuple((name,) for name in names),
        video=torch.randint(0, 256, (clips, s.num_frames, s.size, s.size, 3), generator=generator, dtype=torch.uint8),
        seconds=torch.arange(float(s.num_frames)).expand(clips, -1),
        view=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(clips, -1),
        text_ids=ids,
        text_mask=mask,
        caption_index=torch.arange(clips),
        noun_index=torch.randint(captions, captions + nouns, (clips, language.nouns), generator=generator),
        noun_mask=torch.ones(clips, language.nouns, dtype=torch.bool),
        paste=sample_paste(clips, s.num_frames // run.data.paste.clip_window, run.data.paste, rng),
    )


@dataclass(frozen=True)
class Step:
    """A whole training step on one batch, ready to be taken again and again: `step()`."""

    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    batch: Batch
    training: Training
    clip_norm: float

    def __call__(self) -> None:
        """What the trainer does with a batch that has arrived."""
        self.model.train()
        backward(self.model, self.task, self.batch, self.training)
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        all_reduce_gradients(weights)
        gradient_norm(weights, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def training_step(run: Run, clips: int, device: torch.device = CPU) -> Step:
    """The pre-training step of ``run`` on ``clips`` clips of noise, from random weights."""
    assert isinstance(run.task, Pretrain)
    seed_everything(run.seed)
    model = DualEncoder(run.model).to(device)
    optimizer = build_optimizer(run.optim, model.named_parameters())
    batch = noise_batch(run, clips).to(device)
    return Step(model, PretrainTask(run.task).to(device), optimizer, batch, run.training, run.optim.clip_norm)
