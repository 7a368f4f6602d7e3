"""Temporal action localization: G-TAD on frozen snippet features, judged as ActivityNet does (Tables 4, 5, 11).

The network proposes segments without a class.  A class comes from scores of the whole video: those of a file, as
papers on ActivityNet have it (this one does not say which file), or of a linear classifier on mean features of the
training videos.  Each result says which.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import nn
from tqdm import tqdm

from svilm.config import ConfigError, ManifestFile
from svilm.data.class_scores import ClassScores, read_class_scores
from svilm.data.loader import Order
from svilm.data.manifest import Entry, Manifest
from svilm.data.snippets import FeatureFolder, Origin, SnippetError, Snippets
from svilm.engine.state import tolerated
from svilm.engine.task import Context, Features, Job, Task, TaskSettings
from svilm.features.extract import Extraction, extract
from svilm.features.timelines import TimelineBatch, mean_features, spans, timeline_batches, training_spans
from svilm.metrics.activitynet import THRESHOLDS, Prediction, SegmentScores, evaluate_segments
from svilm.metrics.proposals import ProposalConfig, Proposals, average_recall, label, proposals, soft_nms
from svilm.models.gtad import GTAD, GTADConfig, GTADOutput
from svilm.models.gtad_loss import GTADLossConfig, gtad_loss
from svilm.models.mean_classifier import MeanClassifier
from svilm.runtime import derive_seed, gather_objects, rank, world_size
from svilm.tasks.common import evaluating
from svilm.types import Scores, Segment, Terms

ABOUT = "localization.json"
"""What a run folder keeps for `svilm localize`: the classes, and how the features were made."""
PREDICTIONS = "predictions.json"
"""What was found in the test videos, as one hands it in to ActivityNet."""
SHOWN = (0.5, 0.75, 0.95)
"""Overlaps whose mAP Table 4 has."""
RANDOM_SEGMENTS = 100
"""Segments per video that the random baseline draws."""

Detection = tuple[Segment, float]
"""A segment with its class, and its score: higher means surer."""


class Localization(TaskSettings):
    """What is localized and how; the defaults are those for ActivityNet."""

    kind: Literal["localization"] = "localization"
    """Temporal action localization on frozen features."""
    test: ManifestFile = ""
    """Test manifest; empty: nothing is scored."""
    features: str = ""
    """Folder with features of the training and test videos, from `svilm features` or others; empty: the run's
    encoder makes them, in the run folder."""
    extraction: Extraction = Extraction()
    """How the run makes features."""
    network: GTADConfig = GTADConfig()
    """The network; its `channels` are the width of the features."""
    loss: GTADLossConfig = GTADLossConfig()
    """Weights of its losses."""
    proposals: ProposalConfig = ProposalConfig()
    """From its scores to segments."""
    view: Literal["video", "window"] = "video"
    """What the network sees at once: the whole video, resized (ActivityNet), or windows of `network.steps` snippets,
    each half a window after the one before (THUMOS14)."""
    class_scores: str = ""
    """File of class scores of the test videos (.npz, or .json in the CUHK layout); empty: a linear classifier is
    fitted."""
    classify: Literal["video", "segment"] = "video"
    """What the classifier looks at: the mean feature of the video, or of each segment by itself, for videos that show
    several kinds of actions."""
    top: int = Field(2, ge=1)
    """Classes that each proposal is given."""
    overlaps: tuple[float, ...] = ()
    """Temporal overlaps at which mAP is computed; empty: 0.5 to 0.95 in ten steps, as ActivityNet's script."""

    def job(self, context: Context) -> Job:
        """The network and the classifier, on the training videos that have features."""
        folder = features_of(self, context, context.manifest)
        classes = _classes(context.manifest)
        entries = _usable(folder, context)
        items = training_spans(entries, folder, self.view, self.network.steps)
        _check_width(self.network, folder, entries[0])
        torch.manual_seed(derive_seed(context.seed, "localization"))  # whether or not an encoder was built before
        task = LocalizationTask(self, classes)
        _ = task.scores  # a wrong file is told before training
        test = Manifest(self.test) if self.test else None
        if test is not None:
            _check_test(task, features_of(self, context, test), test, bool(context.manifest.header.classes))
        if rank() == 0:
            write_about(context.folder, classes, folder.origin)

        def batches(start: int, stop: int) -> Iterable[TimelineBatch]:
            if start == 0:  # later it comes from the checkpoint
                task.fit(folder, entries)
            order = Order(len(items), context.data.batch, context.seed, start, stop)
            return timeline_batches(items, folder, self.network, order, context.data.workers)

        def evaluate(model: nn.Module) -> dict[str, Scores]:
            if test is None:
                return {}
            source = features_of(self, context, test)
            videos = find_all(task.to(context.device), source, test, context.seed)
            scores = score(task, videos, test, str(source))
            if rank() == 0:
                write_predictions(context.results / PREDICTIONS, videos, scores.protocol)
            return {"localization": scores}

        def judge(model: nn.Module, validation: Manifest) -> float:
            videos = find_all(task, features_of(self, context, validation), validation, context.seed)
            return 100 * judged(self, videos, "").average_map

        return Job(task, nn.Module(), len(items), batches, evaluate, judge)


class LocalizationTask(Task):
    """G-TAD, and beside it a linear classifier where no file gives class scores."""

    def __init__(self, settings: Localization, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.settings, self.classes = settings, classes
        self.network = GTAD(settings.network)
        self.classifier = None if settings.class_scores else MeanClassifier(settings.network.channels, len(classes))

    @cached_property
    def scores(self) -> ClassScores | None:
        """The class scores that the settings name, if they do."""
        file = self.settings.class_scores
        return read_class_scores(file).ordered(self.classes) if file else None

    def features(self, model: nn.Module, batch: TimelineBatch) -> Features:
        """Logits: start (B, T), end (B, T), map (B, 2, D, T)."""
        output = self.network(batch.features)
        return {"start": output.start_logits, "end": output.end_logits, "map": output.map_logits}

    def loss(self, model: nn.Module, features: Features, batch: TimelineBatch) -> Terms:
        """The terms of G-TAD."""
        output = GTADOutput(features["start"], features["end"], features["map"])
        draw = torch.Generator().manual_seed(int(torch.randint(2**62, ())))  # follows the seed of the step
        losses = gtad_loss(output, batch.targets, self.settings.loss, draw)
        reported = {name: value.detach() for name, value in losses.items()}
        return Terms(torch.stack(list(losses.values())).sum(), reported)

    def fit(self, folder: FeatureFolder, entries: Sequence[Entry]) -> None:
        """Fit the classifier to the labelled videos; nothing is done where class scores come from a file."""
        if self.classifier is None:
            return
        number_of = {name: number for number, name in enumerate(self.classes)}
        means, labels, videos = [], [], []
        bar = tqdm(entries, desc="class scores", unit="video", disable=rank() > 0, file=sys.stderr, leave=False)
        for video, entry in enumerate(bar):
            snippets = folder.read(entry)
            pairs = [(s.start, s.end, s.label) for s in entry.segments]
            if self.settings.classify == "video":
                pairs = [(0.0, snippets.covered, name) for name in dict.fromkeys(s.label for s in entry.segments)]
            means.append(mean_features(snippets, np.array([pair[:2] for pair in pairs])))
            labels += [number_of[name] for _, _, name in pairs]
            videos += [video] * len(pairs)
        self.classifier.fit(np.concatenate(means), labels, videos)

    def propose(self, entry: Entry, snippets: Snippets) -> Proposals:
        """The best segments of a video in seconds, without classes."""
        config, found = self.settings.proposals, []
        duration = _duration(entry, snippets)
        with evaluating(self) as device:
            for span in spans(entry, snippets, self.settings.view, self.settings.network.steps):
                seen, begin, covered = span.seen(snippets, self.settings.network.steps)
                output = self.network(seen[None].to(device))
                start, end, maps = (each[0].cpu().numpy() for each in (output.start, output.end, output.maps))
                until = duration - begin if self.settings.view == "window" else np.inf  # only windows are filled up
                found.append(proposals(start, end, maps, covered, config, until) + np.array([begin, begin, 0.0]))
        whole = found[0] if len(found) == 1 else soft_nms(np.concatenate(found), config.sigma, config.keep)
        whole[:, :2] = whole[:, :2].clip(0.0, duration)
        return whole[whole[:, 1] > whole[:, 0]]

    def label(self, entry: Entry, snippets: Snippets, found: Proposals) -> list[Detection]:
        """Proposals with their best classes, the best first."""
        top = self.settings.top
        if self.scores is not None:
            parts = [label(found, self.scores.of(entry.id), top)]
        elif self.settings.classify == "video":
            whole = np.array([[0.0, snippets.covered]])
            parts = [label(found, self.probabilities(snippets, whole)[0], top)]
        else:
            each = self.probabilities(snippets, found[:, :2])
            parts = [label(found[number : number + 1], chances, top) for number, chances in enumerate(each)]
        rows = [
            (Segment(float(start), float(end), self.classes[number]), float(score))
            for labelled, numbers in parts
            for (start, end, score), number in zip(labelled, numbers, strict=True)
        ]
        return sorted(rows, key=lambda row: -row[1])

    @torch.no_grad()
    def probabilities(
        self, snippets: Snippets, segments: Float[np.ndarray, "segments 2"]
    ) -> Float[np.ndarray, "segments classes"]:
        """What the classifier says of the mean feature of each segment, which is in seconds."""
        assert self.classifier is not None
        means = torch.from_numpy(mean_features(snippets, segments)).to(self.classifier.matrix.device)
        chances: np.ndarray = self.classifier(means).cpu().double().numpy()
        return chances

    @property
    def source(self) -> str:
        """Where the classes of proposals come from, in words."""
        if self.scores is not None:
            return f"class scores: {self.scores.source}, {Path(self.settings.class_scores).name}"
        return f"class scores: own linear classifier on the mean feature of each {self.settings.classify}"


# Features


def features_of(settings: Localization, context: Context, manifest: Manifest) -> FeatureFolder:
    """The features of a manifest's videos, made now where the run makes them itself."""
    if settings.features:
        return FeatureFolder(settings.features)
    data, place = context.data, context.folder / "features"
    made = extract(
        context.encoder, manifest, place, settings.extraction, data.sampling, name="this run", workers=data.workers
    )
    if made.unreadable and rank() == 0:
        print(made, file=sys.stderr)
    return FeatureFolder(place)


def _usable(folder: FeatureFolder, context: Context) -> list[Entry]:
    """The labelled training videos that have features.

    The others are counted aloud; raises SnippetError when they are more than `data.skip_budget` allows.
    """
    labelled = [entry for entry in context.manifest if entry.segments]
    usable = [entry for entry in labelled if folder.find(entry) is not None]
    missing = len(labelled) - len(usable)
    if not missing:
        return usable
    words = f"{missing} of {len(labelled)} training videos have no features in {folder.path}"
    if not usable or missing > tolerated(context.data.skip_budget, len(labelled)):
        try:
            folder.read(next(entry for entry in labelled if folder.find(entry) is None))
        except SnippetError as error:
            raise SnippetError(f"{words}, more than data.skip_budget = {context.data.skip_budget}; {error}") from None
    if rank() == 0:
        print(f"{words}; they are left out", file=sys.stderr)
    return usable


def _classes(manifest: Manifest) -> tuple[str, ...]:
    """All classes, in the manifest's order.  Raises ConfigError when it has no segments."""
    found = {segment.label for entry in manifest for segment in entry.segments}
    if not found:
        raise ConfigError(f"{manifest.path}: no entry has segments; prepare it with `svilm prepare activitynet`")
    surplus = sorted(found - set(manifest.header.classes))
    if manifest.header.classes and surplus:
        raise ConfigError(f"{manifest.path}: a segment is labelled {surplus[0]!r}, which is not among its classes")
    return manifest.header.classes or tuple(sorted(found))


def _check_width(network: GTADConfig, folder: FeatureFolder, entry: Entry) -> None:
    width = folder.read(entry).rows.shape[1]
    if width != network.channels:
        raise ConfigError(
            f"task.network.channels = {network.channels}, but the features in {folder.path} are {width} wide; "
            f"set task.network.channels={width}"
        )


def _check_test(task: LocalizationTask, folder: FeatureFolder, test: Manifest, stated: bool) -> None:
    """Raise before the training what would end the run after it, or count as missed without a word.

    Test classes without a training video may be where the training list has ``stated`` none; they are told aloud.
    """
    labels = {segment.label for entry in test for segment in entry.segments}
    strangers = sorted(labels - set(task.classes))
    words = f"task.test: {test.path}: {len(strangers)} of {len(labels)} classes are not those of training"
    if not labels:
        raise ConfigError(f"task.test: {test.path}: no entry has segments; prepare it with `svilm prepare activitynet`")
    if strangers and (stated or len(strangers) == len(labels)):
        raise ConfigError(f"{words}, such as {strangers[0]!r}; prepare both lists from the same annotations")
    if strangers and rank() == 0:
        print(f"{words}; their segments count as missed", file=sys.stderr)
    for entry in test:
        if folder.find(entry) is None:
            folder.read(entry)  # which says what is missing
        if task.scores is not None:
            task.scores.of(entry.id)
    _check_width(task.settings.network, folder, test[0])


def write_about(folder: Path, classes: Sequence[str], origin: Origin | None) -> None:
    """Keep in a run folder what `svilm localize` needs beside the weights."""
    about = {"classes": list(classes), "features": None if origin is None else asdict(origin)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_about(folder: Path) -> tuple[tuple[str, ...], Origin | None]:
    """The classes of a run and how its features were made.  Raises ConfigError where there is none of it."""
    path = folder / ABOUT
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the folder of a run that was trained on localization")
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return tuple(about["classes"]), None if about["features"] is None else Origin(**about["features"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({error!r}); train the run again") from None


# Scores


@dataclass(frozen=True)
class Found:
    """What was found in a video, by the network ("") and by the baselines."""

    entry: Entry
    proposals: Mapping[str, Proposals]
    detections: Mapping[str, Sequence[Detection]]


def find_all(task: LocalizationTask, folder: FeatureFolder, manifest: Manifest, seed: int) -> list[Found]:
    """What is found in each video of a manifest, in its order, on every rank.

    Baselines: the whole video as one segment, and random segments with random scores; their classes come from where
    those of the network's proposals come from.  Raises SnippetError for a video without features: a score never
    leaves one out in silence.
    """
    own = range(rank(), len(manifest), world_size())
    bar = tqdm(own, desc="localizing", unit="video", disable=rank() > 0, file=sys.stderr, leave=False)
    parts = gather_objects({number: _find(task, folder, manifest[number], seed) for number in bar})
    everything = {number: found for part in parts for number, found in part.items()}
    return [everything[number] for number in range(len(manifest))]


def _find(task: LocalizationTask, folder: FeatureFolder, entry: Entry, seed: int) -> Found:
    snippets = folder.read(entry)
    duration = _duration(entry, snippets)
    rng = np.random.default_rng(derive_seed(seed, "random segments", entry.id))
    times = np.sort(rng.random((RANDOM_SEGMENTS, 2)), axis=1) * duration
    found = {
        "": task.propose(entry, snippets),
        "whole_video": np.array([[0.0, duration, 1.0]]),
        "random": np.column_stack([times, np.sort(rng.random(RANDOM_SEGMENTS))[::-1]]),
    }
    return Found(entry, found, {name: task.label(entry, snippets, each) for name, each in found.items()})


def score(task: LocalizationTask, videos: Sequence[Found], manifest: Manifest, features: str) -> Scores:
    """mAP by the official rules, in percent, and what helps to understand it, for the network and the baselines.

    `average_AP_without_classes` is the average mAP when all segments are of one class; `AR@n` the share of segments
    that one of the first n proposals covers.
    """
    metrics: dict[str, float] = {}
    for name in videos[0].proposals:
        family = f"localization_{name}" if name else "localization"
        result = judged(task.settings, videos, name)
        alone = judged(task.settings, videos, name, classes=False)
        truth = [np.array([[s.start, s.end] for s in each.entry.segments]).reshape(-1, 2) for each in videos]
        recall = average_recall([each.proposals[name] for each in videos], truth)
        metrics |= {f"{family}/{key}": value for key, value in _shown(task.settings, result).items()}
        metrics[f"{family}/average_AP_without_classes"] = 100 * alone.average_map
        metrics |= {f"{family}/AR@{number}": value for number, value in recall.items()}
    ours = judged(task.settings, videos, "")
    listed = manifest.header.protocol or manifest.header.source
    protocol = "; ".join([listed, ours.protocol, task.source, f"features: {features}"])
    return Scores(metrics, scored=len(videos), official=manifest.header.official, protocol=protocol)


def judged(settings: Localization, videos: Sequence[Found], name: str, *, classes: bool = True) -> SegmentScores:
    """The official average precisions of what ``name`` found; without ``classes``, of its proposals."""
    truth = {
        each.entry.id: [(s.start, s.end, s.label if classes else "") for s in each.entry.segments] for each in videos
    }
    predictions: list[Prediction] = []
    for each in videos:
        if classes:
            rows = [(s.start, s.end, s.label, value) for s, value in each.detections[name]]
        else:
            rows = [(start, end, "", value) for start, end, value in each.proposals[name].tolist()]
        predictions += [(each.entry.id, *row) for row in rows]
    thresholds = np.array(settings.overlaps) if settings.overlaps else THRESHOLDS
    # a small test set may lack a class; the official script stops at a prediction of it
    return evaluate_segments(truth, predictions, unknown_labels="ignore", thresholds=thresholds)


def _shown(settings: Localization, result: SegmentScores) -> dict[str, float]:
    """The metrics that tables have: all of one's own overlaps, or three of ActivityNet's ten, and the average."""
    names = [f"mAP@{overlap:.2f}" for overlap in settings.overlaps or SHOWN]
    metrics = result.metrics()
    return {name: metrics[name] for name in [*names, "average_mAP"]}


def write_predictions(path: Path, videos: Sequence[Found], details: str) -> None:
    """Write what the network found as ActivityNet wants it; `svilm score activitynet` judges the file."""
    results = {
        each.entry.id: [
            {"label": segment.label, "score": value, "segment": [segment.start, segment.end]}
            for segment, value in each.detections[""]
        ]
        for each in videos
    }
    whole = {"version": "VERSION 1.3", "results": results, "external_data": {"used": True, "details": details}}
    path.write_text(json.dumps(whole) + "\n", encoding="utf-8")


def _duration(entry: Entry, snippets: Snippets) -> float:
    return snippets.covered if entry.duration is None else entry.duration
