"""Which classes are taken for which: the confusion matrix of a run, and clips with the classes they were given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from svilm import draw
from svilm.data.class_names import readable
from svilm.data.manifest import Entry, Manifest
from svilm.metrics.files import read_arrays
from svilm.report import pictures
from svilm.report.common import Absent, Files, Film, attempt, film, test_manifest, varied
from svilm.run import Run

SHOWN = 6
"""Clips shown of those given the right class, and of those given another."""
PAIRS = 10
"""Confusions listed."""
GUESSES = 3
"""Classes named for each clip shown."""
ARRAYS = {
    "ids": "[clips] texts",
    "labels": "[clips] names of classes",
    "classes": "[classes] texts",
    "scores": "[clips, classes] numbers",
    "confusion": "[classes, classes] clips",
}


@dataclass(frozen=True)
class Confusion:
    """A class that was taken for another one, in ``clips`` of its ``total``."""

    truth: str
    taken: str
    clips: float
    total: float


@dataclass(frozen=True)
class Guessed:
    """A clip with its true class and the likeliest ones, each with its share."""

    id: str
    film: Film
    truth: str
    guesses: tuple[tuple[str, float], ...]

    @property
    def right(self) -> bool:
        """Whether the true class stands first."""
        return self.guesses[0][0] == self.truth


@dataclass(frozen=True)
class Classes:
    """The confusion matrix as markup, its largest entries beside the diagonal, and some clips."""

    matrix: str
    num_classes: int
    confusions: tuple[Confusion, ...]
    shown: tuple[Guessed, ...] | Absent
    total: int


def classes(files: Files) -> Classes:
    """The run's classes for the test clips, read from its predictions.npz.

    Raises ScoreFileError where there is none, and ValueError when its arrays do not fit together.
    """
    path = files.folder / "predictions.npz"
    arrays = read_arrays(path, ARRAYS)
    names = [readable(name) for name in arrays["classes"].tolist()]
    labels, ids = arrays["labels"].tolist(), arrays["ids"].tolist()
    scores, confusion = arrays["scores"], arrays["confusion"].astype(np.float64)
    if scores.shape != (len(ids), len(names)) or confusion.shape != (len(names),) * 2 or len(labels) != len(ids):
        raise ValueError(f"{path}: its arrays do not fit together; `svilm evaluate` writes it anew")
    truth = [readable(label) for label in labels]
    shown = attempt(lambda: _shown(test_manifest(files.run), files.run, ids, truth, names, scores))
    title = f"Confusion matrix of {len(names)} classes; rows are the true class, columns the class put first"
    matrix = draw.as_svg(pictures.confusion_matrix(confusion, names), title)
    return Classes(matrix, len(names), _confusions(confusion, names), shown, len(ids))


def _confusions(confusion: Float[np.ndarray, "classes classes"], names: Sequence[str]) -> tuple[Confusion, ...]:
    """The most frequent ones."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order]
    clips = confusion.sum(axis=1)
    return tuple(
        Confusion(names[true], names[taken], float(wrong[true, taken]), float(clips[true]))
        for true, taken in pairs
        if wrong[true, taken] > 0
    )


def _shown(
    test: Manifest,
    run: Run,
    ids: Sequence[str],
    truth: Sequence[str],
    names: Sequence[str],
    scores: Float[np.ndarray, "clips classes"],
) -> tuple[Guessed, ...]:
    """Clips of different classes, first such with the right one."""
    first = [names[number] for number in scores.argmax(axis=1)]
    chosen: list[int] = []
    for right in (True, False):
        of_kind = [number for number in range(len(ids)) if (first[number] == truth[number]) is right]
        chosen += varied(of_kind, lambda number: (("true", truth[number]), ("first", first[number])), SHOWN)
    entries = _entries(test, [ids[number] for number in chosen])
    found = []
    for number, entry in zip(chosen, entries, strict=True):
        best = np.argsort(-scores[number], kind="stable")[:GUESSES].tolist()
        guesses = tuple((names[place], float(scores[number, place])) for place in best)
        found.append(Guessed(entry.id, film(test, entry, run.data.sampling), truth[number], guesses))
    return tuple(found)


def _entries(test: Manifest, ids: Sequence[str]) -> list[Entry]:
    by_id = {entry.id: entry for entry in test if entry.id in ids}
    lost = [name for name in ids if name not in by_id]
    if lost:
        raise ValueError(f"{test.path} has no clip {lost[0]!r}, of which predictions.npz tells; evaluate the run again")
    return [by_id[name] for name in ids]
