"""Video question answering (section 4.3; Tables 2 and 9): a question about a clip, answered with one of a list.

A question is the caption of its entry and the answer the entry's label.  Training questions whose answer is not in
the list are left out; test questions are not: whatever cannot be answered is wrong, and the score is over all.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from svilm.config import ConfigError, ManifestFile
from svilm.data.loader import StillClip
from svilm.data.manifest import Manifest, ManifestError
from svilm.engine.task import Context, Features, Job, Task, TaskSettings
from svilm.metrics.classification import Question, majority_accuracy, question_kind, score_answers
from svilm.metrics.files import read_names
from svilm.models.dual import DualEncoder
from svilm.models.heads import AnswerHead, AnswerHeadConfig
from svilm.runtime import rank
from svilm.tasks.common import Reader, encode_clips, evaluating, reader_of, training_clips
from svilm.types import Batch, Entry, Scores, Terms, VideoFeatures

_TEXTS = 256  # questions that are encoded at a time

Keys = tuple[tuple[str, ...], ...]


class Vqa(TaskSettings):
    """Which answers there are and how one is chosen."""

    kind: Literal["vqa"] = "vqa"
    """Answering questions about clips."""
    test: ManifestFile = ""
    """Test manifest; empty: no evaluation."""
    answers: int = Field(1500, ge=0)
    """Answers to choose from: so many of the most frequent ones in training (section 4.1); 0 takes all."""
    vocabulary: str = ""
    """File of the answers to choose from instead: one per line, a JSON list, or ALPRO's {answer: number}."""
    head: AnswerHeadConfig = AnswerHeadConfig()
    """What makes an answer of clip and question."""

    def job(self, context: Context) -> Job:
        """Both encoders and the fusion head, scored by exact match beside what answers without looking.

        Raises ConfigError for clips that are changed so that answers would become wrong, and ManifestError for an
        entry without an answer.
        """
        if context.data.paste.probability > 0:
            raise ConfigError("data.paste.probability must be 0: questions ask nothing about frames of another clip")
        if context.data.flip > 0:
            raise ConfigError("data.flip must be 0: in a mirrored clip the answers left and right are wrong")
        asked = [entry.labels[0] for entry in questions(context.manifest)]
        answers = read_names(self.vocabulary) if self.vocabulary else most_frequent(asked, self.answers)
        known = set(answers)
        only = [number for number, answer in enumerate(asked) if answer in known]
        if not only:
            raise ConfigError(f"no answer of {context.manifest.path} is in task.vocabulary = {self.vocabulary}")
        covered = (
            f"{len(answers)} answers cover {100 * len(only) / len(asked):.2f} % of {len(asked)} training questions"
        )
        if rank() == 0:
            print(f"{covered}; {len(asked) - len(only)} are left out", file=sys.stderr)
        shape = context.encoder.config
        task = VqaTask(self, shape.video.width, shape.text.width, answers)

        test = Manifest(self.test) if self.test else None
        if test is not None:
            questions(test)  # a wrong list is told before training

        def evaluate(model: nn.Module) -> dict[str, Scores]:
            if test is None:
                return {}
            given = answer(cast(DualEncoder, model), task, test, reader_of(context))
            return {"vqa": score(given, test, context.manifest, task, covered, context.results)}

        def judge(model: nn.Module, manifest: Manifest) -> float:
            given = answer(cast(DualEncoder, model), task, manifest, reader_of(context))
            return score_answers(truth_of(questions(manifest)), [(name, seen) for name, seen, _ in given]).accuracy

        return Job(task, context.encoder, **training_clips(context, only), evaluate=evaluate, judge=judge)


class VqaTask(Task):
    """The fusion head, trained as a classifier of answers."""

    def __init__(self, config: Vqa, video_width: int, text_width: int, answers: Sequence[str]) -> None:
        super().__init__()
        self.head = AnswerHead(config.head, video_width, text_width, answers)

    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Group tokens (B, M, D) and the [CLS] state of each question (B, D')."""
        dual = cast(DualEncoder, model)
        rows = batch.caption_index
        return {
            "groups": dual.encode_video(batch.video).groups,
            "question": dual.encode_text(batch.text_ids[rows], batch.text_mask[rows]).hidden,
        }

    def loss(self, model: nn.Module, features: Features, batch: Batch) -> Terms:
        """Cross entropy of the right answers."""
        logits = self.head(features["groups"], features["question"]).float()
        numbers = [self.head.answers.number[entry.labels[0]] for entry in batch.entries]
        wanted = torch.tensor(numbers, device=logits.device)
        total = F.cross_entropy(logits, wanted)
        right = (logits.argmax(dim=1) == wanted).float().mean()
        return Terms(total, {"answers": total.detach()}, {"train/accuracy": 100 * right})


def questions(manifest: Manifest) -> list[Entry]:
    """The entries of a manifest.  Raises ManifestError for one that is not a question with its answer."""
    found = list(manifest)
    for entry in found:
        if len(entry.captions) != 1 or len(entry.labels) != 1:
            raise ManifestError(
                f"{manifest.path}: {entry.id} has {len(entry.captions)} captions and {len(entry.labels)} labels, "
                "must have one question and one answer; make the manifest with `svilm prepare msrvtt-qa` or msvd-qa"
            )
    return found


def most_frequent(answers: Sequence[str], count: int) -> list[str]:
    """The ``count`` most frequent answers (0: all), the most frequent first, equally frequent ones by the alphabet."""
    ordered = sorted(Counter(answers).items(), key=lambda pair: (-pair[1], pair[0]))
    return [answer for answer, _ in ordered[: count or None]]


def answer(model: DualEncoder, task: VqaTask, manifest: Manifest, reader: Reader) -> list[tuple[str, str, str]]:
    """Each question's id, its answer, and the answer that the head gives where the video is zero; in manifest order.

    A clip is decoded and encoded once, for all its questions together.
    """
    about: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, entry in enumerate(manifest):
        about[_clip_of(entry)].append(number)

    def keep(clip: StillClip, features: VideoFeatures, row: int) -> list[tuple[str, str]]:
        texts = [manifest[number].captions[0] for number in about[_clip_of(clip.entry)]]
        found: list[tuple[str, str]] = []
        for first in range(0, len(texts), _TEXTS):
            ids, mask = reader.tokenizer(texts[first : first + _TEXTS], reader.language.max_length)
            device = features.groups.device
            hidden = model.encode_text(ids.to(device), mask.to(device)).hidden
            groups = features.groups[row].expand(len(hidden), -1, -1)
            chosen = [task.head(seen, hidden).argmax(dim=1).tolist() for seen in (groups, torch.zeros_like(groups))]
            names = task.head.answers.names
            found += [(names[seen], names[blind]) for seen, blind in zip(*chosen, strict=True)]
        return found

    with evaluating(task):
        clips = [numbers[0] for numbers in about.values()]
        given = encode_clips(model, manifest, reader, keep, "answering questions", only=clips)
    by_number = {
        number: pair
        for numbers, pairs in zip(about.values(), given, strict=True)
        for number, pair in zip(numbers, pairs, strict=True)
    }
    return [(entry.id, *by_number[number]) for number, entry in enumerate(manifest)]


def score(
    given: Sequence[tuple[str, str, str]],
    test: Manifest,
    train: Manifest,
    task: VqaTask,
    covered: str,
    folder: Path,
) -> Scores:
    """Accuracy over all questions and by type, beside four ways to answer without looking; names begin with ``vqa``.

    ``vqa_blind`` is the head where the video is zero; ``vqa_majority`` always gives the most frequent training
    answer, or that of questions of the same type, or that of questions in the same words.  The answers are written
    to predictions.json in ``folder``, for `svilm score vqa`.
    """
    asked = questions(test)
    truth, names = truth_of(asked), task.head.answers.names
    found = score_answers(truth, [(name, seen) for name, seen, _ in given], names)
    blind = score_answers(truth, [(name, unseen) for name, _, unseen in given])
    if rank() == 0:
        rows = [{"question_id": name, "answer": seen} for name, seen, _ in given]
        text = json.dumps(rows, ensure_ascii=False, indent=1)
        (folder / "predictions.json").write_text(text + "\n", encoding="utf-8")
    learned = questions(train)
    metrics = {f"vqa/{name}": value for name, value in found.metrics().items()}
    metrics |= {
        "vqa_blind/accuracy": blind.accuracy,
        "vqa_chance/accuracy": found.chance or 0.0,
        "vqa_majority/accuracy": habit(learned, asked, lambda entry: ((),)),
        "vqa_majority_by_type/accuracy": habit(learned, asked, lambda entry: _kinds(entry)),
        "vqa_majority_by_question/accuracy": habit(learned, asked, lambda entry: (_words(entry), *_kinds(entry))),
    }
    protocol = f"{test.header.protocol or test.header.source}; {covered}; {found.protocol}"
    return Scores(metrics, len(asked), test.header.official, protocol)


def habit(train: Sequence[Entry], test: Sequence[Entry], keys: Callable[[Entry], Keys]) -> float:
    """Percent right when each question gets the most frequent training answer among questions that share its key.

    ``keys`` go from narrow to wide; the first that occurs in training counts, and the last one must.
    """
    learned: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in train:
        for key in keys(entry):
            learned[key].append(entry.labels[0])
    asked: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in test:
        asked[next(key for key in keys(entry) if key in learned)].append(entry.labels[0])
    right = sum(len(answers) * majority_accuracy(learned[key], answers) for key, answers in asked.items())
    return right / len(test)


def truth_of(asked: Sequence[Entry]) -> list[Question]:
    """The right answer to each question and its type."""
    return [Question(entry.id, entry.labels[0], _kind_of(entry)) for entry in asked]


def _kind_of(entry: Entry) -> str:
    return entry.category or question_kind(entry.captions[0])


def _kinds(entry: Entry) -> Keys:
    return (_kind_of(entry),), ()


def _words(entry: Entry) -> tuple[str, ...]:
    return _kind_of(entry), entry.captions[0]


def _clip_of(entry: Entry) -> tuple[object, ...]:
    return entry.video, entry.start, entry.end
