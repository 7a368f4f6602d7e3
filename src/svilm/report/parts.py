"""What the report shows of a run, part by part; each part has a template of its name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from svilm.draw import as_data_uri
from svilm.model import SViLM
from svilm.report import boxes, classes, curves, nouns, numbers, questions, scenes, scores, search, segments
from svilm.report.about import about
from svilm.report.common import Absent, Files, attempt


@dataclass(frozen=True)
class Part:
    """One section: the template ``name``.html shows ``shown``."""

    name: str
    link: str
    """Its name in the navigation."""
    heading: str
    shown: object
    aside: bool = False
    """Whether it is folded where several runs share a page."""


@dataclass(frozen=True)
class Facts:
    """The run itself in tables."""

    environment: list[tuple[str, str]]
    settings: list[tuple[str, str, str]]
    differences: list[tuple[str, str, str]]


@dataclass(frozen=True)
class View:
    """A run as a page shows it."""

    files: Files
    other: Files | None
    """The baseline run beside it."""
    id: str
    """Before the ids of its parts, where several runs share a page."""
    title: str
    """Its task."""
    sentence: str
    hardware: str
    weights: int
    skipped: int
    tiles: tuple[numbers.Tile, ...]
    parts: tuple[Part, ...]

    def shown(self, name: str) -> object:
        """What the part of this name shows; an Absent where there is no such part."""
        return next((part.shown for part in self.parts if part.name == name), Absent("not part of this report"))


def view(files: Files, other: Files | None, queries: int, id: str = "") -> View:
    """Everything that the report says of a run, beside a baseline run if there is one.

    ``queries`` is how many queries are shown with the videos found for them.
    """
    model = attempt(lambda: SViLM.from_pretrained(files.folder))
    tiles = [*numbers.headline(files, other), *scores.tiles(files, other)]
    if files.run.task.kind == "pretrain":
        main = _pretrain_parts(files, other, queries, model)
    else:
        main = _task_parts(files, other, queries, model)
    parts = (*main, *_training_parts(files, other))
    for part in parts:
        if isinstance(part.shown, nouns.Heats) and part.shown.share is not None and not part.shown.table:
            tiles.append(numbers.heat_tile(part.shown.share.inside, part.shown.share.area))
    return View(
        files,
        other,
        id,
        about(files.run).title,
        numbers.sentence(files),
        numbers.hardware(files),
        sum(p.numel() for p in model.encoder.parameters()) if isinstance(model, SViLM) else 0,
        curves.skipped(files),
        tuple(tiles),
        parts,
    )


def _pretrain_parts(files: Files, other: Files | None, queries: int, model: SViLM | Absent) -> Iterator[Part]:
    """Pre-training, and fine-tuning with the same losses."""
    yield from _retrieval_parts(files, other, queries, model)
    if files.run.temporal.manifest or not files.run.start.model:
        yield _scenes_part(files, other, model)
    if not files.run.start.model:
        table = numbers.beside_table(files, other, "grounding", tuple(nouns.COLUMNS), nouns.BLIND)
        heats = attempt(lambda: replace(nouns.heats(files.run, _there(model)), table=table))
        yield Part("nouns", "Nouns", "Where the model sees a noun", heats)


def _task_parts(files: Files, other: Files | None, queries: int, model: SViLM | Absent) -> Iterator[Part]:
    """A downstream task: its scores, what it looks like, and what else the run was asked for."""
    yield Part("scores", "Scores", "Scores", attempt(lambda: scores.tables(files, other)))
    pictures: dict[str, tuple[str, str, str, Callable[[Files], object]]] = {
        "vqa": ("questions", "Questions", "Questions and answers", questions.answered),
        "recognition": ("classes", "Classes", "Which classes are taken for which", classes.classes),
        "localization": ("segments", "Timelines", "Found in time", segments.timelines),
        "ava": ("boxes", "Keyframes", "Who does what", boxes.keyframes),
    }
    if files.run.task.kind in pictures:
        name, link, heading, build = pictures[files.run.task.kind]
        yield Part(name, link, heading, attempt(lambda: build(files)))
    if files.run.retrieval.manifest:
        yield from _retrieval_parts(files, other, queries, model)
    if files.run.temporal.manifest:
        yield _scenes_part(files, other, model)


def _retrieval_parts(files: Files, other: Files | None, queries: int, model: SViLM | Absent) -> Iterator[Part]:
    tables = attempt(lambda: numbers.retrieval_tables(files, other))
    yield Part("retrieval", "Retrieval", "Finding videos by words, and words by videos", tables)
    found = attempt(lambda: search.queries(files.run, _there(model), queries))
    yield Part("queries", "Queries", "What a search finds", found)


def _scenes_part(files: Files, other: Files | None, model: SViLM | Absent) -> Part:
    def build() -> scenes.Scenes:
        own = scenes.Viewer("This run", files.run, _there(model))
        beside = None
        if other is not None:
            beside = scenes.Viewer(f"Baseline {other.short}", other.run, SViLM.from_pretrained(other.folder))
        table = numbers.beside_table(files, other, "temporal", tuple(scenes.COLUMNS), scenes.BLIND)
        jumps = numbers.beside_table(files, other, "temporal_cuts", tuple(scenes.JUMP_CUTS), scenes.BLIND)
        return replace(scenes.scenes(own, beside), table=table, jump_cuts=scenes.JumpCuts(jumps))

    return Part("scenes", "Scene changes", "Telling scenes apart", attempt(build))


def _training_parts(files: Files, other: Files | None) -> Iterator[Part]:
    """How the run came about."""
    pretrain, pasted = files.run.task.kind == "pretrain", files.run.data.paste.probability > 0
    if pretrain or (files.folder / "first_batch.png").is_file():  # batches of fixed features have no picture
        link, heading = ("Cut-and-paste", ": cut-and-paste") if pasted else ("First batch", "")
        batch = attempt(lambda: _first_batch(files))
        yield Part("batch", link, f"What it was trained on{heading}", batch, aside=True)
    yield Part("losses", "Losses", "How training went", attempt(lambda: curves.losses(files)), aside=True)
    if pretrain:
        yield Part("groups", "Groups", "Use of the group tokens", attempt(lambda: curves.groups(files)), aside=True)
    yield Part("speed", "Speed", "Speed and data", attempt(lambda: curves.speed(files)), aside=True)
    differences = [] if other is None else numbers.differences(files, other)
    facts = Facts(numbers.environment_rows(files), numbers.setting_rows(files), differences)
    yield Part("run", "Run", "The run itself", facts, aside=True)


def _there(model: SViLM | Absent) -> SViLM:
    """The model, or the reason why there is none, raised for the part that needs it."""
    if isinstance(model, Absent):
        raise ValueError(f"No trained model to ask: {model.why}")
    return model


def _first_batch(files: Files) -> str:
    """The run's own picture of its first batch, packed smaller."""
    path = files.folder / "first_batch.png"
    if not path.is_file():
        raise ValueError("The run folder holds no first_batch.png.")
    with Image.open(path) as picture:
        return as_data_uri(np.asarray(picture.convert("RGB")))
