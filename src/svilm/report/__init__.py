"""The report of a run, or of several: one HTML file that holds everything it shows and asks the network for nothing.

`parts` says what is shown of each kind of run; `numbers`, `scores` and `curves` read the files of the run;
`search`, `scenes` and `nouns` ask its model; `questions`, `classes`, `segments` and `boxes` read the predictions of
a task.  `page.html` holds the frame, a template for each part its words, `looks.html` the looks.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from svilm.config import ConfigError
from svilm.report.common import Absent, attempt, fixed, read_files
from svilm.report.numbers import Tile
from svilm.report.parts import View, view
from svilm.version import __version__

ORDER = ("pretrain", "retrieval", "vqa", "recognition", "localization", "ava")
"""Tasks in the order in which runs share a page, as in the paper; others follow."""


def write_report(folder: Path, *, baseline: Path | None = None, queries: int = 8) -> Path:
    """Write ``folder``/report.html about a run, or about all runs that are folders in ``folder``; return its path.

    ``baseline`` is another run to set beside a single one, for instance one without temporal grouping; ``queries``
    is how many queries are shown with the videos found for them.  A part whose files are missing, moved or
    unreadable is replaced by a line that says so, and among several runs so is a run.  Raises ConfigError when
    ``folder`` is neither a run nor holds one, when ``baseline`` is no run or stands beside several, and ValueError
    when a JSON file of a single run is damaged.
    """
    folder = Path(folder)
    runs = [] if (folder / "run.json").is_file() else sorted(path.parent for path in folder.glob("*/run.json"))
    if runs and baseline is not None:
        raise ConfigError(f"--baseline stands beside one run, but {folder} holds {len(runs)}; give one of them")
    if runs:
        page = _page_of_several(folder, runs, queries)
    else:
        files, other = read_files(folder), None if baseline is None else read_files(Path(baseline))
        page = _page_of_one(view(files, other, queries))
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def _page_of_one(run: View) -> str:
    return _render(
        name=run.files.name,
        over=f"S-ViLM {run.title[:1].lower()}{run.title[1:]} report",
        tiles=run.tiles,
        views=[run],
        lost=[],
        several=False,
    )


def _page_of_several(folder: Path, runs: Sequence[Path], queries: int) -> str:
    """A headline tile for each run, then a section for each; runs that cannot be read are named at the end."""
    found = [attempt(partial(_view, run, queries)) for run in runs]
    views = sorted((each for each in found if isinstance(each, View)), key=_order)
    views = [replace(each, id=f"{number}-") for number, each in enumerate(views, start=1)]
    lost = [(run.name, each.why) for run, each in zip(runs, found, strict=True) if isinstance(each, Absent)]
    return _render(
        name="/".join(folder.resolve().parts[-2:]),
        over="S-ViLM report",
        tiles=[_headline(each) for each in views],
        views=views,
        lost=lost,
        several=True,
    )


def _view(folder: Path, queries: int) -> View:
    return view(read_files(folder), None, queries)


def _order(run: View) -> tuple[int, str]:
    kind = run.files.run.task.kind
    if kind == "pretrain" and run.files.run.start.model:
        kind = "retrieval"
    return ORDER.index(kind) if kind in ORDER else len(ORDER), run.files.short


def _headline(run: View) -> Tile:
    """The first number of a run under the run's name and that of its task."""
    nothing = Tile("No scores yet", "\N{EN DASH}", "", (), "")
    tile = run.tiles[0] if run.tiles else nothing
    return replace(tile, over=(run.files.short, run.title), link=f"{run.id}run")


def _render(*, views: Sequence[View], **words: object) -> str:
    films = any(part.name in ("queries", "classes") for each in views for part in each.parts)
    page = _templates().get_template("page.html")
    return page.render(views=views, films=films, version=__version__, written=time.strftime("%Y-%m-%d %H:%M"), **words)


def _templates() -> Environment:
    place = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    place.filters["fixed"] = fixed
    place.tests["absent"] = lambda value: isinstance(value, Absent)
    return place
