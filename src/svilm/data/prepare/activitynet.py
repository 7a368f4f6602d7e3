"""ActivityNet v1.3 for temporal localization: activity_net.v1-3.min.json, or gtad's anet_anno_action.json.

One clip per video with all its segments, in seconds.  Some segments reach beyond their video or are empty: they
are cut or struck, and counted.  Which validation videos are scored differs between papers (4,926, or 4,728 without
the blocked ones), so the number stands in the protocol.  gtad's file does not say which video is of which subset:
video_info_new.csv beside it does.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.jsons import load_json
from svilm.data.prepare.segments import Pieces, cut_notes, is_time, timeline, video_list
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, open_table, shortened

PUBLISHED = {"training": 10_024, "validation": 4_926}
"""Videos of the official file."""
INFO = "video_info_new.csv"

Database = Mapping[str, Mapping[str, Any]]
"""Of each video, by its id without "v_": subset, duration, annotations."""


def listing(
    annotations: Annotated[str | Path, "activity_net.v1-3.min.json, or anet_anno_action.json beside its csv."],
    *,
    subset: Annotated[Literal["training", "validation"], "The test labels are not public."] = "training",
    blocked: Annotated[
        str | Path | None, "Videos to leave out: a JSON list or object of ids, or a text file of them."
    ] = None,
) -> Listing:
    """The videos of a subset; validation is what papers test on.

    Raises PrepareError for a file that is missing or not of the form, and for a subset that it does not have.
    """
    path, left_out = Path(annotations), video_list(blocked)
    database, taxonomy = _database(path)
    chosen = {video: about for video, about in database.items() if about.get("subset") == subset}
    if not chosen:
        known = sorted({str(about.get("subset")) for about in database.values()})
        raise PrepareError(f"{path}: no video of subset {subset!r}; it has {', '.join(known) or 'no videos'}")
    wanted = {video: about for video, about in chosen.items() if video not in left_out}
    classes = _classes(path, database, taxonomy)
    gone = f" ({len(chosen) - len(wanted)} blocked)" if len(wanted) < len(chosen) else ""
    return Listing(
        "activitynet",
        path,
        partial(_clips, wanted, frozenset(classes)),
        f"activitynet-1.3 {subset}, {len(wanted)} videos{gone}",
        "train" if subset == "training" else "test",
        published=PUBLISHED[subset] if blocked is None else None,
        notes=cut_notes(_measured(wanted)),
        nouns=False,
        classes=classes,
    )


def _database(path: Path) -> tuple[Database, Any]:
    """All videos, and the taxonomy if the file has one."""
    data = load_json(path)
    taxonomy = None
    if isinstance(data, dict) and "database" in data:
        taxonomy, data = data.get("taxonomy"), data["database"]
    elif isinstance(data, dict):
        data = _gtad(path, data)
    if not isinstance(data, dict) or not all(isinstance(about, dict) for about in data.values()):
        raise PrepareError(f"{path}: not ActivityNet: needs database, an object with an object for each video")
    if all(video.startswith("v_") for video in data):  # an id may begin so, but not all of them
        data = {video.removeprefix("v_"): about for video, about in data.items()}
    return data, taxonomy


def _gtad(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """gtad's file in the official layout, with the subsets of the csv beside it."""
    info = path.with_name(INFO)
    if not info.is_file():
        raise PrepareError(f"{path}: has no database, and {INFO} with the subsets is not beside it")
    subsets = {row.text("video"): row.text("subset") for row in _sound(info)}
    return {
        video: {
            "subset": subsets.get(video),
            "duration": about.get("duration_second"),
            "annotations": about.get("annotations"),
        }
        for video, about in data.items()
        if isinstance(about, dict)
    }


def _sound(path: Path) -> Iterator[Row]:
    for row in open_table(path, {"video": (), "subset": ()}):
        if isinstance(row, Refusal):
            raise PrepareError(f"{path}: {row.place}: {row.reason} ({row.detail})")
        yield row


def _classes(path: Path, database: Database, taxonomy: Any) -> tuple[str, ...]:
    """The leaves of the taxonomy, sorted; without one, the labels that occur anywhere in the file."""
    try:
        nodes = {str(node["nodeName"]): str(node["parentName"]) for node in taxonomy or ()}
    except (KeyError, TypeError):
        raise PrepareError(f"{path}: taxonomy must be a list of nodeName and parentName") from None
    leaves = set(nodes) - set(nodes.values())
    if not leaves:
        pieces = (piece for about in database.values() for piece in _pieces(about, strict=False))
        leaves = {label for _, _, label in pieces if isinstance(label, str)}
    return tuple(sorted(leaves))


def _clips(videos: Database, classes: frozenset[str]) -> Iterator[Clip | Refusal]:
    rows = (Row(shortened(video), {"video": video, "about": about}) for video, about in videos.items())
    return convert(rows, partial(_clip, classes))


def _clip(classes: frozenset[str], row: Row) -> Clip:
    video, about = file_name(row.text("video")), row.values["about"]
    pieces, duration = _pieces(about), _duration(about)
    if duration is None:
        raise BadRow("duration is not a number of seconds above 0", shortened(about.get("duration")))
    clip = timeline(video, (f"v_{video}", video), pieces, duration, row.place)
    if not classes.issuperset(clip.labels):
        raise BadRow("label is no leaf of the taxonomy", shortened(", ".join(clip.labels)))
    return clip


def _measured(videos: Database) -> Iterator[tuple[Pieces, float | None]]:
    for about in videos.values():
        yield _pieces(about, strict=False), _duration(about)


def _duration(about: Mapping[str, Any]) -> float | None:
    value = about.get("duration")
    return float(value) if value is not None and is_time(value) and value > 0 else None


def _pieces(about: Mapping[str, Any], *, strict: bool = True) -> list[tuple[Any, Any, Any]]:
    """Start, end and label of each segment.  Raises BadRow for annotations of another form, if ``strict``."""
    try:
        return [(*_pair(piece["segment"]), piece["label"]) for piece in about["annotations"]]
    except (KeyError, TypeError, ValueError):
        if strict:
            raise BadRow("annotations are not segments with labels", shortened(about.get("annotations"))) from None
        return []


def _pair(segment: Any) -> tuple[Any, Any]:
    start, end = segment
    return start, end
