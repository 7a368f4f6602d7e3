"""The training log as charts: losses, temperatures, groups in use, speed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from svilm.draw import Line, as_svg, curves
from svilm.report.about import LOSSES
from svilm.report.common import Files


@dataclass(frozen=True)
class Panel:
    """A chart with its heading; ``chart`` is markup."""

    title: str
    chart: str


def losses(files: Files) -> list[Panel]:
    """Each loss term over the steps, with a dotted line for a model that knows nothing.

    Such a model gives every caption of the batch the same share: each direction of a contrastive loss then
    costs ln(batch).  For temporal grouping it says one half everywhere.  Raises ValueError without a log.
    """
    run = files.run
    both_ways = 2 * math.log(run.data.batch)
    levels = {
        "loss/contrast": both_ways,
        "loss/grounding": both_ways,
        "loss/grouping": 0.25 if getattr(run.task, "grouping_kind", "mse") == "mse" else math.log(2),
    }
    found = {name for row in files.log for name in row if name.startswith("loss/")}
    names = [*LOSSES, *sorted(found - LOSSES.keys())]
    panels = [_panel(files, LOSSES.get(name, name), {name: name}, level=levels.get(name)) for name in names]
    temperatures = {"contrastive": "temperature/contrast", "grounding": "temperature/grounding"}
    recalls = {
        direction.replace("_", " "): f"retrieval/{direction}/R@10" for direction in ("text_to_video", "video_to_text")
    }
    panels += [
        _panel(files, "Temperatures", temperatures),
        _panel(files, "Learning rate", {"rate": "optim/lr"}),
        _panel(files, "Gradient norm", {"norm": "optim/gradient_norm"}),
        _panel(files, "R@10 while training", recalls),
    ]
    return _shown(panels, "No training log (metrics.jsonl) in the run folder.")


def groups(files: Files) -> list[Panel]:
    """How many group tokens hold any video token, and how evenly they share them."""
    number = files.run.model.video.groups
    live = {"in a clip": "groups/live_per_clip", "anywhere in the batch": "groups/live_in_batch"}
    panels = [
        _panel(files, f"Groups in use, of {number}", live, top=number * 1.05),
        _panel(files, "Evenness of their shares", {"entropy": "groups/entropy"}, top=1.05),
    ]
    return _shown(panels, "The training log holds no group usage.")


def speed(files: Files) -> list[Panel]:
    """Clips per second and the share of time spent waiting for data."""
    waiting = {"waiting": "speed/waiting_for_data"}
    panels = [
        _panel(files, "Clips per second", {"speed": "speed/clips_per_second"}),
        _panel(files, "Share of time waiting for data", waiting, top=1.0),
    ]
    return _shown(panels, "The training log holds no speed.")


def skipped(files: Files) -> int:
    """Training clips that could not be read."""
    return int(max((row.get("data/skipped", 0.0) for row in files.log), default=0.0))


def _panel(
    files: Files,
    title: str,
    names: Mapping[str, str],
    *,
    level: float | None = None,
    top: float | None = None,
) -> Panel | None:
    """A chart of the logged values, from zero up; None when none of them was logged."""
    lines = {}
    for label, name in names.items():
        rows = [row for row in files.log if name in row]
        if rows:
            lines[label] = Line([row["step"] for row in rows], [row[name] for row in rows])
    if not lines:
        return None
    last = ", ".join(f"{label} {line.values[-1]:.3g}" for label, line in lines.items())
    figure = curves(lines, level=level, bottom=0.0, top=top)
    return Panel(title, as_svg(figure, f"{title} over training steps; at the end: {last}"))


def _shown(panels: Sequence[Panel | None], otherwise: str) -> list[Panel]:
    found = [panel for panel in panels if panel is not None]
    if not found:
        raise ValueError(otherwise)
    return found
