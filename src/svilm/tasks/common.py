"""What several tasks share: running a manifest through the encoders."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from svilm.data.language import Language, Tokenizer
from svilm.data.loader import Items, StillClip, evaluation_clips, training_batches
from svilm.data.manifest import Manifest, ManifestError
from svilm.data.sample import MIDDLE, Sampling, View
from svilm.engine.task import Context, TrainingBatch
from svilm.metrics.retrieval import rank_similarity
from svilm.models.dual import DualEncoder
from svilm.runtime import gather_objects, rank, world_size
from svilm.types import VideoFeatures

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Reader:
    """How an evaluation reads clips and texts; stated once by the run and handed to every task."""

    tokenizer: Tokenizer
    sampling: Sampling
    language: Language
    workers: int = 0
    batch: int = 64


def reader_of(context: Context) -> Reader:
    """How the evaluations of a run read clips and texts."""
    data = context.data
    return Reader(context.tokenizer, data.sampling, data.language, data.workers)


class TrainingClips(TypedDict):
    """The two fields of a `Job` that say which items are trained on."""

    items: int
    batches: Callable[[int, int], Iterable[TrainingBatch]]


def training_clips(context: Context, only: Sequence[int] | None = None) -> TrainingClips:
    """The clips of the training manifest, or just its entries at ``only``, in the run's order, as a job wants them."""
    items = Items(context.manifest, context.data.captions, only)

    def batches(start: int, stop: int) -> Iterable[TrainingBatch]:
        return training_batches(
            items,
            context.data,
            context.tokenizer,
            seed=context.seed,
            start=start,
            stop=stop,
            pin=context.device.type == "cuda",
        )

    return {"items": len(items), "batches": batches}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; gives the model's device and restores the mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(training)


def encode_clips(
    model: DualEncoder,
    manifest: Manifest,
    reader: Reader,
    keep: Callable[[StillClip, VideoFeatures, int], Kept],
    title: str,
    *,
    only: Sequence[int] | None = None,
    views: Sequence[View] = (MIDDLE,),
) -> list[Kept]:
    """What ``keep(clip, features, row)`` picks for each entry of the manifest, in manifest order, on every rank.

    ``only`` are the numbers of the entries to encode, in their order; of each entry come all ``views``, one after
    the other.  ``keep`` returns something that can be pickled, arrays rather than tensors.  The ranks share the
    entries; each is encoded exactly once.  Raises DecodeError for an unreadable clip.
    """
    entries = range(len(manifest)) if only is None else only
    own = range(rank(), len(entries), world_size())
    places = [place * len(views) + view for place in own for view in range(len(views))]
    found: list[tuple[int, Kept]] = []
    batches = evaluation_clips(
        manifest,
        reader.sampling,
        batch=reader.batch,
        workers=reader.workers,
        indices=[entries[place] for place in own],
        views=views,
    )
    with evaluating(model) as device:
        for clips in tqdm(batches, desc=title, unit="batch", disable=rank() > 0, file=sys.stderr, leave=False):
            features = model.encode_video(torch.stack([clip.frames for clip in clips]).to(device))
            for row, clip in enumerate(clips):
                found.append((places[len(found)], keep(clip, features, row)))
    everything = dict(pair for pairs in gather_objects(found) for pair in pairs)
    if len(everything) != len(entries) * len(views):
        raise AssertionError(f"{len(everything)} of {len(entries)} x {len(views)} clips encoded")
    return [everything[place] for place in range(len(everything))]


def encode_texts(model: DualEncoder, texts: Sequence[str], reader: Reader) -> Float[Tensor, "texts common"]:
    """Unit vectors of the texts, on the CPU."""
    vectors = []
    with evaluating(model) as device:
        for first in range(0, len(texts), 256):
            ids, mask = reader.tokenizer(texts[first : first + 256], reader.language.max_length)
            vectors.append(model.encode_text(ids.to(device), mask.to(device)).embedding.float().cpu())
    return torch.cat(vectors)


def sampling_in_words(sampling: Sampling) -> str:
    """How an evaluation that looks at each clip once sees it."""
    clip = "one uniform clip" if sampling.strategy == "uniform" else f"the middle, {sampling.stride} frames apart"
    square = "centre crop" if sampling.fit == "crop" else "squashed to"
    return f"{sampling.num_frames} frames, {clip}, {square} {sampling.size}"


@dataclass(frozen=True)
class Gallery:
    """What a retrieval test ranks: each clip of its manifest once, and all captions as queries."""

    clips: tuple[int, ...]
    """Of each clip the number of the first entry that has it."""
    captions: tuple[str, ...]
    owner: tuple[int, ...]
    """Of each caption the place of its clip in ``clips``."""


def gallery_of(manifest: Manifest) -> Gallery:
    """The clips and captions of a test manifest; entries of one video and the same seconds are one clip.

    Otherwise a caption would find its own video and be told that it is wrong.  Raises ManifestError for a manifest
    without entries, and for an entry without a caption.
    """
    places: dict[tuple[str, float | None, float | None], int] = {}
    clips, captions, owner = list[int](), list[str](), list[int]()
    for number, entry in enumerate(manifest):
        if not entry.captions:
            raise ManifestError(
                f"{manifest.path}: {entry.id} has no caption, so nothing can be asked for it; retrieval wants a "
                "manifest of clips with captions"
            )
        place = places.setdefault((entry.video, entry.start, entry.end), len(clips))
        if place == len(clips):
            clips.append(number)
        captions += entry.captions
        owner += [place] * len(entry.captions)
    if not clips:
        raise ManifestError(f"{manifest.path} has no entries; retrieval wants clips with captions")
    return Gallery(tuple(clips), tuple(captions), tuple(owner))


def recall_at_10(model: DualEncoder, manifest: Manifest, reader: Reader) -> float:
    """Percent of captions whose clip is among the ten nearest, for choosing weights on a validation manifest."""
    gallery = gallery_of(manifest)
    clips = encode_clips(model, manifest, reader, _embedding, "encoding clips", only=gallery.clips)
    captions = encode_texts(model, gallery.captions, reader).numpy().astype(np.float64)
    ranking = rank_similarity(captions @ np.stack(clips).T, [[clip] for clip in gallery.owner])
    return ranking.metrics("average")["R@10"]


def _embedding(clip: StillClip, features: VideoFeatures, row: int) -> np.ndarray:
    vector: np.ndarray = features.embedding[row].cpu().double().numpy()
    return vector


def encode_packed(
    model: DualEncoder, ids: Int[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]
) -> Float[Tensor, "texts common"]:
    """Unit vectors of packed texts: the short ones (noun prompts) and the long ones (captions) apart.

    Padding costs as much as words.  The cut is where the two tables together are smallest; the vectors are
    those of one table.
    """
    lengths, order = mask.sum(dim=1).sort()
    short = torch.arange(1, len(lengths) + 1, device=lengths.device)
    cut = int((short * lengths + (len(lengths) - short) * lengths[-1]).argmin()) + 1
    parts = [rows for rows in (order[:cut], order[cut:]) if len(rows)]
    longest = [int(lengths[cut - 1]), int(lengths[-1])]
    found = [
        model.encode_text(ids[rows, :length], mask[rows, :length]).embedding
        for rows, length in zip(parts, longest, strict=False)
    ]
    return torch.cat(found)[order.argsort()]
