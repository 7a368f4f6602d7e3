"""What the files of a run say: its scores as tables, its log as curves, where and how it ran."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

from svilm.config import settings
from svilm.data.decode import DecodeError
from svilm.data.manifest import Manifest
from svilm.draw import Line, as_svg, curves
from svilm.engine.logbook import read_metrics
from svilm.run import Run, load_run

Direction = tuple[str, str]
DIRECTIONS: tuple[Direction, ...] = (("text_to_video", "Text to video"), ("video_to_text", "Video to text"))
COLUMNS = ("R@1", "R@5", "R@10", "median_rank", "mean_rank", "tied_queries")
LOSSES = {
    "loss/total": "Total",
    "loss/contrast": "Global contrastive loss (Eq. 7)",
    "loss/grounding": "Spatial grounding loss (Eq. 6)",
    "loss/grouping": "Temporal grouping loss (Eq. 2)",
}

T = TypeVar("T")


def fixed(value: float, digits: int) -> str:
    """A number with so many digits after the point, and a real minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Absent:
    """Stands in place of a part that cannot be shown; ``why`` is one line."""

    why: str


def attempt(build: Callable[[], T]) -> "T | Absent":
    """What ``build`` gives, or, where files are missing, moved or do not fit, the reason in one line."""
    try:
        return build()
    except (ValueError, OSError, LookupError, RuntimeError, DecodeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Absent(lines[-1] if lines else type(error).__name__)


@dataclass(frozen=True)
class Files:
    """A run folder as read: its settings and whatever it holds of scores, protocols, environment and log."""

    folder: Path
    run: Run
    scores: Mapping[str, float]
    protocols: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    log: Sequence[Mapping[str, float]]

    @property
    def name(self) -> str:
        """The folder's own name, and the one above it where that tells more."""
        return "/".join(self.folder.resolve().parts[-2:])


def read_files(folder: Path) -> Files:
    """Everything that a run folder holds in JSON.  Raises ConfigError when it is no run folder."""
    run = load_run(folder)
    log = read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    return Files(
        folder,
        run,
        _json(folder / "scores.json"),
        _json(folder / "protocols.json"),
        _json(folder / "environment.json"),
        log,
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a JSON object; write it again with `svilm evaluate`")
    return data


# What the run is


def sentence(files: Files) -> str:
    """What was trained on what, for how long, from what, in one sentence."""
    run = files.run
    names = {"contrast": "contrastive", "grounding": "spatial grounding", "grouping": "temporal grouping"}
    losses = [words for name, words in names.items() if getattr(run.task, name)]
    steps = int(max((row["step"] for row in files.log), default=0))
    source = attempt(lambda: Manifest(run.data.manifest))
    clips = "clips" if isinstance(source, Absent) else f"{len(source):,} clips ({source.header.source})"
    starts = [start for start in (run.start.video, run.start.text) if start]
    begun = f"from {' and '.join(starts)}" if starts else "from random weights"
    parts = [
        f"A video-text dual encoder trained {begun} on {clips}",
        f"for {steps:,} steps of {run.data.batch} clips" if steps else "for no step yet",
        f"with the {_list(losses)} loss{'es' if len(losses) > 1 else ''}",
    ]
    took = duration(files.log)
    end = f", in {_time(took)} on {hardware(files)}." if took else "."
    return " ".join(parts) + end


def hardware(files: Files) -> str:
    """The machine in a few words."""
    found = files.environment
    gpus = found.get("gpus") or []
    if gpus and files.run.device != "cpu":
        kinds = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
        return ", ".join(kinds)
    cpus = found.get("cpus")
    return f"{cpus} CPU core{'' if cpus == 1 else 's'}" if cpus else "an unknown machine"


def duration(log: Sequence[Mapping[str, float]]) -> float:
    """Seconds of training; a resumed run counts from zero again, so its pieces are added."""
    clock = [row["seconds"] for row in log] + [0.0]
    return sum(now for now, later in zip(clock, clock[1:], strict=False) if later < now)


def environment_rows(files: Files) -> list[tuple[str, str]]:
    """environment.json for a table."""
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in files.environment.items()
        if value not in ([], "")
    ]


def setting_rows(files: Files) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every setting."""
    return [(name, json.dumps(value), text) for name, value, text in settings(files.run)]


def differences(files: Files, other: Files) -> list[tuple[str, str, str]]:
    """Settings in which two runs differ, files and names aside: name, value here, value there."""
    there = {name: value for name, value, _ in settings(other.run)}
    return [
        (name, json.dumps(value), json.dumps(there.get(name)))
        for name, value, _ in settings(files.run)
        if there.get(name) != value and name not in ("recipe", "device") and not name.endswith("manifest")
    ]


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:.1f} h"


# Scores


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is about, and its cells as text."""

    title: str
    cells: tuple[str, ...]
    own: bool = False


@dataclass(frozen=True)
class Retrieval:
    """The retrieval tables, one for each direction, and how they were computed."""

    tables: tuple[tuple[str, tuple[Row, ...]], ...]
    protocol: str
    scored: int
    official: int
    warning: str


def retrieval_tables(files: Files, baseline: Files | None) -> Retrieval:
    """This run beside the baseline run, an untrained model and chance.  Raises ValueError without scores."""
    if not any(name.startswith("retrieval/") for name in files.scores):
        raise ValueError(
            "No retrieval scores: the run is unfinished, or was trained without a test manifest (--test). "
            "`svilm evaluate RUN --test MANIFEST` adds them."
        )
    sources = [("This run", files.scores, "retrieval")]
    if baseline is not None:
        sources.append((f"Baseline run {baseline.name}", baseline.scores, "retrieval"))
    sources += [
        ("This run, dual softmax (transductive)", files.scores, "retrieval_transductive"),
        ("The same model, untrained", files.scores, "retrieval_untrained"),
        ("Chance", files.scores, "retrieval_chance"),
    ]
    tables = []
    for key, title in DIRECTIONS:
        rows = [
            Row(name, tuple(_cell(column, scores.get(f"{family}/{key}/{column}")) for column in COLUMNS), number == 0)
            for number, (name, scores, family) in enumerate(sources)
            if f"{family}/{key}/R@1" in scores
        ]
        tables.append((title, tuple(rows)))
    here = files.protocols.get("retrieval", {})
    there = {} if baseline is None else baseline.protocols.get("retrieval", {})
    warning = ""
    if baseline is not None and not there:
        warning = f"The baseline run {baseline.name} has no retrieval scores of its own."
    elif there and there != here:
        warning = f"The baseline was scored differently: {there.get('protocol', 'protocol unknown')}."
    return Retrieval(
        tuple(tables),
        str(here.get("protocol", "not recorded")),
        int(files.scores.get("retrieval/scored", 0)),
        int(files.scores.get("retrieval/official", 0)),
        warning,
    )


@dataclass(frozen=True)
class Tile:
    """A number of the headline with the ones to compare it with; ``share`` is its place on a bar, 0 to 1."""

    title: str
    value: str
    unit: str
    beside: tuple[str, ...]
    link: str
    share: float | None = None
    mark: float | None = None


def headline(files: Files, baseline: Files | None) -> list[Tile]:
    """The few numbers that say how good the run is."""
    tiles = []
    recall, rank = "text_to_video/R@10", "text_to_video/median_rank"
    if f"retrieval/{recall}" in files.scores:
        value, chance = files.scores[f"retrieval/{recall}"], files.scores.get(f"retrieval_chance/{recall}", 0.0)
        tiles.append(
            Tile(
                "Right video among the first ten (R@10)",
                f"{value:.1f}",
                "%",
                _beside(files, baseline, "retrieval", recall, "{:.1f} %"),
                "retrieval",
                value / 100,
                chance / 100,
            )
        )
        middle = files.scores[f"retrieval/{rank}"]
        tiles.append(
            Tile(
                "Median rank of the right video",
                f"{middle:g}",
                f"of {files.scores.get('retrieval/scored', 0):,.0f}",
                _beside(files, baseline, "retrieval", rank, "{:g}"),
                "retrieval",
            )
        )
    for key, title in (("within", "Similarity within a scene"), ("across", "Similarity across a scene change")):
        if f"temporal/{key}" in files.scores:
            value = files.scores[f"temporal/{key}"]
            tiles.append(
                Tile(
                    title,
                    fixed(value, 2),
                    "",
                    _beside(files, baseline, "temporal", key, "{:.2f}"),
                    "scenes",
                    min(1.0, max(0.0, value)),
                )
            )
    return tiles


def _beside(files: Files, baseline: Files | None, family: str, key: str, form: str) -> tuple[str, ...]:
    found = [
        ("baseline", None if baseline is None else baseline.scores.get(f"{family}/{key}")),
        ("untrained", files.scores.get(f"{family}_untrained/{key}")),
        ("chance", files.scores.get(f"{family}_chance/{key}")),
    ]
    return tuple(f"{name} {form.format(value)}" for name, value in found if value is not None)


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if column.startswith("R@") or column == "mean_rank" else f"{value:g}"


# Curves


@dataclass(frozen=True)
class Panel:
    """A chart with its heading."""

    title: str
    chart: Markup


def loss_panels(files: Files) -> list[Panel]:
    """Each loss term over the steps, with a dotted line for a model that knows nothing.

    Such a model gives every caption of the batch the same share: each direction of a contrastive loss then
    costs ln(batch).  For temporal grouping it says one half everywhere.
    """
    run = files.run
    both_ways = 2 * math.log(run.data.batch)
    levels = {
        "loss/contrast": both_ways,
        "loss/grounding": both_ways,
        "loss/grouping": 0.25 if run.task.grouping_kind == "mse" else math.log(2),
    }
    names = [*LOSSES, *sorted({name for row in files.log for name in row if name.startswith("loss/")} - LOSSES.keys())]
    panels = [
        _panel(files, LOSSES.get(name, name), {name: name}, level=levels.get(name), bottom=0.0) for name in names
    ]
    watched = {"contrastive": "temperature/contrast", "grounding": "temperature/grounding"}
    panels.append(_panel(files, "Learned temperatures", watched, bottom=0.0))
    panels.append(_panel(files, "Learning rate", {"rate": "optim/lr"}, bottom=0.0))
    panels.append(_panel(files, "Gradient norm", {"norm": "optim/gradient_norm"}, bottom=0.0))
    recall = {"text to video": "retrieval/text_to_video/R@10", "video to text": "retrieval/video_to_text/R@10"}
    panels.append(_panel(files, "R@10 while training", recall, bottom=0.0))
    return _shown(panels, "No training log (metrics.jsonl) in the run folder.")


def group_panels(files: Files) -> list[Panel]:
    """How many group tokens hold any video token, and how evenly they share them."""
    groups = files.run.model.video.groups
    live = {"in a clip": "groups/live_per_clip", "anywhere in the batch": "groups/live_in_batch"}
    return _shown(
        [
            _panel(files, f"Groups in use, of {groups}", live, bottom=0.0, top=groups * 1.05),
            _panel(files, "Evenness of their shares", {"entropy": "groups/entropy"}, bottom=0.0, top=1.05),
        ],
        "The training log holds no group usage.",
    )


def speed_panels(files: Files) -> list[Panel]:
    """Clips per second and the share of time spent waiting for data."""
    return _shown(
        [
            _panel(files, "Clips per second", {"speed": "speed/clips_per_second"}, bottom=0.0),
            _panel(files, "Share of time waiting for data", {"waiting": "speed/waiting_for_data"}, bottom=0.0, top=1.0),
        ],
        "The training log holds no speed.",
    )


def skipped(files: Files) -> int:
    """Training clips that could not be read."""
    return int(max((row.get("data/skipped", 0.0) for row in files.log), default=0.0))


def _panel(
    files: Files,
    title: str,
    names: Mapping[str, str],
    *,
    level: float | None = None,
    bottom: float | None = None,
    top: float | None = None,
) -> Panel | None:
    lines = {}
    for label, name in names.items():
        rows = [row for row in files.log if name in row]
        if rows:
            lines[label] = Line([row["step"] for row in rows], [row[name] for row in rows])
    if not lines:
        return None
    last = ", ".join(f"{label} {line.values[-1]:.3g}" for label, line in lines.items())
    figure = curves(lines, level=level, bottom=bottom, top=top)
    return Panel(title, Markup(as_svg(figure, f"{title} over training steps; at the end: {last}")))


def _shown(panels: Sequence[Panel | None], otherwise: str) -> list[Panel]:
    found = [panel for panel in panels if panel is not None]
    if not found:
        raise ValueError(otherwise)
    return found
