"""Accuracies: clips that get a class, and questions that get an answer; each with its trivial baselines.

Classes of exactly the same score have no order, so what is reported is the expectation over all orders of them, as
for retrieval: constant scores are worth chance.  Whatever has no prediction is wrong; the denominator is that of the
official list, always.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from svilm.metrics.retrieval import Ranking, rank_similarity

QUESTION_WORDS = ("what", "who", "how", "where", "when")
"""The types of questions of MSRVTT-QA and MSVD-QA."""


@dataclass(frozen=True)
class ClassScores:
    """How often the right class of a clip stands first, or among the first five; all in percent."""

    top1: float
    top5: float
    mean_class: float
    """Mean over the classes that occur of the top-1 accuracy on their clips."""
    confusion: Float[np.ndarray, "classes classes"]
    """Row: true class, column: class put first; clips, a tie for the first place shared out.  Clips without scores
    are in no column."""
    num_clips: int
    num_missing: int
    """Clips without scores, which count as wrong."""
    num_tied: int
    """Clips for which another class has exactly the score of the right one."""
    majority: float
    """Top-1 accuracy of always saying the most frequent class of the clips that are scored."""

    @property
    def protocol(self) -> str:
        """How the numbers came about, in one line."""
        return (
            f"accuracy over {self.num_clips} clips of {len(self.confusion)} classes "
            f"({self.num_missing} without scores count as wrong); expected value over the orders of equal scores "
            f"({self.num_tied} clips with such a tie)"
        )

    def metrics(self) -> dict[str, float]:
        """Percent: top-1, top-5, mean_class."""
        return {"top-1": self.top1, "top-5": self.top5, "mean_class": self.mean_class}

    def baselines(self) -> dict[str, float]:
        """Percent: what guessing scores, and the majority class."""
        guess = 100 / len(self.confusion)
        return {
            "chance/top-1": guess,
            "chance/top-5": min(5 * guess, 100.0),
            "chance/mean_class": guess,
            "majority/top-1": self.majority,
        }


def score_classes(
    scores: Float[np.ndarray, "clips classes"],
    labels: Int[np.ndarray, " clips"],
    missing: Bool[np.ndarray, " clips"] | None = None,
) -> ClassScores:
    """Accuracies of ``scores`` (higher means surer) for clips whose true classes are ``labels``, from 0.

    Rows marked ``missing`` are not read.  Raises ValueError for no clips, a label that is no column, or NaN.
    """
    num_clips, num_classes = scores.shape
    if num_clips == 0 or num_classes == 0:
        raise ValueError(f"{num_clips} clips and {num_classes} classes: nothing to score")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, but classes are 0 to {num_classes - 1}")
    there = np.ones(num_clips, dtype=bool) if missing is None else ~missing
    there_scores, there_labels = scores[there], labels[there]
    if np.isnan(there_scores).any():
        clip, label = np.argwhere(np.isnan(scores) & there[:, None])[0]
        raise ValueError(f"score of clip {clip} for class {label} is NaN, so its classes cannot be ranked")
    confusion = np.zeros((num_classes, num_classes))
    ranking = Ranking(*np.zeros((3, 0), dtype=np.int64))
    top1 = top5 = 0.0
    if len(there_labels):
        ranking = rank_similarity(there_scores, there_labels[:, None].tolist())
        first = there_scores == there_scores.max(axis=1, keepdims=True)
        np.add.at(confusion, there_labels, first / first.sum(axis=1, keepdims=True))
        top1, top5 = (ranking.recall(at) * len(there_labels) / num_clips for at in (1, 5))
    clips = np.bincount(labels, minlength=num_classes)
    occurs = clips > 0
    return ClassScores(
        top1=top1,
        top5=top5,
        mean_class=100 * float(np.mean(np.diag(confusion)[occurs] / clips[occurs])),
        confusion=confusion,
        num_clips=num_clips,
        num_missing=int(num_clips - there.sum()),
        num_tied=int(np.count_nonzero(ranking.tied)),
        majority=100 * float(clips.max() / num_clips),
    )


@dataclass(frozen=True)
class Question:
    """A question's right answer."""

    id: str
    answer: str
    kind: str = "other"
    """Its type, for instance "what"."""


@dataclass(frozen=True)
class AnswerScores:
    """How many answers are, letter by letter, the right one; all in percent."""

    accuracy: float
    by_kind: Mapping[str, float]
    num_by_kind: Mapping[str, int]
    num_questions: int
    num_missing: int
    """Questions without a predicted answer, which count as wrong."""
    num_repeated: int
    """Lines that repeated a question or a prediction word for word, and were read once."""
    num_elsewhere: int
    """Predictions for questions that are not asked, left out."""
    coverage: float | None
    """Share of the questions whose answer is in the vocabulary: no model that picks from it can score more.
    None where no vocabulary is given."""
    chance: float | None
    """Accuracy of guessing from the vocabulary; None where none is given."""
    majority: float
    """Accuracy of always giving one answer: the most frequent one of the questions that are scored."""

    @property
    def protocol(self) -> str:
        """How the numbers came about, in one line."""
        bound = "" if self.coverage is None else f"; {self.coverage:.2f} % of the answers are in the vocabulary"
        return (
            f"exact match over {self.num_questions} questions ({self.num_missing} without a prediction and answers "
            f"outside the vocabulary count as wrong); {self.num_repeated} repeated lines read once, "
            f"{self.num_elsewhere} predictions for other questions left out{bound}"
        )

    def metrics(self) -> dict[str, float]:
        """Percent: accuracy, accuracy/what and so on, and coverage where it is known."""
        kinds = {f"accuracy/{kind}": value for kind, value in self.by_kind.items()}
        bound = {} if self.coverage is None else {"coverage": self.coverage}
        return {"accuracy": self.accuracy, **kinds, **bound}

    def baselines(self) -> dict[str, float]:
        """Percent: the majority answer, and guessing where the vocabulary is known."""
        chance = {} if self.chance is None else {"chance/accuracy": self.chance}
        return {**chance, "majority/accuracy": self.majority}


def score_answers(
    questions: Sequence[Question],
    predictions: Mapping[str, str] | Iterable[tuple[str, str]],
    vocabulary: Collection[str] | None = None,
) -> AnswerScores:
    """Exact-match accuracy of predicted answers by question id, in all and by type of question.

    An id may come twice with the same content (a sampler that pads does this) and counts once.  Raises ValueError
    for an id with two different contents, for no question, and if no prediction has the id of a question.
    """
    asked: dict[str, Question] = {}
    for question in questions:
        if asked.setdefault(question.id, question) != question:
            raise ValueError(f"question {question.id!r} occurs twice: {asked[question.id]} and {question}")
    if not asked:
        raise ValueError("no question to score")
    pairs = list(predictions.items() if isinstance(predictions, Mapping) else predictions)
    given: dict[str, str] = {}
    for identity, answer in pairs:
        if given.setdefault(identity, answer) != answer:
            raise ValueError(f"question {identity!r} has two predictions: {given[identity]!r} and {answer!r}")
    common = asked.keys() & given.keys()
    if not common:
        some = ", ".join(repr(identity) for identity in [*asked][:2] + [*given][:2])
        raise ValueError(f"no prediction has the id of a question (ids such as {some}); use the ids of the questions")
    right = {identity for identity in common if given[identity] == asked[identity].answer}
    kinds = Counter(question.kind for question in asked.values())
    hits = Counter(asked[identity].kind for identity in right)
    answers = Counter(question.answer for question in asked.values())
    words = set(vocabulary or ())
    coverage = 100 * sum(answers[word] for word in words) / len(asked)
    return AnswerScores(
        accuracy=100 * len(right) / len(asked),
        by_kind={kind: 100 * hits[kind] / count for kind, count in sorted(kinds.items())},
        num_by_kind=dict(sorted(kinds.items())),
        num_questions=len(asked),
        num_missing=len(asked) - len(common),
        num_repeated=len(questions) - len(asked) + len(pairs) - len(given),
        num_elsewhere=len(given) - len(common),
        coverage=None if vocabulary is None else coverage,
        chance=None if vocabulary is None else coverage / max(1, len(words)),
        majority=100 * max(answers.values()) / len(asked),
    )


def majority_accuracy(train: Sequence[str] | Sequence[int], test: Sequence[str] | Sequence[int]) -> float:
    """Percent of ``test`` answers or classes that always saying the most frequent one of ``train`` gets right.

    Where several are equally frequent, the mean over them.  Raises ValueError where one of the two is empty.
    """
    if not len(train) or not len(test):
        raise ValueError(f"{len(train)} answers to count and {len(test)} to score: neither may be empty")
    counts, asked = Counter(train), Counter(test)
    most = max(counts.values())
    return 100 * float(np.mean([asked[answer] / len(test) for answer, count in counts.items() if count == most]))


def question_kind(question: str) -> str:
    """The type of a question: its first word if that is one of QUESTION_WORDS, otherwise "other"."""
    words = question.lower().split(maxsplit=1)
    return words[0] if words and words[0] in QUESTION_WORDS else "other"
