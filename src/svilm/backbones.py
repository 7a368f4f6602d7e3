"""Models that turn videos and texts into vectors of one space: our own, and published CLIP and SigLIP checkpoints.

backbone = load_backbone("runs/demo")                          # whatever `svilm.load` takes
backbone = load_backbone("hf:openai/clip-vit-large-patch14")   # an id of the hub, or a folder
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from svilm.data.loader import evaluation_clips
from svilm.data.manifest import Manifest
from svilm.data.sample import Sampling
from svilm.features.extract import fingerprint
from svilm.model import SViLM
from svilm.models.frames import FrameEncoder
from svilm.runtime import device_for
from svilm.tasks.common import gallery_of, sampling_in_words
from svilm.tasks.retrieval import Retrieval, Vectors, score
from svilm.types import Scores

PREFIX = "hf:"
"""How the name of a published image-text checkpoint begins."""
RATE = 4.0
"""Frames per second at which videos are watched: clips of the length that models are trained on."""
FRAME_RATE = 2.0
"""The same where each frame is encoded by itself."""
FRAMES = 12
"""Frames of a clip there."""
TEXTS = 256
"""Texts encoded at once."""

Clips = UInt8[Tensor, "clips frames size size 3"]


class Encoded(NamedTuple):
    """What a backbone makes of clips; both on the CPU."""

    vectors: Float[Tensor, "clips common"]
    """Unit length."""
    steps: Float[Tensor, "clips steps width"]
    """A feature for each step of a clip: its tubelets or its frames."""


@dataclass(frozen=True)
class Watching:
    """How a backbone watches a whole video: in windows of as many frames as it sees at once."""

    sampling: Sampling
    """Frames and size of a window, or of a clip."""
    rate: float
    """Frames per second."""
    step: int
    """Frames that have a feature together."""
    overlap: int
    """Frames that a window shares with the next."""


@runtime_checkable
class Backbone(Protocol):
    """What search and baselines need of a model."""

    name: str
    fingerprint: str
    """Sixteen hexadecimal digits that change with the weights of the video side."""
    width: int
    """Numbers of a vector."""
    watching: Watching
    own: SViLM | None
    """The model itself where it is ours, which can also say where a noun is."""

    def encode(self, clips: Clips) -> Encoded:
        """Clips of the sampling's frames and size, RGB of 0 to 255 -> vectors and steps."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "texts common"]:
        """Unit vectors, on the CPU."""
        ...


def load_backbone(name: str, device: str = "auto") -> Backbone:
    """The model called ``name``: "hf:" and a CLIP or SigLIP checkpoint, or whatever `svilm.load` takes.

    Raises ValueError when nothing of that name is found or it does not fit.
    """
    if name.startswith(PREFIX):
        return FrameBackbone(FrameEncoder.load(name.removeprefix(PREFIX), device_for(device)), name)
    return VideoBackbone(SViLM.from_pretrained(name, device), name)


class VideoBackbone:
    """Our own model.  Neighbouring windows share half of their frames, since a step is best compared with one that
    was seen in the same window."""

    def __init__(self, own: SViLM, name: str) -> None:
        self.own: SViLM | None = own
        self.name, self._model = name, own
        sampling, step = own.config.sampling, own.config.model.video.tubelet[0]
        overlap = max(step, sampling.num_frames // 2 // step * step) if sampling.num_frames > step else 0
        self.watching = Watching(sampling, RATE, step, overlap)
        self.fingerprint = fingerprint(own.encoder)
        self.width = own.config.model.common

    @torch.no_grad()
    def encode(self, clips: Clips) -> Encoded:
        """Clip vectors, and the step means of the video tokens."""
        features = self._model.encoder.encode_video(clips.to(self._model.device))
        return Encoded(features.embedding.float().cpu(), features.tokens.mean(dim=2).float().cpu())

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "texts common"]:
        """Unit vectors, on the CPU."""
        return self._model.encode_text(texts)


class FrameBackbone:
    """A published image-text model, frame by frame; the vector of a clip is the mean of its frames' vectors."""

    def __init__(self, frames: FrameEncoder, name: str) -> None:
        self.own: SViLM | None = None
        self.name, self._frames = name, frames
        sampling = Sampling(num_frames=FRAMES, size=frames.size, short_side=frames.short_side, fit=frames.fit)
        self.watching = Watching(sampling, FRAME_RATE, step=1, overlap=1)
        self.fingerprint = _digest(frames)
        self.width = frames.width

    def encode(self, clips: Clips) -> Encoded:
        """Means of unit vectors, made unit vectors again, and the vectors of the frames."""
        steps = self._frames.encode_frames(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]).cpu()
        return Encoded(F.normalize(steps.mean(dim=1), dim=-1, eps=1e-6), steps)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "texts common"]:
        """Unit vectors, on the CPU."""
        return self._frames.encode_text(texts).cpu()


def evaluate_retrieval(
    backbone: Backbone, manifest: Manifest, config: Retrieval, *, batch: int = 16, workers: int = 1
) -> Scores:
    """Retrieval by a backbone on a test manifest, scored as our own model is: the baseline beside it.

    Raises DecodeError for an unreadable clip.
    """
    sampling = backbone.watching.sampling
    gallery = gallery_of(manifest)
    lists = evaluation_clips(manifest, sampling, batch=batch, workers=workers, indices=gallery.clips)
    bar = tqdm(lists, desc="encoding clips", unit="batch", file=sys.stderr, leave=False)
    clips = [backbone.encode(torch.stack([clip.frames for clip in some])).vectors for some in bar]
    captions = [
        backbone.encode_text(gallery.captions[first : first + TEXTS])
        for first in range(0, len(gallery.captions), TEXTS)
    ]
    vectors = Vectors(torch.cat(clips).numpy(), torch.cat(captions).numpy(), gallery)
    words = f"{backbone.name}, {sampling_in_words(sampling)}"
    return score(vectors, manifest, config, words)


def _digest(frames: FrameEncoder) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in frames.model.state_dict().items():
        if not name.startswith("text_model."):
            digest.update(name.encode("utf-8"))
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
