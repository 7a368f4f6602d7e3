"""Questions about videos, with one right answer each: what the files of MSRVTT-QA and MSVD-QA have in common.

Three forms circulate, and all are read:

    the original           [{"id": 0, "video_id": 6513, "question": "...?", "answer": "couch"}, ...]
    ClipBERT and ALPRO     {"video_id": "video6513", "question": "...?", "answer": "couch", "answer_type": "what"}
    LAVIS                  [{"video": "video6513.mp4", "question": "...?", "answer": "couch", "question_id": 0}, ...]

An answer that training never saw stays in the list, where it counts as a wrong one: published accuracies are
over all questions, and those that were not came out too high.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, Refusal
from svilm.data.prepare.jsons import json_objects
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, one_line, split_in_name

QUESTION_WORDS = ("what", "who", "how", "where", "when")
"""By which accuracies are broken down."""

Numbered = Callable[[int], tuple[str, ...]]
"""The names under which the video of a number may lie in the folder."""


def question_listing(
    source: str,
    path: Path,
    split: Split | None,
    published: Mapping[Split, int],
    numbered: Numbered,
    notes: tuple[str, ...] = (),
) -> Listing:
    """One clip per question: its caption the question, its label the answer, its category the kind of question.

    The id is that of the question, or where the file has none the video's with a running number of its questions.
    """
    split = split or split_in_name(path)
    return Listing(
        source,
        path,
        partial(_clips, path, numbered),
        f"{source} {split}, every question with its one answer",
        split,
        published=published.get(split),
        notes=notes,
        nouns=False,
    )


def _clips(path: Path, numbered: Numbered) -> Iterator[Clip | Refusal]:
    asked = Counter[str]()

    def clip(row: Row) -> Clip:
        video = file_name(row.text("video_id") or row.text("video"))
        names = numbered(int(video)) if video.isdecimal() else (video,)
        answer = " ".join(row.text("answer").split())
        if not answer:
            raise BadRow("no answer", video)
        question = one_line(row.text("question"))
        asked[video] += 1
        number = row.text("id") or row.text("question_id") or f"{video}:{asked[video]}"
        category = row.text("answer_type") or _question_word(question)
        return Clip(number, names, (question,), row.place, labels=(answer,), category=category)

    return convert(json_objects(path), clip)


def _question_word(question: str) -> str:
    first = question.split()[0].lower()
    return first if first in QUESTION_WORDS else "other"
