"""Action recognition (section 4.3; Tables 3 and 10): which of a list of classes a clip shows.

Two ways to train: the encoder with a linear head on it, or (linear) heads alone on features that are computed once
and kept in the run folder.  The second also scores the encoder by the names of the classes alone, without training.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from svilm.config import Config, ConfigError, ManifestFile
from svilm.data.class_names import readable
from svilm.data.fixed_features import FeatureBatch, FixedFeatures, LabelledFeatures, held_out_clips, write_arrays
from svilm.data.language import TEMPLATES
from svilm.data.loader import StillClip
from svilm.data.manifest import Manifest, ManifestError
from svilm.data.sample import Views
from svilm.engine.task import Context, Features, Job, Task, TaskSettings
from svilm.metrics.classification import score_classes
from svilm.models.dual import DualEncoder
from svilm.models.heads import ClassHead, ProbeHeads, ridge
from svilm.runtime import all_agree, gather_objects, rank
from svilm.tasks.common import Reader, encode_clips, encode_texts, evaluating, reader_of, training_clips
from svilm.types import Batch, Scores, Terms, VideoFeatures

Feature = Literal["groups", "tokens", "both"]
Looks = Float[np.ndarray, "clips views width"]
"""Vectors of clips, several looks at each."""
Labels = Int[np.ndarray, " clips"]

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the closed-form classifier, whose features have deviation 1


class Probe(Config):
    """How linear heads are trained on fixed features."""

    rates: tuple[PositiveFloat, ...] = Field((0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=1)
    """Learning rates tried, as factors on `optim.lr`: heads of their own for each, all trained at once."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of each class's training clips by which the rate is chosen."""
    views: Views = Views()
    """Looks at each training clip that become features, each an item of its own."""
    standardise: bool = True
    """Shift and scale every feature to mean 0 and deviation 1 over the training clips."""


class Recognition(TaskSettings):
    """How classes are learned, and from how many looks at a clip they are told."""

    kind: Literal["recognition"] = "recognition"
    """Telling the class of a clip."""
    test: ManifestFile = ""
    """Test manifest; empty: no evaluation."""
    mode: Literal["finetune", "linear"] = "finetune"
    """finetune: encoder and head are trained.  linear: heads are trained on what the encoder makes of each clip."""
    feature: Feature = "groups"
    """Vector of a clip: the mean of its group tokens, as in the paper, of its video tokens, or both side by side."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout before the linear head when fine-tuning."""
    views: Views = Views()
    """Looks at each test clip, whose probabilities are averaged; the recipe of ViViT has 4 clips x 3 crops."""
    probe: Probe = Probe()
    """The heads of mode linear."""

    def job(self, context: Context) -> Job:
        """A head on the encoder, or several on its features, scored beside chance and the most frequent class.

        Raises ManifestError for a clip that is not of one of the classes, and ConfigError for settings under which
        labels or learning rates would not be what they say.
        """
        if self.mode == "linear":
            return _Linear(self, context).job()
        if context.data.paste.probability > 0:
            raise ConfigError("data.paste.probability must be 0: frames of another clip may show another class")
        classes = classes_of(context.manifest)
        self.check(context, classes)
        width = context.encoder.config.video.width * (2 if self.feature == "both" else 1)
        task = RecognitionTask(ClassHead(width, classes, self.dropout), self.feature)

        def logits(model: nn.Module, manifest: Manifest, views: Views) -> Looks:
            return recognise(cast(DualEncoder, model), task, manifest, reader_of(context), views)

        def evaluate(model: nn.Module) -> dict[str, Scores]:
            if not self.test:
                return {}
            test = Manifest(self.test)
            found = logits(model, test, self.views)
            words = f"fine-tuned; {views_in_words(self.views, context)}"
            return {"recognition": score("recognition", found, merged(found), test, task.head, words, context.results)}

        def judge(model: nn.Module, manifest: Manifest) -> float:
            return top1(merged(logits(model, manifest, Views())), manifest, task.head)

        return Job(task, context.encoder, **training_clips(context), evaluate=evaluate, judge=judge)

    def check(self, context: Context, classes: Sequence[str]) -> None:
        """Refuse before the training what could not be scored after it; see `job`."""
        self.views.of(context.data.sampling)
        for manifest in (context.manifest, *([Manifest(self.test)] if self.test else [])):
            labels_of(manifest, classes)


class RecognitionTask(Task):
    """A linear head on the vector of a clip, trained together with the encoder."""

    def __init__(self, head: ClassHead, feature: Feature) -> None:
        super().__init__()
        self.head = head
        self.feature = feature

    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Vectors of the clips (B, D)."""
        return {"vectors": clip_vectors(cast(DualEncoder, model).encode_video(batch.video), self.feature)}

    def loss(self, model: nn.Module, features: Features, batch: Batch) -> Terms:
        """Cross entropy of the right classes."""
        logits = self.head(features["vectors"]).float()
        numbers = [self.head.classes.number[entry.labels[0]] for entry in batch.entries]
        wanted = torch.tensor(numbers, device=logits.device)
        total = F.cross_entropy(logits, wanted)
        right = (logits.argmax(dim=1) == wanted).float().mean()
        return Terms(total, {"classes": total.detach()}, {"train/accuracy": 100 * right})


def clip_vectors(features: VideoFeatures, feature: Feature) -> Float[Tensor, "batch width"]:
    """The vectors of clips that classes are told from (before the projection into the common space)."""
    groups, tokens = features.groups.mean(dim=1), features.tokens.mean(dim=(1, 2))
    return {"groups": groups, "tokens": tokens, "both": torch.cat([groups, tokens], dim=1)}[feature]


def recognise(
    model: DualEncoder, task: RecognitionTask, manifest: Manifest, reader: Reader, views: Views
) -> Float[np.ndarray, "clips views classes"]:
    """Logits of every clip of a manifest in every view."""

    def keep(clip: StillClip, features: VideoFeatures, row: int) -> np.ndarray:
        logits: np.ndarray = task.head(clip_vectors(_row(features, row), task.feature))[0].float().cpu().numpy()
        return logits

    looks = views.of(reader.sampling)
    with evaluating(task):
        found = encode_clips(model, manifest, reader, keep, "recognising", views=looks)
    return np.stack(found).reshape(len(manifest), len(looks), -1)


# Linear heads on fixed features


class ProbeTask(Task):
    """Two heads for each learning rate: one that never sees the held-out clips, by which the rate is chosen, and one
    that sees all clips and is scored.

    The gradient of a head is its own alone, times the factor of its rate; so a run of SGD, which neither clips nor
    decays, is that of each head apart.
    """

    def __init__(self, rates: Sequence[float], share: float, heads: ProbeHeads) -> None:
        super().__init__()
        self.rates, self.share, self.heads = tuple(rates), share, heads

    def features(self, model: nn.Module, batch: FeatureBatch) -> Features:
        """The vectors (B, D) as they are."""
        return {"vectors": batch.vectors}

    def loss(self, model: nn.Module, features: Features, batch: FeatureBatch) -> Terms:
        """Cross entropy of each head, times its factor; ``share`` of all clips are held out."""
        logits = self.heads(features["vectors"])
        wanted = batch.labels.expand(len(logits), -1)
        each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(2, len(self.rates), -1)
        fit = (~batch.held_out).float() / (1 - self.share)  # a constant divisor: ranks may hold different numbers
        losses = torch.stack([(each[0] * fit).mean(dim=1), each[1].mean(dim=1)])
        total = (losses * losses.new_tensor(self.rates)).sum()
        named = {f"rate_{rate:g}": loss.detach() for rate, loss in zip(self.rates, losses[1], strict=True)}
        return Terms(total, named)

    def logits(self, rate: int, vectors: Looks, *, choosing: bool = False) -> Float[np.ndarray, "clips views classes"]:
        """What a rate's head says to each look; the one that saw all clips, or the one by which it is chosen."""
        number = rate if choosing else len(self.rates) + rate
        device = self.heads.matrices.device
        with evaluating(self):
            found = self.heads(torch.from_numpy(vectors).to(device).flatten(0, 1), slice(number, number + 1))
        return found[0].cpu().numpy().reshape(*vectors.shape[:2], -1)

    def choose(self, vectors: Looks, labels: Labels) -> tuple[int, list[float]]:
        """The rate of the highest top-1 accuracy on held-out clips, and the accuracy of each; the likelihood decides
        between equals."""
        chances = [merged(self.logits(rate, vectors, choosing=True)) for rate in range(len(self.rates))]
        right = [score_classes(each, labels).top1 for each in chances]
        likely = [float(np.log(each[np.arange(len(labels)), labels] + 1e-12).mean()) for each in chances]
        return max(range(len(right)), key=lambda rate: (right[rate], likely[rate])), right


class _Linear:
    """The linear probe of a run."""

    def __init__(self, config: Recognition, context: Context) -> None:
        optim = context.optim
        if optim.optimizer != "sgd" or optim.clip_norm > 0:
            raise ConfigError(
                "task.mode = linear trains heads for several learning rates at once, which needs optim.optimizer = sgd "
                f"and optim.clip_norm = 0, not {optim.optimizer} and {optim.clip_norm:g}"
            )
        self.config, self.context = config, context
        classes = classes_of(context.manifest)
        config.check(context, classes)
        labels = labels_of(context.manifest, classes)
        held_out = held_out_clips(labels, config.probe.held_out, context.seed)
        self.known = LabelledFeatures(self._features(context.manifest, config.probe.views), labels, held_out)
        vectors = torch.from_numpy(self.known.features.vectors).flatten(0, 1)
        centre, spread = vectors.mean(dim=0), vectors.std(dim=0, correction=0)
        spread[spread == 0] = 1
        if not config.probe.standardise:
            centre, spread = torch.zeros_like(centre), torch.ones_like(spread)
        heads = ProbeHeads(2 * len(config.probe.rates), classes, centre, spread)
        self.task = ProbeTask(config.probe.rates, float(held_out.mean()), heads)

    def job(self) -> Job:
        """Heads alone; no encoder is trained."""
        items = self.known.features.items
        return Job(self.task, nn.Module(), items, self.batches, evaluate=self.evaluate, judge=self.judge)

    def batches(self, start: int, stop: int) -> Iterator[FeatureBatch]:
        """This rank's batches of vectors."""
        return self.known.batches(self.context.data.batch, self.context.seed, start, stop)

    def evaluate(self, model: nn.Module) -> dict[str, Scores]:
        """The chosen head on the test clips, a closed-form classifier beside it, and the names of the classes."""
        if not self.config.test:
            return {}
        test, folder = Manifest(self.config.test), self.context.results
        seen = self._features(test, self.config.views)
        best, tried = self.choose()
        rates = [self.context.optim.lr * factor for factor in self.task.rates]
        listed = ", ".join(f"{rate:g}: {right:.1f} %" for rate, right in zip(rates, tried, strict=True))
        views = views_in_words(self.config.views, self.context)
        words = f"linear probe, rate {rates[best]:g} by {self.known.held_out.sum()} training clips ({listed}); {views}"
        logits = self.task.logits(best, seen.vectors)
        found = score("recognition", logits, merged(logits), test, self.task.heads, words, folder)
        metrics = {
            **found.metrics,
            "recognition/held_out_top-1": tried[best],
            "recognition/rate": rates[best],
            "recognition_ridge/top-1": top1(self.closed_form(seen), test, self.task.heads),
        }
        encoder, reader = self.context.encoder, reader_of(self.context)
        cosines = seen.embeddings @ class_vectors(encoder, self.task.heads.classes.names, reader).numpy().T
        words = f"no training on classes, cosine of the clip and 12 prompts with the name of each class; {views}"
        named = score("recognition_zero_shot", cosines, cosines.mean(axis=1), test, self.task.heads, words, folder)
        return {"recognition": replace(found, metrics=metrics), "recognition_zero_shot": named}

    def judge(self, model: nn.Module, manifest: Manifest) -> float:
        """Top-1 accuracy of the chosen head on the middle of each clip."""
        logits = self.task.logits(self.choose()[0], self._features(manifest, Views()).vectors)
        return top1(merged(logits), manifest, self.task.heads)

    def choose(self) -> tuple[int, list[float]]:
        """The rate that does best on the held-out clips, and what each scores there."""
        held_out = self.known.held_out
        return self.task.choose(self.known.features.vectors[held_out], self.known.labels[held_out])

    def closed_form(self, seen: FixedFeatures) -> Float64[np.ndarray, "clips classes"]:
        """Scores of the least-squares classifier with the penalty that does best on the held-out clips."""
        heads, known, held_out = self.task.heads, self.known.features.vectors, self.known.held_out

        def scaled(looks: Looks) -> Tensor:
            return (torch.from_numpy(looks).double() - heads.centre.cpu()) / heads.spread.cpu()

        def scores(
            fit: Bool[np.ndarray, " known"], penalty: float, looks: Looks
        ) -> Float64[np.ndarray, "clips classes"]:
            vectors = scaled(known[fit])
            labels = torch.from_numpy(self.known.labels[fit]).repeat_interleave(vectors.shape[1])
            matrix, offsets = ridge(vectors.flatten(0, 1), labels, len(heads.classes), penalty)
            found: np.ndarray = (scaled(looks) @ matrix.T + offsets).mean(dim=1).numpy()
            return found

        def right(penalty: float) -> float:
            return score_classes(scores(~held_out, penalty, known[held_out]), self.known.labels[held_out]).top1

        return scores(np.ones_like(held_out), max(_PENALTIES, key=right), seen.vectors)

    def _features(self, manifest: Manifest, views: Views) -> FixedFeatures:
        context = self.context
        return fixed_features(
            context.encoder, manifest, reader_of(context), views, self.config.feature, context.folder / "features"
        )


def fixed_features(
    encoder: DualEncoder, manifest: Manifest, reader: Reader, views: Views, feature: Feature, folder: Path
) -> FixedFeatures:
    """Features of a manifest, from ``folder`` if the same encoder has made them of it in the same way before."""
    place = folder / f"{_key(encoder, manifest, reader, views, feature)}.npz"
    if not all_agree(place.is_file()):
        looks = views.of(reader.sampling)

        def keep(clip: StillClip, features: VideoFeatures, row: int) -> tuple[np.ndarray, np.ndarray]:
            vector = clip_vectors(_row(features, row), feature)[0]
            return vector.float().cpu().numpy(), features.embedding[row].float().cpu().numpy()

        pairs = encode_clips(encoder, manifest, reader, keep, "computing features", views=looks)
        if rank() == 0:
            both = (np.stack(each).reshape(len(manifest), len(looks), -1) for each in zip(*pairs, strict=True))
            FixedFeatures(tuple(entry.id for entry in manifest), *both).save(place)
        gather_objects(None)  # the other ranks wait for the file
    return FixedFeatures.load(place)


def _row(features: VideoFeatures, row: int) -> VideoFeatures:
    parts: dict[str, Any] = {
        name: value if value is None else value[row : row + 1] for name, value in vars(features).items()
    }
    return VideoFeatures(**parts)


def _key(encoder: DualEncoder, manifest: Manifest, reader: Reader, views: Views, feature: Feature) -> str:
    """A name that is another one as soon as weights, clips or the way they are read differ."""
    digest = hashlib.sha256(manifest.path.read_bytes())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    settings = [each.model_dump_json() for each in (encoder.config, reader.sampling, views)]
    digest.update(json.dumps([*settings, feature, str(manifest.root)]).encode())
    return f"{manifest.header.split}-{digest.hexdigest()[:16]}"


def class_vectors(encoder: DualEncoder, classes: Sequence[str], reader: Reader) -> Float[Tensor, "classes common"]:
    """Unit vectors of the names of classes, in readable words: the mean of their vectors in the prompts of Table 7."""
    prompts = [template.format(readable(name)) for name in classes for template in TEMPLATES]
    return F.normalize(encode_texts(encoder, prompts, reader).unflatten(0, (len(classes), -1)).mean(dim=1), dim=1)


# Classes and scores


def classes_of(manifest: Manifest) -> tuple[str, ...]:
    """The classes of a manifest in their official order, or where it states none, the labels in use, sorted."""
    return manifest.header.classes or tuple(sorted({label for entry in manifest for label in entry.labels}))


def labels_of(manifest: Manifest, classes: Sequence[str]) -> Labels:
    """The number of each clip's class.  Raises ManifestError for no classes, and a clip of none or of another."""
    if not classes:
        raise ManifestError(
            f"{manifest.path} has no classes; make it with `svilm prepare ucf101`, `hmdb51`, `kinetics` or "
            "`labelled-list`"
        )
    number = {name: number for number, name in enumerate(classes)}
    found = []
    for entry in manifest:
        if len(entry.labels) != 1 or entry.labels[0] not in number:
            raise ManifestError(
                f"{manifest.path}: {entry.id}: labels {list(entry.labels)} must be one of the {len(number)} classes "
                "of the training manifest; prepare both in the same way"
            )
        found.append(number[entry.labels[0]])
    return np.array(found, dtype=np.int64)


def merged(logits: Looks) -> Float64[np.ndarray, "clips classes"]:
    """Probabilities of the classes, averaged over the looks at each clip."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=2, keepdims=True))
    chances: np.ndarray = (raised / raised.sum(axis=2, keepdims=True)).mean(axis=1)
    return chances


def top1(scores: Float[np.ndarray, "clips classes"], manifest: Manifest, head: ClassHead | ProbeHeads) -> float:
    """Percent of clips whose own class has the highest score."""
    return score_classes(scores, labels_of(manifest, head.classes.names)).top1


def score(
    family: str,
    looks: Looks,
    scores: Float[np.ndarray, "clips classes"],
    test: Manifest,
    head: ClassHead | ProbeHeads,
    words: str,
    folder: Path,
) -> Scores:
    """Accuracies beside chance and the most frequent test class; names begin with ``family``.

    Scores, those of each look, the confusion matrix and the true labels are written to ``folder``, for
    `svilm score classification`.
    """
    classes = head.classes.names
    found = score_classes(scores, labels_of(test, classes))
    if rank() == 0:
        arrays = {
            "ids": np.array([entry.id for entry in test]),
            "labels": np.array([entry.labels[0] for entry in test]),
            "classes": np.array(classes),
            "scores": scores,
            "views": looks,
            "confusion": found.confusion,
        }
        write_arrays(folder / f"{family.replace('recognition', 'predictions')}.npz", arrays)
    metrics = {f"{family}/{name}": value for name, value in found.metrics().items()}
    metrics |= {f"{family}_{name}": value for name, value in found.baselines().items()}
    protocol = f"{test.header.protocol or test.header.source}; {words}; {found.protocol}"
    return Scores(metrics, found.num_clips, test.header.official, protocol)


def views_in_words(views: Views, context: Context) -> str:
    """How test clips are looked at."""
    sampling = context.data.sampling
    kind = f"{sampling.num_frames} frames of {sampling.size}x{sampling.size}, {sampling.strategy}"
    return f"{views.clips} x {views.crops} views ({kind})"
