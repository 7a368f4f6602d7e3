"""What the model does with videos, in pictures: search results, similarity of moments, heat of nouns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from svilm import draw
from svilm.config import ConfigError
from svilm.data.manifest import Entry, Manifest
from svilm.data.sample import load_clip
from svilm.data.world import ClipTruth, WorldError, read_truth
from svilm.metrics.retrieval import rank_similarity
from svilm.metrics.similarity import SceneSimilarity, within_and_across
from svilm.model import HeatMap, SViLM
from svilm.models.dual import DualEncoder
from svilm.run import Run, Start, initial_encoder, reader_of
from svilm.tasks import retrieval
from svilm.tasks.temporal import SceneClip, scene_clips

FILM_FRAMES, FILM_SIDE = 12, 112
STRIP_SIDE, STRIP_GAP, THUMBNAIL_SIDE = 96, 3, 48
TOP = 5
SCENE_CLIPS = 4
"""Clips whose matrices are shown; the means are over all."""
HEAT_CLIPS, HEAT_CLIPS_MEASURED = 4, 40


@dataclass(frozen=True)
class Film:
    """All frames of a clip in one picture, side by side, to be shown one after the other."""

    uri: str
    frames: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """A video found for a query."""

    film: Film
    place: int
    similarity: float
    right: bool
    id: str
    caption: str


@dataclass(frozen=True)
class Query:
    """A caption with the videos found for it; the right one follows when it is not among the first."""

    caption: str
    rank: float
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Queries:
    """The queries shown, of how many, over how many videos."""

    shown: tuple[Query, ...]
    total: int
    videos: int

    @property
    def first(self) -> int:
        """Queries shown whose right video came first."""
        return sum(query.rank < 2 for query in self.shown)

    @property
    def among_top(self) -> int:
        """Queries shown whose right video is among the first TOP."""
        return sum(query.rank < TOP + 1 for query in self.shown)


def queries(run: Run, model: SViLM, count: int) -> Queries:
    """The first caption of each of the first ``count`` clips as a query over all clips of the test manifest.

    Raises ValueError when the run has no test manifest, and what reading videos raises.
    """
    test = _manifest(run.retrieval.manifest, "No test manifest in the run (retrieval.manifest), so nothing to search.")
    vectors = retrieval.encode(model.encoder, test, reader_of(_here(run), model.tokenizer))
    first: dict[int, int] = {}
    for query, clip in enumerate(vectors.owner):
        first.setdefault(clip, query)
    asked = [(clip, first[clip]) for clip in list(first)[:count]]
    similarity = vectors.similarity[[query for _, query in asked]]
    ranks = rank_similarity(similarity, [[clip] for clip, _ in asked]).ranks()
    films: dict[int, Film] = {}
    shown = []
    for (clip, _), row, rank in zip(asked, similarity, ranks, strict=True):
        order = np.argsort(-row, kind="stable")
        places = list(range(min(TOP, len(order))))
        if clip not in order[:TOP]:
            places.append(int(np.flatnonzero(order == clip)[0]))
        results = []
        for place in places:
            found = int(order[place])
            entry = test[found]
            if found not in films:
                films[found] = _film(test, entry, run)
            results.append(
                Result(films[found], place + 1, float(row[found]), found == clip, entry.id, _caption(entry))
            )
        shown.append(Query(_caption(test[clip]), float(rank), tuple(results)))
    return Queries(tuple(shown), len(vectors.owner), len(test))


def _film(manifest: Manifest, entry: Entry, run: Run) -> Film:
    clip = load_clip(manifest.path_of(entry), entry.start, entry.end, run.data.sampling, None)
    frames = clip.frames.numpy()
    lasting = float(clip.seconds[-1] - clip.seconds[0]) * len(frames) / max(1, len(frames) - 1)
    frames = frames[draw.evenly(len(frames), FILM_FRAMES)]
    picture = draw.strip(draw.resized(frames, FILM_SIDE))
    return Film(draw.as_data_uri(picture), len(frames), float(np.clip(lasting, 1.0, 4.0)))


# Moments of a clip


@dataclass(frozen=True)
class Side:
    """One model's similarities of one clip."""

    matrix: Markup
    numbers: SceneSimilarity


@dataclass(frozen=True)
class SceneRow:
    """One clip as all models see it."""

    id: str
    caption: str
    changes: str
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class Scenes:
    """Matrices of a few clips, and the means over all of them, one per model."""

    names: tuple[str, ...]
    rows: tuple[SceneRow, ...]
    means: tuple[tuple[float, float, float, float], ...]
    """Similarity within and across scenes, their difference, percent of clips told apart."""
    clips: int
    bar: Markup


def scenes(run: Run, model: SViLM, baseline: tuple[str, Run, SViLM] | None) -> Scenes:
    """Similarity of the moments of clips with true scene changes, this run beside the baseline run.

    Without a baseline the same model before training stands beside.  Raises ValueError when the run has no
    manifest of scene changes.
    """
    where = "No manifest with scene changes in the run (temporal.manifest; --scenes)."
    manifest = _manifest(run.temporal.manifest, where)
    sides = [("This run", run, model.encoder, model)]
    if baseline is not None:
        sides.append((f"Baseline run {baseline[0]}", baseline[1], baseline[2].encoder, baseline[2]))
    else:
        sides.append(("The same model, untrained", run, _untrained(run, model), model))
    found = [
        scene_clips(encoder, manifest, reader_of(_here(r), m.tokenizer)) for _, r, encoder, m in sides
    ]
    if not all(found):
        raise ValueError(f"{manifest.path}: no clip shows two scenes")
    shown = [_same_clip(clips, found) for clips in found[0]]
    shown = [row for row in shown if row is not None][:SCENE_CLIPS]
    low = min(float(clip.similarity.min()) for row in shown for clip in row)
    limits = (float(np.floor(low * 10) / 10), 1.0)
    rows = []
    for clips in shown:
        pictures = tuple(
            Side(_matrix(manifest, clip, r, limits, name), within_and_across(clip.similarity, clip.scenes))
            for clip, (name, r, _, _) in zip(clips, sides, strict=True)
        )
        entry = clips[0].entry
        changes = ", ".join(f"{change:.2f} s" for change in entry.scene_changes)
        rows.append(SceneRow(entry.id, _caption(entry), changes, pictures))
    bar = Markup(draw.as_svg(draw.colour_bar(limits), f"Colours from similarity {limits[0]:g} to 1"))
    return Scenes(tuple(side[0] for side in sides), tuple(rows), tuple(map(_means, found)), len(found[0]), bar)


def _same_clip(clip: SceneClip, found: Sequence[Sequence[SceneClip]]) -> tuple[SceneClip, ...] | None:
    """The clip as each model sees it; None when one of them has too few moments to see both scenes."""
    same = tuple(next((c for c in clips if c.entry.id == clip.entry.id), None) for clips in found)
    return tuple(c for c in same if c is not None) if None not in same else None


def _means(clips: Sequence[SceneClip]) -> tuple[float, float, float, float]:
    pairs = [within_and_across(clip.similarity, clip.scenes) for clip in clips]
    within, across = (float(np.mean([pair[i] for pair in pairs])) for i in (0, 1))
    return within, across, within - across, 100.0 * float(np.mean([pair.gap > 0 for pair in pairs]))


def _matrix(manifest: Manifest, clip: SceneClip, run: Run, limits: tuple[float, float], name: str) -> Markup:
    entry = clip.entry
    frames = load_clip(manifest.path_of(entry), entry.start, entry.end, run.data.sampling, None).frames.numpy()
    steps = len(clip.similarity)
    middle = (np.arange(steps) * 2 + 1) * len(frames) // (2 * steps)
    thumbnails = draw.resized(frames[middle], THUMBNAIL_SIDE)
    figure = draw.similarity_matrix(clip.similarity, clip.scenes, thumbnails, limits)
    return Markup(draw.as_svg(figure, f"{name}: similarity of every two moments of {entry.id}"))


def _untrained(run: Run, model: SViLM) -> DualEncoder:
    return initial_encoder(run.model_copy(update={"start": Start()})).to(model.device).eval()


# Nouns


@dataclass(frozen=True)
class Heat:
    """Where the model sees a noun: the frames with heat, and how much of it lies in the true box, if known."""

    noun: str
    strip: str
    similarity: float
    group: int
    inside: float | None
    area: float | None


@dataclass(frozen=True)
class HeatRow:
    """A clip with its nouns."""

    id: str
    caption: str
    strip: str
    seconds: tuple[str, ...]
    nouns: tuple[Heat, ...]


@dataclass(frozen=True)
class Heats:
    """Heat maps of a few clips; where true boxes are known, how much heat they hold, over more clips."""

    rows: tuple[HeatRow, ...]
    inside: float | None
    area: float | None
    nouns: int
    clips: int


def heats(run: Run, model: SViLM) -> Heats:
    """Heat maps of the nouns in the first captions of the first clips (of the test manifest, if there is one).

    Raises ValueError when no clip has a noun, and what reading videos raises.
    """
    source = run.retrieval.manifest or run.data.manifest
    manifest = _manifest(source, "No manifest in the run, so no clip to look at.")
    truth = _truth_beside(manifest)
    rows: list[HeatRow] = []
    measured: list[tuple[float, float]] = []
    clips = 0
    for number in range(min(len(manifest), HEAT_CLIPS_MEASURED)):
        if len(rows) >= HEAT_CLIPS and not truth:
            break
        entry = manifest[number]
        nouns = entry.nouns[0][:2] if entry.nouns else ()
        if not nouns:
            continue
        clips += 1
        maps = [model.ground(manifest.path_of(entry), noun, entry.start, entry.end) for noun in nouns]
        boxes = [_boxes(truth.get(Path(entry.video).stem), found) for found in maps]
        shares = [inside_boxes(m.heat, b) for m, b in zip(maps, boxes, strict=True)]
        measured += [share for share in shares if share is not None]
        if len(rows) < HEAT_CLIPS:
            rows.append(_heat_row(entry, maps, boxes, shares))
    if not rows:
        raise ValueError(f"{manifest.path}: none of the first clips has a noun")
    inside, area = (float(np.mean([pair[i] for pair in measured])) if measured else None for i in (0, 1))
    return Heats(tuple(rows), inside, area, len(measured), clips)


def inside_boxes(
    heat: Float[np.ndarray, "frames high wide"], boxes: Sequence[draw.Box | None]
) -> tuple[float, float] | None:
    """Share of the heat that lies inside the boxes of its frames, and share of the picture that they cover.

    Both over the whole clip; None without any box or any heat.
    """
    high, wide = heat.shape[1:]
    mask = np.zeros(heat.shape, dtype=bool)
    for frame, box in enumerate(boxes):
        if box is not None:
            left, right = round(box[0] * wide), max(round(box[2] * wide), round(box[0] * wide) + 1)
            top, bottom = round(box[1] * high), max(round(box[3] * high), round(box[1] * high) + 1)
            mask[frame, top:bottom, left:right] = True
    if not mask.any() or not heat.sum():
        return None
    return float(heat[mask].sum() / heat.sum()), float(mask.mean())


def _heat_row(
    entry: Entry,
    maps: Sequence[HeatMap],
    boxes: Sequence[Sequence[draw.Box | None]],
    shares: Sequence[tuple[float, float] | None],
) -> HeatRow:
    chosen = draw.evenly(len(maps[0].frames))
    nouns = []
    for found, box, share in zip(maps, boxes, shares, strict=True):
        pictures = draw.resized(draw.with_heat(found.frames[chosen], found.heat[chosen]), STRIP_SIDE)
        pictures = draw.with_boxes(pictures, [box[frame] for frame in chosen])
        inside, area = share if share is not None else (None, None)
        uri = draw.as_data_uri(draw.strip(pictures, STRIP_GAP))
        nouns.append(Heat(found.noun, uri, found.similarity, found.group, inside, area))
    plain = draw.strip(draw.resized(maps[0].frames[chosen], STRIP_SIDE), STRIP_GAP)
    seconds = tuple(f"{maps[0].seconds[frame]:.2f} s" for frame in chosen)
    return HeatRow(entry.id, _caption(entry), draw.as_data_uri(plain), seconds, tuple(nouns))


def _truth_beside(manifest: Manifest) -> dict[str, ClipTruth]:
    """Exact boxes by name of the video, when the videos are those of a drawn world."""
    for folder in (manifest.root, manifest.root.parent):
        if (folder / "truth.jsonl").is_file():
            try:
                return {record.id: record for record in read_truth(folder)}
            except WorldError:
                return {}
    return {}


def _boxes(truth: ClipTruth | None, found: HeatMap) -> tuple[draw.Box | None, ...]:
    """The true box of a noun in each frame that the model saw; None where it is unknown or not seen."""
    nothing = (None,) * len(found.frames)
    if truth is None:
        return nothing
    try:
        boxes = truth.boxes(found.noun)
    except KeyError:
        return nothing
    numbers = (int(second * truth.fps + 1e-3) for second in found.seconds)
    return tuple(boxes[min(number, len(boxes) - 1)] for number in numbers)


# Common


def _manifest(path: str, otherwise: str) -> Manifest:
    if not path:
        raise ConfigError(otherwise)
    return Manifest(path)


def _here(run: Run) -> Run:
    """The run read without worker processes, whose errors arrive as they were raised."""
    return run.model_copy(update={"data": run.data.model_copy(update={"workers": 0})})


def _caption(entry: Entry) -> str:
    return entry.captions[0] if entry.captions else "(no caption)"
