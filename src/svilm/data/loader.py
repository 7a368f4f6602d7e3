"""From manifest to batches: what a sample contains depends on (seed, epoch, position) alone.

So the order is the same for any number of workers, the global batch for any number of ranks, and the
state of the loader is one number, the step.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from svilm.config import Config, ManifestFile
from svilm.data.augment import CutPaste, cut_and_paste, sample_paste
from svilm.data.decode import DecodeError, VideoIndex, index_video
from svilm.data.language import Language, Tokenizer, noun_prompts, pack
from svilm.data.manifest import Entry, Manifest, ManifestError
from svilm.data.sample import MIDDLE, Clip, Sampling, View, load_clip
from svilm.data.workers import Readers
from svilm.runtime import derive_seed, rank, world_size
from svilm.types import Batch, Paste

_SIDES = re.compile(r"\b(left|right|leftwards?|rightwards?|(?:anti|counter)?-?clockwise)\b", re.IGNORECASE)
BYTES_AHEAD = 4 << 30
"""Of frames that the workers of a rank have ready, where that is more than one batch of each."""
_CANDIDATES = 8  # how many other clips may stand in for an unreadable one before training stops


class Data(Config):
    """Where training clips come from and how they are read."""

    manifest: ManifestFile = ""
    """Training manifest, made by `svilm prepare`."""
    captions: Literal["random", "expand"] = "random"
    """Of a clip with several captions an epoch shows one drawn at random, or (expand) each as an item of its own."""
    batch: int = Field(64, ge=1)
    """Clips per step over all ranks together."""
    workers: int = Field(1, ge=0)
    """Worker processes per rank that decode; 0 decodes in the training process."""
    flip: float = Field(0.0, ge=0.0, le=1.0)
    """Chance of mirroring a clip; never done when the caption speaks of left, right or a sense of rotation."""
    skip_budget: float = Field(0.05, ge=0.0, le=1.0)
    """Training stops when a larger share of the clips asked for could not be read: at 0 by the first, else not before
    the ninth."""
    sampling: Sampling = Sampling()
    """Frames, size and crop."""
    language: Language = Language()
    """Captions and nouns."""
    paste: CutPaste = CutPaste()
    """Cut-and-paste (section 3.2)."""


class Items:
    """The training items of a manifest: its entries, those at ``only``, or, expanded, each of their captions.

    Every training batch has captions, be they sentences, questions or names of classes.  Raises ManifestError where an
    entry to be trained on has none.
    """

    def __init__(
        self,
        manifest: Manifest,
        captions: Literal["random", "expand"] = "random",
        only: Sequence[int] | None = None,
    ) -> None:
        if captions == "expand" and only is not None:
            raise ValueError("data.captions = expand takes all entries of a manifest; use random")
        self.manifest = manifest
        self._entries = range(len(manifest)) if only is None else only
        chosen = None if only is None else set(only)
        silent = next((n for n in manifest.without_captions() if chosen is None or n in chosen), None)
        if silent is not None:
            raise ManifestError(
                f"{manifest.path}: line {silent + 2}: {manifest[silent].id} has no captions to train on; prepare the "
                "manifest from annotations with captions (for classes `svilm prepare` writes their names), or strike it"
            )
        self._ends = np.cumsum([len(entry.captions) for entry in manifest]) if captions == "expand" else None

    def __len__(self) -> int:
        return len(self._entries) if self._ends is None else int(self._ends[-1])

    def find(self, index: int) -> tuple[Entry, int | None]:
        """The entry of an item, and the number of its caption where that is settled."""
        if self._ends is None:
            return self.manifest[int(self._entries[index])], None
        number = int(np.searchsorted(self._ends, index, side="right"))
        entry = self.manifest[number]
        return entry, index - int(self._ends[number]) + len(entry.captions)


@dataclass(frozen=True)
class Example:
    """One clip with one of its captions, before batching."""

    step: int
    entry: Entry
    clip: Clip
    caption: str
    nouns: tuple[str, ...]
    prompts: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Key:
    """Which example to make: the step it belongs to, its position in the epoch, the item found there."""

    step: int
    epoch: int
    position: int
    index: int


class Order(Sampler[list[Key]]):
    """The batches of this rank from step ``start`` to ``stop``.

    Every epoch is a fresh permutation of the manifest, cut into global batches; a remainder is dropped.
    Raises ValueError when the manifest holds less than one batch or the ranks do not divide it.
    """

    def __init__(self, clips: int, batch: int, seed: int, start: int, stop: int) -> None:
        ranks = world_size()
        if batch % ranks:
            raise ValueError(f"data.batch = {batch} must be a multiple of the {ranks} ranks")
        if clips < batch:
            raise ValueError(f"the manifest has {clips} clips, fewer than data.batch = {batch}; lower data.batch")
        self.clips, self.batch, self.seed, self.start, self.stop = clips, batch, seed, start, stop
        self.share = batch // ranks

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[Key]]:
        per_epoch = self.clips // self.batch
        known = -1
        permutation: np.ndarray = np.empty(0, dtype=np.int64)
        for step in range(self.start, self.stop):
            epoch, number = divmod(step, per_epoch)
            if epoch != known:
                rng = np.random.default_rng(derive_seed(self.seed, "order", epoch))
                known, permutation = epoch, rng.permutation(self.clips)
            first = number * self.batch + rank() * self.share
            yield [Key(step, epoch, p, int(permutation[p])) for p in range(first, first + self.share)]


class _Indexes:
    """Lists of frames of videos read before, as far as they fit: the next epoch need not list them again."""

    def __init__(self, room: int = 4_000_000) -> None:
        self._known: dict[Path, VideoIndex] = {}
        self._room = room  # frames; one takes 17 bytes

    def find(self, path: Path) -> VideoIndex:
        index = self._known.get(path)
        if index is None:
            index = index_video(path)
            if len(index) <= self._room:
                self._room -= len(index)
                self._known[path] = index
        return index


class Clips(Dataset[Example]):
    """Examples by key.  An unreadable clip is replaced by another, always the same one, and counted."""

    def __init__(self, items: Items, data: Data, seed: int) -> None:
        self.items, self.data, self.seed = items, data, seed
        self._indexes = _Indexes()

    def __getitem__(self, key: Key) -> Example:
        rng = np.random.default_rng(derive_seed(self.seed, "clip", key.epoch, key.position))
        skipped: Counter[str] = Counter()
        index = key.index
        for _ in range(_CANDIDATES):
            entry, caption = self.items.find(index)
            try:
                return self._example(key.step, entry, caption, rng, skipped)
            except DecodeError as error:
                skipped[error.reason] += 1
                last = error
            index = int(rng.integers(len(self.items)))
        raise ValueError(f"{_CANDIDATES} clips in a row could not be read, the last one: {last}")

    def _example(
        self, step: int, entry: Entry, settled: int | None, rng: np.random.Generator, skipped: Counter[str]
    ) -> Example:
        choice = int(rng.integers(len(entry.captions))) if settled is None else settled
        caption = entry.captions[choice]
        nouns, prompts = noun_prompts(entry.nouns[choice], self.data.language.nouns, rng)
        path = self.items.manifest.path_of(entry)
        clip = load_clip(
            path,
            entry.start,
            entry.end,
            self.data.sampling,
            rng,
            index=self._indexes.find(path),
            flip=self.data.flip if _SIDES.search(caption) is None else 0.0,
            centred=bool(entry.boxes),
        )
        return Example(step, entry, clip, caption, nouns, prompts, skipped)


class Collate:
    """Examples -> Batch, with cut-and-paste drawn from (seed, step, block of the global batch)."""

    def __init__(self, tokenizer: Tokenizer, data: Data, seed: int) -> None:
        self.tokenizer, self.data, self.seed = tokenizer, data, seed
        self.rank = rank()  # now: a process that reads ahead may not know

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Stack the clips, pack the texts, blend the pixels."""
        video = torch.stack([e.clip.frames for e in examples])
        paste = None
        if self.data.paste.probability > 0:
            paste = self._paste(examples[0].step, len(examples), video.shape[1])
            video = cut_and_paste(video, paste, self.data.paste.clip_window)
        text = pack([e.caption for e in examples], [e.prompts for e in examples], self.tokenizer, self.data.language)
        return Batch(
            entries=tuple(e.entry for e in examples),
            captions=tuple(e.caption for e in examples),
            nouns=tuple(e.nouns for e in examples),
            video=video,
            seconds=torch.stack([e.clip.seconds for e in examples]),
            view=torch.tensor([e.clip.view for e in examples]),
            text_ids=text.ids,
            text_mask=text.mask,
            caption_index=text.caption_index,
            noun_index=text.noun_index,
            noun_mask=text.noun_mask,
            paste=paste,
            skipped=sum((e.skipped for e in examples), Counter()),
        )

    def _paste(self, step: int, clips: int, frames: int) -> Paste:
        window = self.data.paste.clip_window
        if frames % window:
            raise ValueError(f"paste.clip_window = {window} must divide the {frames} frames of a clip")
        size = self.data.paste.block or clips
        if clips % size:
            raise ValueError(f"paste.block = {size} must divide the {clips} clips that each rank holds")
        masks, partners = [], []
        for first in range(0, clips, size):
            block = (self.rank * clips + first) // size
            generator = np.random.default_rng(derive_seed(self.seed, "paste", step, block))
            paste = sample_paste(size, frames // window, self.data.paste, generator)
            masks.append(paste.mask)
            partners.append(paste.partner + first)
        return Paste(torch.cat(masks), torch.cat(partners))


def training_batches(
    items: Items,
    data: Data,
    tokenizer: Tokenizer,
    *,
    seed: int,
    start: int,
    stop: int,
    pin: bool = False,
) -> DataLoader[Batch]:
    """This rank's batches of steps ``start`` <= step < ``stop``, decoded ahead by worker processes."""
    loader: DataLoader[Any] = Readers(  # torch types it by what the dataset holds, not by what collate makes
        Clips(items, data, seed),
        batch_sampler=Order(len(items), data.batch, seed, start, stop),
        collate_fn=Collate(tokenizer, data, seed),
        num_workers=data.workers,
        prefetch_factor=batches_ahead(data, world_size()) if data.workers else None,
        pin_memory=pin,
    )
    return loader


def batch_bytes(data: Data, ranks: int) -> int:
    """Bytes of the frames of one batch of one rank."""
    return data.batch // ranks * data.sampling.num_frames * data.sampling.size**2 * 3


def batches_ahead(data: Data, ranks: int) -> int:
    """Batches that each worker has ready: four, or as many as fit into BYTES_AHEAD with those of the others, or one."""
    return max(1, min(4, BYTES_AHEAD // max(1, data.workers * batch_bytes(data, ranks))))


@dataclass(frozen=True)
class StillClip:
    """A clip for evaluation: the entry and its frames, those of the middle where no other view is asked for."""

    entry: Entry
    frames: UInt8[Tensor, "frames high wide 3"]
    seconds: Float[Tensor, " frames"]
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """The part of the upright picture that is seen: x0, y0, x1, y1 in [0, 1]."""


class EvaluationClips:
    """Lists of clips as `evaluation_clips` delivers them, decoded ahead; ``len()`` is their number."""

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[StillClip]]:
        for entries, frames, seconds, boxes in self._loader:
            yield [StillClip(*each) for each in zip(entries, frames, seconds, boxes, strict=True)]


def _stacked(clips: Sequence[StillClip]) -> tuple[list[Entry], Tensor, Tensor, list[tuple[float, ...]]]:
    """Two tensors for all clips: each that a worker hands over takes a file descriptor, and often 1,024 are allowed."""
    frames, seconds = (torch.stack([getattr(clip, name) for clip in clips]) for name in ("frames", "seconds"))
    return [clip.entry for clip in clips], frames, seconds, [clip.box for clip in clips]


class _Stills(Dataset[StillClip]):
    """Item i * views + v is view v of entry i."""

    def __init__(self, manifest: Manifest, sampling: Sampling, views: Sequence[View]) -> None:
        self.manifest, self.sampling, self.views = manifest, sampling, views
        self._indexes = _Indexes()

    def __len__(self) -> int:
        return len(self.manifest) * len(self.views)

    def __getitem__(self, item: int) -> StillClip:
        number, view = divmod(item, len(self.views))
        entry = self.manifest[number]
        path = self.manifest.path_of(entry)
        index = self._indexes.find(path)
        clip = load_clip(
            path,
            entry.start,
            entry.end,
            self.sampling,
            None,
            index=index,
            view=self.views[view],
            centred=bool(entry.boxes),
        )
        return StillClip(entry, clip.frames, clip.seconds, clip.box)


def evaluation_clips(
    manifest: Manifest,
    sampling: Sampling,
    *,
    batch: int,
    workers: int,
    indices: Sequence[int] | None = None,
    views: Sequence[View] = (MIDDLE,),
) -> EvaluationClips:
    """Lists of at most ``batch`` clips in manifest order, or just those at ``indices``; of each entry all ``views``.

    An unreadable clip raises DecodeError: a benchmark number never silently leaves one out.
    """
    entries = range(len(manifest)) if indices is None else indices
    loader: DataLoader[Any] = Readers(
        _Stills(manifest, sampling, views),
        batch_size=batch,
        sampler=[entry * len(views) + view for entry in entries for view in range(len(views))],
        collate_fn=_stacked,
        num_workers=workers,
    )
    return EvaluationClips(loader)
