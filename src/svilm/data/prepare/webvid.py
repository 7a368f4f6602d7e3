"""WebVid: results_{2M,10M}_{train,val}.csv of videoid, contentUrl, duration, page_dir, name (the caption).

The dataset was withdrawn in 2024; who holds a copy finds its videos as {page_dir}/{videoid}.mp4.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, Refusal
from svilm.data.prepare.tables import Row, Table, convert, file_name, one_line, open_table


def listing(
    annotations: Annotated[str | Path, "results_2M_train.csv or the like."],
    *,
    split: Annotated[Split, "What the list is used for; val and test must be complete."] = "train",
) -> Listing:
    """The clips of one ``results_*.csv``.  Raises PrepareError where the file or its columns are missing."""
    table = open_table(Path(annotations), {"videoid": (), "name": ()}, {"page_dir": ()})
    return Listing("webvid", table.path, partial(_clips, table), f"webvid {split}", split)


def _clips(table: Table) -> Iterator[Clip | Refusal]:
    return convert(table, _clip)


def _clip(row: Row) -> Clip:
    video, page = file_name(row.text("videoid")), row.text("page_dir")
    names = (f"{file_name(page)}/{video}", video) if page else (video,)
    return Clip(video, names, (one_line(row.text("name")),), row.place)
