"""A trained S-ViLM to use: `svilm.load(path)`, then encode videos and texts, or ask where a noun is."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor

from svilm.config import Config, build
from svilm.data.language import TEMPLATES, Language, Tokenizer
from svilm.data.sample import Sampling, load_clip
from svilm.data.words import cleaned
from svilm.hub import local_folder
from svilm.models.dual import DualEncoder, DualEncoderConfig
from svilm.models.heat import HeatKind, heat_kind, noun_heat
from svilm.models.weights import load_saved
from svilm.runtime import device_for
from svilm.types import VideoFeatures
from svilm.version import __version__

VideoLike = str | Path | np.ndarray | Tensor
"""A video file, or RGB frames (T, H, W, 3) as uint8."""


class ModelConfig(Config):
    """Everything needed to use a model: its shape, and how videos and texts are read."""

    model: DualEncoderConfig
    """Shape of the encoders."""
    sampling: Sampling
    """Frames and size."""
    language: Language
    """Length of texts."""
    version: str = __version__
    """Version of svilm that saved the model."""


@dataclass(frozen=True)
class HeatMap:
    """Where a noun is in a video: ``heat`` per pixel of the ``frames`` that the model saw."""

    noun: str
    heat: Float[np.ndarray, "frames high wide"]
    """0 to 1 over the whole clip."""
    frames: UInt8[np.ndarray, "frames high wide 3"]
    seconds: Float[np.ndarray, " frames"]
    group: int | None
    """The group token nearest to the noun; None where the heat is of region tokens."""
    similarity: float
    """The cosine of that group, or of the nearest region, with the noun."""
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """The part of the video's upright picture that ``frames`` show: x0, y0, x1, y1 in [0, 1]."""


class SViLM:
    """Encoders, tokenizer and reading rules in one object; build it with `from_pretrained` (or `svilm.load`)."""

    def __init__(self, encoder: DualEncoder, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self.encoder, self.tokenizer, self.config = encoder.eval(), tokenizer, config

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto") -> "SViLM":
        """A model from a folder written by `save_pretrained`, a run folder, or a Hugging Face id.

        Local folders are looked at first.  Raises ValueError when nothing of that name is found or a file of it
        does not fit.
        """
        folder = local_folder(str(name), ["config.json", "model.safetensors", "tokenizer.json", "README.md"])
        if (folder / "model" / "config.json").is_file():
            folder = folder / "model"  # a run folder
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            if not (folder / file).is_file():
                raise ValueError(f"{folder} has no {file}; give a run that has finished, or a saved model")
        try:
            config = build(ModelConfig, json.loads((folder / "config.json").read_text(encoding="utf-8")))
            encoder = DualEncoder(config.model)
        except ValueError as error:
            raise ValueError(f"{folder / 'config.json'}: {error}; save or fetch the model again") from None
        load_saved(encoder, folder / "model.safetensors")
        tokenizer, known = Tokenizer.load(folder), config.model.text.vocabulary
        if len(tokenizer) > known:
            raise ValueError(
                f"{folder / 'tokenizer.json'}: {len(tokenizer)} word pieces, but the model knows {known}; save or "
                "fetch the model again"
            )
        return cls(encoder.to(device_for(device)), tokenizer, config)

    def save_pretrained(self, folder: str | Path, card: str = "") -> None:
        """Write config.json, model.safetensors, tokenizer.json and a model card (README.md)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.encoder.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        self.tokenizer.save(folder)
        (folder / "README.md").write_text(_CARD.format(version=self.config.version) + card, encoding="utf-8")

    def push_to_hub(self, repository: str, *, private: bool = True, card: str = "") -> str:
        """Upload the model to the Hugging Face hub (needs `hf auth login`) and return its address."""
        from huggingface_hub import HfApi

        api = HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, card)
            api.upload_folder(repo_id=repository, folder_path=folder)
        return str(address)

    def encode_video(
        self, videos: VideoLike | Sequence[VideoLike], start: float | None = None, end: float | None = None
    ) -> Float[Tensor, "videos common"]:
        """Unit vectors (N, E) of one video or several, on the CPU.

        Files are read between ``start`` and ``end`` seconds; frames are taken as they are, resized to the model's size.
        Raises DecodeError for a file that cannot be read.
        """
        return self.video_features(videos, start, end).embedding.float().cpu()

    @torch.no_grad()
    def video_features(
        self, videos: VideoLike | Sequence[VideoLike], start: float | None = None, end: float | None = None
    ) -> VideoFeatures:
        """All features of one video or several: clip vector, group tokens, video tokens and assignment."""
        many: Sequence[VideoLike] = [videos] if isinstance(videos, (str, Path, np.ndarray, Tensor)) else videos
        clips = torch.stack([self._frames(video, start, end)[0] for video in many])
        return self.encoder.encode_video(clips.to(self.device))

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str]) -> Float[Tensor, "texts common"]:
        """Unit vectors (N, E) of one text or several, on the CPU; their product with video vectors is the cosine.

        No texts give no rows.  Raises TypeError for what is no text.
        """
        many = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [texts]
        for number, text in enumerate(many):
            if not isinstance(text, str):
                raise TypeError(f"texts[{number}] is {text!r}, of type {type(text).__name__}; give texts")
        if not many:
            return torch.zeros(0, self.config.model.common)
        ids, mask = self.tokenizer(many, self.config.language.max_length)
        return self.encoder.encode_text(ids.to(self.device), mask.to(self.device)).embedding.float().cpu()

    @torch.no_grad()
    def ground(
        self,
        video: VideoLike,
        noun: str,
        start: float | None = None,
        end: float | None = None,
        kind: HeatKind = "auto",
        temperature: float = 0.1,
    ) -> HeatMap:
        """Heat map of a noun phrase over the frames of a video (section C, Figure 4).

        "group" takes the group token most similar to the noun and the share of each video token that goes to
        it, as the paper's figures do; "mixture" weighs all groups as Eq. 3 does, with ``temperature``; "region" takes
        the weights of Eq. 3 over the region tokens.  "auto" is "region" where the model has regions, otherwise "group".
        Raises TypeError for a noun that is no text, and ValueError for an empty one.
        """
        noun = cleaned(noun, "noun", "red circle")
        frames, seconds, box = self._frames(video, start, end)
        features = self.encoder.encode_video(frames[None].to(self.device))
        words = self.encode_text([template.format(noun) for template in TEMPLATES]).to(self.device)
        word = F.normalize(words.mean(dim=0), dim=0)
        heat = noun_heat(self.config.model, features, 0, word[None], frames.shape[:3], kind, temperature)[0]
        regions = features.region_embedding if heat_kind(kind, features) == "region" else None
        cosine = (features.group_embedding if regions is None else regions.flatten(1, 2))[0] @ word
        best = int(cosine.argmax())
        group = best if regions is None else None
        return HeatMap(noun, heat.cpu().numpy(), frames.numpy(), seconds.numpy(), group, float(cosine[best]), box)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.encoder.parameters()).device

    def _frames(
        self, video: VideoLike, start: float | None, end: float | None
    ) -> tuple[UInt8[Tensor, "frames high wide 3"], Float[Tensor, " frames"], tuple[float, float, float, float]]:
        sampling = self.config.sampling
        if isinstance(video, (str, Path)):
            clip = load_clip(Path(video), start, end, sampling, None)
            return clip.frames, clip.seconds, clip.box
        frames = torch.as_tensor(video)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8 or not len(frames):
            raise ValueError(f"frames must be uint8 of shape (T, H, W, 3), got {frames.dtype} of {tuple(frames.shape)}")
        chosen = ((torch.arange(sampling.num_frames) + 0.5) * len(frames) / sampling.num_frames).long()
        resized = F.interpolate(
            frames[chosen].permute(0, 3, 1, 2).float(), (sampling.size, sampling.size), mode="bilinear", antialias=True
        )
        pixels = resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return pixels, chosen.float(), (0.0, 0.0, 1.0, 1.0)


_CARD = """---
library_name: svilm
pipeline_tag: video-text-to-text
tags: [video, retrieval, grounding, s-vilm]
---
# S-ViLM model

Saved by svilm {version}. Use it with

```python
import svilm
model = svilm.load("this folder or repository")
model.encode_text(["a man driving a tractor"]) @ model.encode_video("video.mp4").T
```

"""
