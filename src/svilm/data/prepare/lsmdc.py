"""LSMDC: LSMDC16_annos_training.csv, LSMDC16_annos_val.csv, LSMDC16_challenge_1000_publictect.csv (named so).

No header, six columns between tabs: clip_id, start_aligned, end_aligned, start_extracted, end_extracted, sentence.
The videos are cut already, <movie>/<clip_id>.avi. A clip that several rows describe is several clips here.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, Refusal, unique
from svilm.data.prepare.tables import Row, convert, file_name, lines, one_line, shortened, split_in_name

ROWS: dict[Split, int] = {"train": 101_079, "val": 7_408, "test": 1_000}
COLUMNS = 6


def listing(
    annotations: Annotated[str | Path, "One of the three csv files."],
    *,
    split: Annotated[Split | None, "Which split it is; default: as the file's name says (challenge: test)."] = None,
) -> Listing:
    """The rows of one file.  Raises PrepareError where neither ``split`` nor its name says which split it is."""
    path = Path(annotations)
    split = split or ("test" if "challenge" in path.stem.lower() else split_in_name(path))
    return Listing("lsmdc", path, partial(_clips, path), f"lsmdc {split}", split, published=ROWS[split])


def _clips(path: Path) -> Iterator[Clip | Refusal]:
    return unique(convert(_rows(path), _clip))


def _rows(path: Path) -> Iterator[Row | Refusal]:
    """The lines cut at their tabs: quotation marks belong to the sentences, one of a pair often to each of two."""
    for line in lines(path):
        if isinstance(line, Refusal):
            yield line
            continue
        number, cells = line[0], line[1].split("\t")
        if len(cells) == COLUMNS:
            yield Row(f"line {number}", {"clip": cells[0], "sentence": cells[-1]})
        else:
            yield Refusal(f"line {number}", f"not {COLUMNS} columns between tabs", shortened(line[1]))


def _clip(row: Row) -> Clip:
    video = file_name(row.text("clip"))
    return Clip(video, (video,), (one_line(row.text("sentence")),), row.place)
