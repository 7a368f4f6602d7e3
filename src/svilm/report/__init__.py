"""The report of a run: one HTML file that holds everything it shows and asks the network for nothing.

`numbers` reads the files of the run, `pictures` asks its model, `template.html` holds the words and the looks.
"""

import base64
import io
import time
from importlib.resources import files as package_files
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, StrictUndefined
from PIL import Image

from svilm.model import SViLM
from svilm.report import numbers, pictures
from svilm.report.numbers import Absent, Files, attempt
from svilm.version import __version__

T = TypeVar("T")


def write_report(folder: Path, *, baseline: Path | None = None, queries: int = 8) -> Path:
    """Write ``folder``/report.html about a run and return its path.

    ``baseline`` is another run to set beside it, for instance one without temporal grouping; ``queries`` is how many
    queries are shown with the videos found for them.  Parts whose files are missing, moved or unreadable are
    replaced by a line that says so.  Raises ConfigError when ``folder`` or ``baseline`` is not a run.
    """
    folder = Path(folder)
    run = numbers.read_files(folder)
    other = None if baseline is None else numbers.read_files(Path(baseline))
    page = _template().render(_contents(run, other, queries))
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def _contents(run: Files, other: Files | None, queries: int) -> dict[str, object]:
    model = attempt(lambda: SViLM.from_pretrained(run.folder))
    beside = None if other is None else attempt(lambda: SViLM.from_pretrained(other.folder))

    def scenes() -> pictures.Scenes:
        triple = None if other is None else (other.name, other.run, _there(beside))
        return pictures.scenes(run.run, _there(model), triple)

    return {
        "run": run,
        "other": other,
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "sentence": numbers.sentence(run),
        "hardware": numbers.hardware(run),
        "parameters": None
        if isinstance(model, Absent)
        else sum(parameter.numel() for parameter in model.encoder.parameters()),
        "tiles": numbers.headline(run, other),
        "retrieval": attempt(lambda: numbers.retrieval_tables(run, other)),
        "queries": attempt(lambda: pictures.queries(run.run, _there(model), queries)),
        "scenes": attempt(scenes),
        "heats": attempt(lambda: pictures.heats(run.run, _there(model))),
        "paste": attempt(lambda: _first_batch(run)),
        "losses": attempt(lambda: numbers.loss_panels(run)),
        "groups": attempt(lambda: numbers.group_panels(run)),
        "speed": attempt(lambda: numbers.speed_panels(run)),
        "skipped": numbers.skipped(run),
        "environment": numbers.environment_rows(run),
        "settings": numbers.setting_rows(run),
        "differences": [] if other is None else numbers.differences(run, other),
        "top": pictures.TOP,
    }


def _there(model: SViLM | Absent | None) -> SViLM:
    """The model, or the reason why there is none, raised for the part that needs it."""
    if not isinstance(model, SViLM):
        raise ValueError("No trained model to ask." if model is None else f"No trained model to ask: {model.why}")
    return model


def _first_batch(run: Files) -> str:
    """The run's own picture of its first batch, packed smaller."""
    path = run.folder / "first_batch.png"
    if not path.is_file():
        raise ValueError("The run folder holds no first_batch.png.")
    out = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(out, format="webp", quality=85, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _template():  # type: ignore[no-untyped-def]
    place = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    place.filters["fixed"] = numbers.fixed
    place.tests["absent"] = lambda value: isinstance(value, Absent)
    text = package_files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    return place.from_string(text)
