"""Does the model see a noun where the thing is?  Heat maps against the exact boxes of a drawn world (Figure 4).

The protocol: each noun phrase of the first caption of each clip is asked for, once; the frames are those of retrieval;
the truth is the box of the thing in the very frame.  `svilm.metrics.grounding` says how a map is measured.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from svilm.config import Config, ConfigError, ManifestFile
from svilm.data.language import TEMPLATES
from svilm.data.loader import StillClip
from svilm.data.manifest import Manifest
from svilm.data.world import ClipTruth, read_truth
from svilm.metrics.grounding import Grounded, grounded, mean_grounded
from svilm.models.dual import DualEncoder
from svilm.models.heat import HeatKind, noun_heat
from svilm.runtime import rank
from svilm.tasks.common import Reader, encode_clips, encode_texts
from svilm.types import Scores, VideoFeatures

Box = tuple[float, float, float, float]
Heat = Float[np.ndarray, "frames high wide"]


class Grounding(Config):
    """Which clips are asked for their nouns, and which heat map answers."""

    manifest: ManifestFile = ""
    """Test manifest of clips of a drawn world, whose truth lies beside its videos.  Empty: no grounding evaluation."""
    truth: str = ""
    """Folder of the drawn world, where it is not that of the manifest's videos."""
    kind: HeatKind = "auto"
    """group: the group nearest to the noun, as in the paper's figures.  mixture: all groups, weighted as in Eq. 3.
    region: the weights of Eq. 3 over region tokens.  auto: region where the model has such, else group."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of Eq. 3 in a mixture or over regions; that of training is `task.region_temperature`."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Where between the lowest and the highest heat of a clip the thresholded map begins."""


@dataclass(frozen=True)
class Asked:
    """A noun phrase of a clip, with the boxes in the frames that the model sees."""

    clip: str
    noun: str
    box: Float[np.ndarray, "frames 4"]
    """xyxy in [0, 1], NaN where the thing is not seen."""
    others: Float[np.ndarray, "others frames 4"]
    """The other things of the clip."""


@dataclass(frozen=True)
class Answer:
    """What one noun phrase came to under each kind of map."""

    clip: str
    noun: str
    found: Mapping[str, Grounded]


def evaluate(model: DualEncoder, config: Grounding, reader: Reader, folder: Path | None = None) -> Scores:
    """All scores of a model; with a ``folder``, also grounding.json there: every noun phrase with all its numbers.

    Raises ConfigError when there is no truth for the manifest.
    """
    manifest = Manifest(config.manifest)
    found = answers(model, manifest, reader, config)
    scores = score(found, manifest, config)
    if folder is not None and rank() == 0:
        lines = ",\n".join(json.dumps(record) for record in as_records(found))
        (folder / "grounding.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return scores


def answers(model: DualEncoder, manifest: Manifest, reader: Reader, config: Grounding) -> list[Answer]:
    """Every noun phrase of the manifest whose thing is seen, measured: "model", and baselines that know no words.

    Raises ConfigError when there is no truth for the manifest.
    """
    truth = truth_of(manifest, config.truth)
    words = noun_vectors(model, sorted({noun for entry in manifest for noun in nouns_of(entry.captions, entry.nouns)}),
                         reader)  # fmt: skip

    def ask(clip: StillClip, features: VideoFeatures, row: int) -> list[Answer]:
        """One clip: a map for each thing that its caption names and that is seen, the model's and the blind ones."""
        known = asked(clip, truth.get(Path(clip.entry.video).stem))
        if not known:
            return []
        nouns = torch.stack([words[each.noun] for each in known]).to(features.embedding)
        size = clip.frames.shape[:3]
        maps = noun_heat(model.config, features, row, nouns, size, config.kind, config.temperature).cpu().numpy()
        blind = baselines(clip.frames.numpy())
        found = []
        for each, own in zip(known, maps, strict=True):
            measured = {
                name: grounded(heat, each.box, each.others, config.threshold)
                for name, heat in {"model": own, **blind}.items()
            }
            seen = {name: value for name, value in measured.items() if value is not None}
            if seen:
                found.append(Answer(each.clip, each.noun, seen))
        return found

    kept = encode_clips(model, manifest, reader, ask, "asking for nouns")
    return [answer for clip in kept for answer in clip]


def score(found: Sequence[Answer], manifest: Manifest, config: Grounding) -> Scores:
    """Means over noun phrases in percent, ``grounding/...``, and of the baselines, ``grounding_chance/...`` and so on.

    Counted are clips: one is scored when a thing that its caption names is seen in it.  Raises ValueError when none is.
    """
    if not found:
        raise ValueError(f"{manifest.path}: no clip shows a thing that its caption names; is this the drawn world's?")
    metrics = {"grounding/phrases": float(len(found))}
    for name in found[0].found:
        family = "grounding" if name == "model" else f"grounding_{name}"
        means = mean_grounded([answer.found[name] for answer in found])
        metrics |= {f"{family}/{metric}": value for metric, value in means.items()}
    protocol = (
        f"noun phrases of first captions; {config.kind} map, bilinear on pixels; hottest pixel of each frame, ties by "
        f"expectation; IoU above {config.threshold:g} of the range of the clip"
    )
    return Scores(metrics, len({answer.clip for answer in found}), manifest.header.official, protocol)


def noun_vectors(model: DualEncoder, nouns: Sequence[str], reader: Reader) -> dict[str, Float[Tensor, " common"]]:
    """Unit vectors of noun phrases: the mean over the prompt templates, on the CPU."""
    if not nouns:
        return {}
    prompts = [template.format(noun) for noun in nouns for template in TEMPLATES]
    vectors = encode_texts(model, prompts, reader).unflatten(0, (len(nouns), len(TEMPLATES))).mean(dim=1)
    return dict(zip(nouns, F.normalize(vectors, dim=1), strict=True))


def nouns_of(captions: Sequence[str], nouns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The different noun phrases of the first caption."""
    return tuple(dict.fromkeys(nouns[0])) if captions else ()


# Truth


def truth_of(manifest: Manifest, folder: str = "") -> dict[str, ClipTruth]:
    """The exact truth by name of the video, from ``folder`` or from the drawn world of the manifest's videos.

    Raises ConfigError where there is no drawn world, and WorldError for a damaged one.
    """
    places = [Path(folder)] if folder else [manifest.root, manifest.root.parent]
    for place in places:
        if (place / "truth.jsonl").is_file():
            return {record.id: record for record in read_truth(place)}
    raise ConfigError(
        f"{manifest.path}: no truth.jsonl in {' or '.join(map(str, places))}; grounding is measured on the clips of "
        "a drawn world (`svilm world`), or set grounding.truth to its folder"
    )


def asked(clip: StillClip, truth: ClipTruth | None) -> list[Asked]:
    """The noun phrases of a clip that mean one of its things, with all boxes as the model sees the clip."""
    if truth is None:
        return []
    boxes = [_boxes_in(clip, thing.boxes, truth.fps) for thing in truth.things]
    found = []
    for noun in nouns_of(clip.entry.captions, clip.entry.nouns):
        own = next((k for k, thing in enumerate(truth.things) if noun in thing.phrases), None)
        if own is not None:
            others = np.array([box for k, box in enumerate(boxes) if k != own]).reshape(-1, len(clip.frames), 4)
            found.append(Asked(clip.entry.id, noun, boxes[own], others))
    return found


def _boxes_in(clip: StillClip, boxes: Sequence[Box | None], fps: int) -> Float[np.ndarray, "frames 4"]:
    numbers = (min(int(second * fps + 1e-3), len(boxes) - 1) for second in clip.seconds.tolist())
    seen = (seen_through(clip.box, boxes[number]) for number in numbers)
    return np.array([(np.nan,) * 4 if box is None else box for box in seen], dtype=np.float64)


def seen_through(window: Box, box: Box | None) -> Box | None:
    """A box of the whole picture as part of a window of it, cut at the window's edges; None if outside."""
    if box is None:
        return None
    x0, y0, wide, high = window[0], window[1], window[2] - window[0], window[3] - window[1]
    left, right = max((box[0] - x0) / wide, 0.0), min((box[2] - x0) / wide, 1.0)
    top, bottom = max((box[1] - y0) / high, 0.0), min((box[3] - y0) / high, 1.0)
    return (left, top, right, bottom) if left < right and top < bottom else None


# Baselines


def baselines(frames: np.ndarray) -> dict[str, Heat]:
    """Heat maps of uint8 frames (T, H, W, 3) that know nothing of the noun, 0 to 1.

    "chance": flat.  "centre": falls with the distance from the middle of the picture.  "contrast": distance of a
    pixel's colour from the median colour of its frame, the most salient patch.  "motion": change since the frame
    before, or to the next for the first.  Contrast and motion are means over an eighth of the picture, so that a
    single noisy pixel does not win.
    """
    count, high, wide = frames.shape[:3]
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    median = pixels.flatten(2).median(dim=2).values[:, :, None, None]
    change = pixels.diff(dim=0).abs() if count > 1 else torch.zeros_like(pixels)
    rows, columns = ((np.arange(size) + 0.5) / size - 0.5 for size in (high, wide))
    centre = 1.0 - np.sqrt(2 * (rows[:, None] ** 2 + columns[None] ** 2))
    return {
        "chance": np.ones((count, high, wide)),
        "centre": np.broadcast_to(centre, (count, high, wide)),
        "contrast": _smooth((pixels - median).square().sum(dim=1).sqrt()),
        "motion": _smooth((change if count == 1 else torch.cat([change[:1], change])).sum(dim=1)),
    }


def _smooth(heat: Float[Tensor, "frames high wide"]) -> Heat:
    """Means over a square of about an eighth of the picture, scaled to at most 1 over the clip."""
    side = max(1, min(heat.shape[1:]) // 8) // 2 * 2 + 1
    mean = F.avg_pool2d(heat[:, None], side, stride=1, padding=side // 2, count_include_pad=False)[:, 0]
    scaled: np.ndarray = (mean / mean.max().clamp_min(1e-6)).double().numpy()
    return scaled


def as_records(found: Iterable[Answer]) -> list[dict[str, object]]:
    """What each noun phrase came to, for a file of JSON."""
    return [
        {"clip": each.clip, "noun": each.noun, **{name: vars(value) for name, value in each.found.items()}}
        for each in found
    ]
