"""The files in which answers, class scores and similarities are handed in, and the truth they are judged by.

| what | file |
|---|---|
| questions | JSON list, or JSON Lines, of objects with answer and question; question_id or id, otherwise the video's with a running number of its questions (video6513:1), without a video the rows count from 0; answer_type, otherwise the first word of the question |
| answers | JSON object {question id: answer}; or list, or JSON Lines, of {"question_id": ..., "answer": ...} |
| classes of clips | .csv of id, label (a header "id,label" is allowed); .json object {id: label}; any other file: "id label" per line, the label after the last blank |
| class scores | .npz of ids [clips], scores [clips, classes] and, to name the columns, classes [classes]; or csv with the header "id,CLASS,CLASS,..." |
| similarity | .npz of similarity [queries, items]; positives [queries] is the right item of each query, positives [queries, most] several, rows filled up with -1; without it item i is right for query i |

A label is the name of a class, or its number from 0 where no label is the name of one.
"""  # noqa: E501

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from svilm.metrics.classification import Question, question_kind
from svilm.metrics.files import (
    ScoreFileError,
    finite,
    read_arrays,
    read_csv,
    read_json,
    read_json_lines,
    read_lines,
    shortened,
)


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a file in the original, ClipBERT or LAVIS form.  Raises ScoreFileError naming the entry."""
    found: list[Question] = []
    rows = _objects(path)
    named = next((key for key in ("question_id", "id") if rows and key in rows[0]), None)
    asked = Counter[str]()
    for index, row in enumerate(rows):
        place = f"{path}: entry {index}"
        question = _word(row, "question", place) if "question" in row else ""
        kind = _word(row, "answer_type", place) if "answer_type" in row else question_kind(question)
        if named:
            identity = _identity(row, named, place)
        elif "video_id" in row or "video" in row:  # as `svilm prepare` numbers them
            video = _identity(row, "video_id" if "video_id" in row else "video", place)
            asked[video] += 1
            identity = f"{video}:{asked[video]}"
        else:
            identity = str(index)
        found.append(Question(identity, _word(row, "answer", place), kind))
    return found


def read_answers(path: str | Path) -> list[tuple[str, str]]:
    """Predicted answers as (question id, answer), in the order of the file.  Raises ScoreFileError naming the entry."""
    data = read_json_lines(path) if Path(path).suffix == ".jsonl" else read_json(path)
    if isinstance(data, dict):
        return [(identity, _word(data, identity, f"{path}")) for identity in data]
    rows = _objects(path, data)
    return [
        (_identity(row, "question_id", f"{path}: entry {index}"), _word(row, "answer", f"{path}: entry {index}"))
        for index, row in enumerate(rows)
    ]


def read_labels(path: str | Path) -> dict[str, str]:
    """The class of each clip, a name or a number as text, by the id of the clip.

    Raises ScoreFileError naming the line, for an id that comes twice too.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        data = read_json(path)
        if not isinstance(data, dict) or not all(type(label) in (str, int) for label in data.values()):
            raise ScoreFileError(f"{path}: must be an object from ids to labels, each a name or a number")
        pairs = [(f"key {identity!r}", [identity, str(label)]) for identity, label in data.items()]
    elif suffix == ".csv":
        pairs = [(f"line {line}", row) for line, row in read_csv(path)]
        if pairs and [cell.strip().lower() for cell in pairs[0][1][1:]] == ["label"]:
            pairs = pairs[1:]
    else:
        pairs = [(f"line {number}", line.rsplit(maxsplit=1)) for number, line in read_lines(path)]
    found: dict[str, str] = {}
    for place, row in pairs:
        if len(row) != 2:
            raise ScoreFileError(f"{path}: {place}: wanted are an id and a label, found {shortened(row)}")
        identity, label = row[0].strip(), row[1].strip()
        if identity in found:
            raise ScoreFileError(f"{path}: {place}: id {identity!r} occurs twice")
        found[identity] = label
    if not found:
        raise ScoreFileError(f"{path}: no clip in it")
    return found


@dataclass(frozen=True)
class HandedIn:
    """Scores of clips for classes."""

    ids: tuple[str, ...]
    scores: Float[np.ndarray, "clips classes"]
    classes: tuple[str, ...] | None
    """Names of the columns, where the file has them."""


def read_class_scores(path: str | Path) -> HandedIn:
    """The class scores of an npz or csv file.  Raises ScoreFileError naming the array, or line and column."""
    classes: tuple[str, ...] | None
    if Path(path).suffix.lower() == ".npz":
        arrays = read_arrays(path, {"ids": "[clips] texts", "scores": "[clips, classes] numbers"})
        ids, scores = tuple(arrays["ids"].astype(str).ravel().tolist()), _floats(arrays["scores"], path, "scores")
        classes = tuple(arrays["classes"].astype(str).ravel().tolist()) if "classes" in arrays else None
        if len(scores) != len(ids) or (classes is not None and scores.shape[1] != len(classes)):
            named = "" if classes is None else f" and {len(classes)} classes"
            raise ScoreFileError(f"{path}: scores is {scores.shape}, but there are {len(ids)} ids{named}")
    else:
        rows = [(line, row) for line, row in read_csv(path)]
        header = rows[0][1] if rows else []
        if len(header) < 2:
            raise ScoreFileError(f'{path}: the first line must be "id,CLASS,CLASS,...", found {shortened(header)}')
        classes = tuple(name.strip() for name in header[1:])
        for line, row in rows[1:]:
            if len(row) != len(header):
                raise ScoreFileError(f"{path}: line {line} has {len(row)} columns, the header {len(header)}")
        ids = tuple(row[0].strip() for _, row in rows[1:])
        values = [
            [finite(cell, f"{path}: line {line}", name) for cell, name in zip(row[1:], classes, strict=True)]
            for line, row in rows[1:]
        ]
        scores = np.array(values, dtype=np.float64).reshape(len(ids), len(classes))
    for what, names in (("id", ids), ("class", classes or ())):
        if len(set(names)) != len(names):
            double = next(name for index, name in enumerate(names) if name in names[:index])
            raise ScoreFileError(f"{path}: {what} {double!r} occurs twice")
    return HandedIn(ids, scores, classes)


def aligned(
    truth: Mapping[str, str], handed_in: HandedIn
) -> tuple[Float[np.ndarray, "clips classes"], Int[np.ndarray, " clips"], Bool[np.ndarray, " clips"]]:
    """Scores, class numbers and which clips have no scores, in the order of ``truth``.

    Raises ValueError for a label that is no class, and if no clip has scores.
    """
    row_of = {identity: row for row, identity in enumerate(handed_in.ids)}
    rows = np.array([row_of.get(identity, -1) for identity in truth], dtype=np.int64)
    if (rows < 0).all():
        some = ", ".join(repr(identity) for identity in [*truth][:2] + [*handed_in.ids][:2])
        raise ValueError(f"no scores have the id of a clip (ids such as {some}); use the ids of the truth")
    num_classes = handed_in.scores.shape[1]
    numbers = {name: number for number, name in enumerate(handed_in.classes or ())}
    if not numbers.keys() & set(truth.values()):
        numbers = {str(number): number for number in range(num_classes)}
    unknown = sorted(set(truth.values()) - numbers.keys())
    if unknown:
        known = shortened(list(numbers)) if handed_in.classes else f"0 to {num_classes - 1}"
        raise ValueError(f"{len(unknown)} labels are no class, for instance {unknown[0]!r}; classes are {known}")
    labels = np.array([numbers[label] for label in truth.values()], dtype=np.int64)
    return handed_in.scores[rows], labels, rows < 0


def read_similarity(path: str | Path) -> tuple[Float[np.ndarray, "queries items"], list[list[int]] | None]:
    """Similarities, and the right items of each query or None.  Raises ScoreFileError naming the array."""
    arrays = read_arrays(path, {"similarity": "[queries, items] numbers"})
    similarity = _floats(arrays["similarity"], path, "similarity")
    if "positives" not in arrays:
        return similarity, None
    positives = arrays["positives"]
    if positives.dtype.kind not in "iu" or positives.ndim not in (1, 2) or len(positives) != len(similarity):
        raise ScoreFileError(
            f"{path}: positives is {positives.dtype} of shape {positives.shape}, must be whole numbers of shape "
            f"[{len(similarity)}] or [{len(similarity)}, most]"
        )
    rows = positives.reshape(len(positives), -1).astype(np.int64).tolist()
    return similarity, [[item for item in row if item != -1] for row in rows]


def _floats(values: np.ndarray, path: str | Path, name: str) -> Float[np.ndarray, "rows columns"]:
    if values.dtype.kind not in "fiu" or values.ndim != 2:
        raise ScoreFileError(f"{path}: {name} is {values.dtype} of shape {values.shape}, must be a matrix of numbers")
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _objects(path: str | Path, data: Any = None) -> Sequence[dict[str, Any]]:
    if data is None:
        data = read_json_lines(path) if Path(path).suffix == ".jsonl" else read_json(path)
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ScoreFileError(f"{path}: must be a list of objects, found {shortened(data)}")
    return data


def _word(row: Mapping[str, Any], key: str, place: str) -> str:
    if not isinstance(row.get(key), str):
        raise ScoreFileError(f"{place}: {key} is {shortened(row.get(key))}, must be a text")
    return str(row[key])


def _identity(row: Mapping[str, Any], key: str, place: str) -> str:
    if type(row.get(key)) not in (str, int):
        raise ScoreFileError(f"{place}: {key} is {shortened(row.get(key))}, must be a text or a whole number")
    return str(row[key])
