"""Run what stands behind a table of the paper, as far as the data is there, and print it beside ours."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from svilm.config import ConfigError, named_manifests, override, settings
from svilm.preflight import differences
from svilm.recipes import recipe
from svilm.reproduce.sources import REAL, WORLD, Sources, manifest_of
from svilm.reproduce.steps import STEPS, Step
from svilm.reproduce.tables import Row, Settings, Table
from svilm.run import Run, execute, load_run

Cell = tuple[str, str]
NEUTRAL = ("device", "timeout_minutes", "data.workers", "training.log_every", "training.save_every")
"""Settings that change no score."""


@dataclass
class Workshop:
    """Where runs are made and which data they use; remembers what each step came to."""

    folder: Path
    """Runs and manifests are kept here, and found again."""
    root: Path
    """Data root, or the folder of a drawn world."""
    world: bool = False
    start: str = ""
    """A pre-trained model to use instead of pre-training one."""
    settings: Sequence[str] = ()
    """Given to every run: "training.epochs=1"."""
    only: Callable[[Step], bool] = lambda step: True
    """Steps that may run; the others count as missing unless they are finished."""
    _scores: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError for a setting that no run could take, before a world is drawn for them."""
        for setting in self.settings:
            problems: list[ConfigError] = []
            for step in STEPS.values():
                try:
                    override(recipe(step.tiny if self.world else step.recipe), [setting])
                except ConfigError as error:
                    problems.append(error)
            if len(problems) == len(STEPS):
                raise problems[0]

    @property
    def _sources(self) -> Sources:
        return WORLD if self.world else REAL

    def run_of(self, step: Step) -> Run:
        """The run of a step, with its manifests; what it starts from is run first.

        Raises ValueError (PrepareError, ConfigError, ...) that says what is missing.
        """
        data = self.folder / "data"
        files = {
            kind: manifest_of(name, self._sources, self.root, data)
            for kind, name in (("train", step.train), ("test", step.test))
        }
        run = recipe(step.tiny if self.world else step.recipe)
        tested = "task.test" if "test" in type(run.task).model_fields else "retrieval.manifest"
        given = [f"data.manifest={files['train'].absolute()}", f"{tested}={files['test'].absolute()}"]
        if step.start:
            given.append(f"start.model={self.start or self._model(STEPS[step.start])}")
        return override(run, [*given, *self.settings])

    def _model(self, step: Step) -> Path:
        self.scores(step)
        return self.place(step).absolute()

    def place(self, step: Step) -> Path:
        """The folder of a step; on the drawn world, where corpora are one, equal steps share the first one's."""
        if not self.world:
            return self.folder / step.name
        return self.folder / next(name for name, other in STEPS.items() if self._same(step, other))

    def _same(self, step: Step, other: Step) -> bool:
        known = self._sources
        return (
            (step.tiny, known[step.train], known[step.test]) == (other.tiny, known[other.train], known[other.test])
            and bool(step.start) == bool(other.start)
            and (not step.start or self._same(STEPS[step.start], STEPS[other.start]))
        )

    def scores(self, step: Step) -> Mapping[str, float]:
        """The scores of a step: read when it is finished, otherwise run now (or gone on with).

        Raises ValueError (PrepareError, ConfigError, ...) that says what is missing.
        """
        place = self.place(step)
        if place.name not in self._scores:
            if place.name in self._missing:
                raise ConfigError(self._missing[place.name])
            try:
                self._scores[place.name] = self._finished(step, place) or self._run(step, place)
            except (ValueError, OSError) as error:
                self._missing[place.name] = str(error)
                raise
        return self._scores[place.name]

    def _finished(self, step: Step, place: Path) -> dict[str, float] | None:
        """The scores of a finished run of this step.  Raises ConfigError for one of another recipe, start or setting,
        whose numbers would pass for those that were asked for."""
        scores = finished(place)
        if scores is None:
            return None
        stored = load_run(place)
        wanted = override(recipe(step.tiny if self.world else step.recipe), list(self.settings))
        changed = [] if stored.recipe == wanted.recipe else [f"recipe: {stored.recipe!r} there, {wanted.recipe!r} now"]
        asked = {setting.partition("=")[0] for setting in self.settings}
        known = {name for name, _ in named_manifests(stored)} | {"recipe", "start.model", *NEUTRAL}
        changed += [
            f"{name}: {before!r} there, {now!r} now"
            for name, before, now in differences(stored, wanted)
            # the shape of the model follows from what it started from and its word pieces
            if name not in known and (name in asked or not name.startswith("model."))
        ]
        start = self.start or (str(self.place(STEPS[step.start])) if step.start else "")
        if step.start and _name_of(stored.start.model, self.start) != _name_of(start, self.start):
            changed.append(f"start.model: {stored.start.model!r} there, {start!r} now")
        if changed:
            raise ConfigError(
                f"{place} holds a finished run with other settings ({'; '.join(changed[:5])}); choose another --to, or "
                "remove that folder to run it again"
            )
        return scores

    def _run(self, step: Step, place: Path) -> dict[str, float]:
        if not self.only(step):
            raise ConfigError(f"{place} has not been run")
        run = self.run_of(step)
        print(f"{step.name}: recipe {run.recipe} in {place}", file=sys.stderr, flush=True)
        return execute(run, place)

    def protocol(self, step: Step) -> str:
        """How the scores of a finished step came about: data, frames, seed, counts."""
        place = self.place(step)
        run = load_run(place)
        sampling = run.data.sampling
        protocols = json.loads((place / "protocols.json").read_text(encoding="utf-8"))
        counts = "; ".join(
            f"{name}: {about['scored']} of {about['official']}, {about['protocol']}"
            for name, about in protocols.items()
            if name != "temporal"
        )
        start = f" from {run.start.model}" if run.start.model else ""
        return f"{step.name}: recipe {run.recipe}{start}, seed {run.seed}, {sampling.num_frames} frames; {counts}"


def _name_of(model: str, given: str) -> str:
    """A model by its absolute path, or, where none was given, by its name: a folder of runs may have been moved."""
    return os.path.abspath(model) if given else Path(model).name


def finished(place: Path) -> dict[str, float] | None:
    """The scores of a run that has come to its end, None of any other."""
    file = place / "scores.json"
    found: dict[str, float] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found


def render(table: Table, workshop: Workshop) -> str:
    """The table in Markdown: the paper's rows, ours below the rows that are ours, and what stands behind them.

    Runs whatever is not there yet; a run that lacks something leaves a cell "-" and a line that says what.
    """
    about: dict[str, str] = {}
    rows = []
    for row in table.rows:
        rows.append([f"{row.method} (paper)", *("-" if value is None else str(value) for value in row.paper)])
        if row.ours:
            rows.append([f"**{row.method} (ours)**", *_ours(row, workshop, about)])
    where = f"the drawn world {workshop.root}" if workshop.world else str(workshop.root)
    head = [
        f"# {table.title}",
        "",
        f"Ours: data from {where}."
        + (" These are no benchmark numbers: compare rows of ours with each other only." if workshop.world else ""),
        "",
    ]
    return "\n".join([*head, *markdown(["", *table.columns], rows), "", *about.values(), *table.notes]) + "\n"


def _ours(row: Row, workshop: Workshop, about: dict[str, str]) -> list[str]:
    cells = []
    for cell in row.ours:
        if cell is None:
            cells.append("-")
            continue
        step, metric = STEPS[cell[0]], cell[1]
        try:
            scores = workshop.scores(step)
        except (ValueError, OSError) as error:
            cells.append("-")
            about[step.name] = f"- {step.name}: not run; {error}"
            continue
        about.setdefault(step.name, f"- {workshop.protocol(step)}")
        cells.append(number(scores.get(metric)))
        if metric not in scores:
            about[f"{step.name} {metric}"] = f"- {step.name}: its scores have no {metric}"
    return cells


def render_settings(table: Settings) -> str:
    """A table of settings: the paper's value and that of our recipe, with a mark where they differ."""
    known = {name: {key: value for key, value, _ in settings(recipe(name))} for name in table.recipes}
    rows = []
    for name, (printed, setting) in table.rows.items():
        cells = [name]
        for value, each in zip(printed, table.recipes, strict=True):
            ours = _plain(known[each][setting])
            cells += [value, ours if ours == value else f"{ours} (differs)"]
        rows.append([*cells, f"`{setting}`"])
    columns = ["", *(f"{name}, {who}" for name in table.recipes for who in ("paper", "ours")), "setting"]
    return "\n".join([f"# {table.title}", "", *markdown(columns, rows), "", *table.notes]) + "\n"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = [head, ["-" * max(3, width) for width in wide], *rows]
    return [
        "| " + " | ".join(cell.ljust(max(3, width)) for cell, width in zip(line, wide, strict=True)) + " |"
        for line in lines
    ]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
