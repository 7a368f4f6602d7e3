"""MSRVTT-QA: questions about the videos of MSR-VTT, train_qa.json, val_qa.json and test_qa.json.

The original files are read as well as the forms of ClipBERT, ALPRO (test.jsonl) and LAVIS (qa_test.json). The
videos are video0.mp4 and so on. Accuracy is over all 72,821 test questions.
"""

from pathlib import Path
from typing import Annotated

from svilm.data.prepare import Split
from svilm.data.prepare.common import Listing
from svilm.data.prepare.questions import question_listing

QUESTIONS: dict[Split, int] = {"train": 158_581, "val": 12_278, "test": 72_821}


def listing(
    annotations: Annotated[str | Path, "The questions of one split: test_qa.json, test.jsonl or the like."],
    *,
    split: Annotated[Split | None, "Which split it is; default: as the file's name says."] = None,
) -> Listing:
    """The questions of one file.  Raises PrepareError where neither ``split`` nor its name says which split it is."""
    return question_listing("msrvtt-qa", Path(annotations), split, QUESTIONS, lambda number: (f"video{number}",))
