"""Scores of whole videos for each class, which give the labels to proposals in temporal localization.

Our file is an npz of ``ids`` (text), ``classes`` (text) and ``scores`` (float32, ids x classes), with ``source``,
a line on how they were made.  Read as well: the layout of the CUHK entry of 2017 that most papers build on
(cuhk_val_simp_share.json), {"results": {id: [200 numbers]}, "class": [200 names]}.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from svilm.arrays import read_arrays

FIELDS = ("ids", "classes", "scores", "source")


class ClassScoresError(ValueError):
    """Class scores that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class ClassScores:
    """How much each video shows each class; larger is more, in whatever scale ``source`` tells.

    Raises ClassScoresError for ids or classes that are empty or occur twice, and for scores of another size or
    not finite.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: Float[np.ndarray, "videos classes"]
    source: str
    """How they were made, to be printed beside each result."""

    def __post_init__(self) -> None:
        for what, names in (("id", self.ids), ("class", self.classes)):
            counts = Counter(names)
            wrong_name = next((name for name in names if not name or counts[name] > 1), None)
            if wrong_name is not None:
                raise ClassScoresError(f"{what} {wrong_name!r} is empty or occurs twice")
        if self.scores.shape != (len(self.ids), len(self.classes)):
            raise ClassScoresError(
                f"scores are {' x '.join(map(str, self.scores.shape))}, must be {len(self.ids)} ids x "
                f"{len(self.classes)} classes"
            )
        wrong = np.flatnonzero(~np.isfinite(self.scores).all(axis=1))
        if len(wrong):
            raise ClassScoresError(f"scores of {self.ids[wrong[0]]!r} and {len(wrong) - 1} others are not finite")

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {video: k for k, video in enumerate(self.ids)}

    def of(self, video: str) -> Float[np.ndarray, " classes"]:
        """The scores of a video; a "v_" before its id is of no account.  Raises ClassScoresError for an unknown one."""
        name = next((name for name in (video, f"v_{video}", video.removeprefix("v_")) if name in self._rows), None)
        if name is None:
            raise ClassScoresError(f"no class scores for video {video!r} among {len(self.ids)} ({self.source})")
        return self.scores[self._rows[name]]

    def ordered(self, classes: Sequence[str]) -> "ClassScores":
        """The same scores with columns in the order of ``classes``.

        Raises ClassScoresError where one of them has no scores, and where one with scores is not among them.
        """
        column = {name: k for k, name in enumerate(self.classes)}
        missing, surplus = sorted(set(classes) - set(column)), sorted(set(column) - set(classes))
        if missing or surplus:
            raise ClassScoresError(
                f"class scores ({self.source}) are for other classes: none for {missing[:3]} ({len(missing)} in all), "
                f"unknown {surplus[:3]} ({len(surplus)} in all)"
            )
        return ClassScores(self.ids, tuple(classes), self.scores[:, [column[name] for name in classes]], self.source)


def write_class_scores(path: str | Path, scores: ClassScores) -> None:
    """Write our npz, whole or not at all.  Raises ClassScoresError for a name that does not end in .npz."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ClassScoresError(f"{path}: class scores are written as .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as out:
            np.savez(
                out,
                ids=np.array(scores.ids, dtype=np.str_),
                classes=np.array(scores.classes, dtype=np.str_),
                scores=scores.scores.astype(np.float32),
                source=np.array(scores.source),
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_class_scores(path: str | Path) -> ClassScores:
    """Class scores from our npz or from a json of the CUHK layout.

    Raises ClassScoresError, naming file and reason, for a file that is missing or not exactly of one of these forms.
    """
    path = Path(path)
    if not path.is_file():
        raise ClassScoresError(f"{path}: no such file")
    if path.suffix not in (".npz", ".json"):
        raise ClassScoresError(f"{path}: class scores are .npz (ours) or .json (CUHK), not {path.suffix or 'this'!r}")
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_cuhk(path)
    except ClassScoresError as error:
        raise ClassScoresError(f"{path}: {error}") from None


def _read_npz(path: Path) -> ClassScores:
    try:
        found = read_arrays(path)
    except ValueError as error:
        raise ClassScoresError(f"not an npz of plain arrays ({error})") from None
    if "" in found:
        raise ClassScoresError("not an npz of plain arrays (it is an npy under that name)")
    if set(found) != set(FIELDS):
        raise ClassScoresError(f"needs {', '.join(FIELDS)}, has {', '.join(sorted(found)) or 'nothing'}")
    kinds = {name: found[name].dtype.kind + str(found[name].ndim) for name in FIELDS}
    if kinds != {"ids": "U1", "classes": "U1", "scores": "f2", "source": "U0"}:
        raise ClassScoresError(
            "needs ids and classes as lists of texts, scores as ids x classes floats and source as a text, "
            f"has {', '.join(f'{name} {found[name].dtype} {found[name].shape}' for name in FIELDS)}"
        )
    return ClassScores(
        tuple(found["ids"].tolist()), tuple(found["classes"].tolist()), found["scores"], found["source"].item()
    )


def _read_cuhk(path: Path) -> ClassScores:
    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are of the first kind
        raise ClassScoresError(f"not JSON ({error})") from None
    results, classes = (data.get("results"), data.get("class")) if isinstance(data, dict) else (None, None)
    if not isinstance(results, dict) or not isinstance(classes, list) or not all(map(_is_text, classes)):
        raise ClassScoresError('needs "results", an object of scores by video, and "class", the names of the classes')
    if not results:
        raise ClassScoresError('"results" has no video')
    for video, scores in results.items():
        if not isinstance(scores, list) or len(scores) != len(classes) or not all(map(_is_number, scores)):
            length = f"a list of {len(scores)}" if isinstance(scores, list) else type(scores).__name__
            raise ClassScoresError(f"video {video!r} needs {len(classes)} numbers, one for each class, has {length}")
    return ClassScores(
        tuple(results),
        tuple(classes),
        np.array(list(results.values()), dtype=np.float32),
        f"CUHK layout, {path.name}",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file; of a key that occurs twice the first value would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        double = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {double!r} occurs twice in one object")
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
