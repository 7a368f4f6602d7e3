"""Questions with the answers that the model gave, and how often they are right by type of question."""

from dataclasses import dataclass

from svilm import draw
from svilm.data.manifest import Entry, Manifest
from svilm.metrics.classification import score_answers
from svilm.metrics.submissions import read_answers
from svilm.report.common import Absent, Files, attempt, still, test_manifest, varied
from svilm.run import Run
from svilm.tasks.vqa import habit, questions, truth_of

SHOWN = 6
"""Questions shown of those answered right, and of those answered wrong."""
FRAMES, SIDE, GAP = 5, 96, 3


@dataclass(frozen=True)
class Answered:
    """A question with the frames of its clip, what was answered, and what is true."""

    question: str
    answer: str
    truth: str
    kind: str
    id: str
    strip: str

    @property
    def right(self) -> bool:
        """Whether the answer is, letter by letter, the true one."""
        return self.answer == self.truth


@dataclass(frozen=True)
class Kind:
    """A type of questions: how many there are, and percent right; ``habit`` always says what training mostly said."""

    name: str
    questions: int
    right: float
    habit: float | None


@dataclass(frozen=True)
class Questions:
    """The types of questions, and some of them with frames."""

    kinds: tuple[Kind, ...]
    shown: tuple[Answered, ...] | Absent
    total: int
    num_right: int


def answered(files: Files) -> Questions:
    """The run's answers, read from its predictions.json.

    Raises ScoreFileError where there are none, ConfigError without a test manifest, and ValueError when the two do
    not belong together.
    """
    test = test_manifest(files.run)
    given = dict(read_answers(files.folder / "predictions.json"))
    asked = questions(test)
    found = score_answers(truth_of(asked), given)
    by_kind: dict[str, list[Entry]] = {}
    for entry, question in zip(asked, truth_of(asked), strict=True):
        by_kind.setdefault(question.kind, []).append(entry)
    learned = attempt(lambda: questions(Manifest(files.run.data.manifest)))
    kinds = []
    for name, count in found.num_by_kind.items():
        usual = None
        if not isinstance(learned, Absent):
            same = [entry for entry, question in zip(learned, truth_of(learned), strict=True) if question.kind == name]
            usual = habit(same or learned, by_kind[name], lambda entry: ((),))
        kinds.append(Kind(name, count, found.by_kind[name], usual))
    kinds.sort(key=lambda kind: -kind.questions)
    right = [entry for entry in asked if given.get(entry.id) == entry.labels[0]]
    wrong = [entry for entry in asked if given.get(entry.id) != entry.labels[0]]
    shown = attempt(lambda: tuple(_show(test, entry, given, files.run) for entry in (*_some(right), *_some(wrong))))
    return Questions(tuple(kinds), shown, len(asked), len(right))


def _some(entries: list[Entry]) -> list[Entry]:
    """Questions in different words about different clips, with different answers."""
    return varied(entries, lambda entry: (entry.category, entry.captions, entry.labels, (entry.video, "video")), SHOWN)


def _show(test: Manifest, entry: Entry, given: dict[str, str], run: Run) -> Answered:
    frames = still(test, entry, run.data.sampling).frames.numpy()
    strip = draw.strip(draw.resized(frames[draw.evenly(len(frames), FRAMES)], SIDE), GAP)
    return Answered(
        entry.captions[0],
        given.get(entry.id, "(none)"),
        entry.labels[0],
        truth_of([entry])[0].kind,
        entry.id,
        draw.as_data_uri(strip),
    )
