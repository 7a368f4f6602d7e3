"""The report of a run: one HTML file that holds everything it shows and asks the network for nothing.

`numbers` and `curves` read the files of the run; `search`, `scenes` and `nouns` ask its model;
`template.html` holds the words and the looks.
"""

import time
from importlib.resources import files as package_files
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from svilm.draw import as_data_uri
from svilm.model import SViLM
from svilm.report import curves, nouns, numbers, scenes, search
from svilm.report.common import Absent, Files, attempt, fixed, read_files
from svilm.version import __version__


def write_report(folder: Path, *, baseline: Path | None = None, queries: int = 8) -> Path:
    """Write ``folder``/report.html about a run and return its path.

    ``baseline`` is another run to set beside it, for instance one without temporal grouping; ``queries`` is
    how many queries are shown with the videos found for them.  A part whose files are missing, moved or
    unreadable is replaced by a line that says so.  Raises ConfigError when ``folder`` or ``baseline`` is no
    run, and ValueError when one of its JSON files is damaged.
    """
    run = read_files(Path(folder))
    other = None if baseline is None else read_files(Path(baseline))
    page = _template().render(_contents(run, other, queries))
    path = run.folder / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def _contents(run: Files, other: Files | None, queries: int) -> dict[str, object]:
    model = attempt(lambda: SViLM.from_pretrained(run.folder))

    def scene_changes() -> scenes.Scenes:
        own = scenes.Viewer("This run", run.run, _there(model))
        if other is None:
            return scenes.scenes(own, None)
        beside = SViLM.from_pretrained(other.folder)
        return scenes.scenes(own, scenes.Viewer(f"Baseline {other.short}", other.run, beside))

    heats = attempt(lambda: nouns.heats(run.run, _there(model)))
    tiles = numbers.headline(run, other)
    if isinstance(heats, nouns.Heats) and heats.share is not None:
        tiles.append(numbers.heat_tile(heats.share.inside, heats.share.area))
    return {
        "run": run,
        "other": other,
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "sentence": numbers.sentence(run),
        "hardware": numbers.hardware(run),
        "weights": sum(p.numel() for p in model.encoder.parameters()) if isinstance(model, SViLM) else 0,
        "tiles": tiles,
        "retrieval": attempt(lambda: numbers.retrieval_tables(run, other)),
        "queries": attempt(lambda: search.queries(run.run, _there(model), queries)),
        "scenes": attempt(scene_changes),
        "heats": heats,
        "paste": attempt(lambda: _first_batch(run)),
        "losses": attempt(lambda: curves.losses(run)),
        "groups": attempt(lambda: curves.groups(run)),
        "speed": attempt(lambda: curves.speed(run)),
        "skipped": curves.skipped(run),
        "environment": numbers.environment_rows(run),
        "settings": numbers.setting_rows(run),
        "differences": [] if other is None else numbers.differences(run, other),
        "top": search.TOP,
    }


def _there(model: SViLM | Absent) -> SViLM:
    """The model, or the reason why there is none, raised for the part that needs it."""
    if isinstance(model, Absent):
        raise ValueError(f"No trained model to ask: {model.why}")
    return model


def _first_batch(run: Files) -> str:
    """The run's own picture of its first batch, packed smaller."""
    path = run.folder / "first_batch.png"
    if not path.is_file():
        raise ValueError("The run folder holds no first_batch.png.")
    with Image.open(path) as picture:
        return as_data_uri(np.asarray(picture.convert("RGB")))


def _template() -> Template:
    place = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    place.filters["fixed"] = fixed
    place.tests["absent"] = lambda value: isinstance(value, Absent)
    return place.from_string(package_files(__package__).joinpath("template.html").read_text("utf-8"))
