"""MSVD-QA: questions about the videos of MSVD, train_qa.json, val_qa.json and test_qa.json.

The original files are read as well as the forms of ClipBERT, ALPRO (test.jsonl) and LAVIS (qa_test.json). The
original ones number the videos: youtube_mapping.txt says which file each is, "<youtube id>_<start>_<end> vid1".
Accuracy is over all 13,157 test questions.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from svilm.data.prepare import Split
from svilm.data.prepare.common import Listing, PrepareError
from svilm.data.prepare.questions import question_listing
from svilm.data.prepare.tables import Refusal, lines, shortened

QUESTIONS: dict[Split, int] = {"train": 30_933, "val": 6_415, "test": 13_157}
MAPPING = "youtube_mapping.txt"


def listing(
    annotations: Annotated[str | Path, "The questions of one split: test_qa.json, test.jsonl or the like."],
    *,
    mapping: Annotated[
        str | Path | None, "Names of the videos; default: youtube_mapping.txt beside the questions."
    ] = None,
    split: Annotated[Split | None, "Which split it is; default: as the file's name says."] = None,
) -> Listing:
    """The questions of one file.

    A video that is called by its number is looked for as "vid1", and as ``mapping`` calls it.  Raises PrepareError
    for a mapping of another form, and where neither ``split`` nor the file's name says which split it is.
    """
    path = Path(annotations)
    beside = path.with_name(MAPPING)
    named = _mapping(Path(mapping)) if mapping is not None else _mapping(beside) if beside.is_file() else {}
    notes = () if named else (f"no {MAPPING} beside {path.name}: numbered videos are looked for as vid1, vid2, ...",)
    return question_listing("msvd-qa", path, split, QUESTIONS, partial(_names, named), notes)


def _mapping(path: Path) -> dict[str, str]:
    """Name of the file by "vid<N>"."""
    found: dict[str, str] = {}
    for line in lines(path):
        words = [] if isinstance(line, Refusal) else line[1].split()
        if len(words) != 2 or words[1] in found:
            place = line.place if isinstance(line, Refusal) else f"line {line[0]}"
            wrong = "" if isinstance(line, Refusal) else f" and reads {shortened(line[1])!r}"
            raise PrepareError(f"{path}: {place} must be the name of a video and vid<N>, each once{wrong}")
        found[words[1]] = words[0]
    return found


def _names(named: Mapping[str, str], number: int) -> tuple[str, ...]:
    name = f"vid{number}"
    return (named[name], name) if name in named else (name,)
