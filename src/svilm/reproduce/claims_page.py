"""The tables and pictures of docs/claims.md, from the result files of `svilm claims` and nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from svilm.config import ConfigError
from svilm.draw import SEGMENT_COLOURS, Line, as_svg, curves
from svilm.reproduce.claims import CURVES, SCENARIOS
from svilm.reproduce.harness import markdown

Result = Mapping[str, Any]
BEGIN, END = "<!-- begin: written by `svilm claims` -->", "<!-- end: written by `svilm claims` -->"

TABLES: Mapping[str, Mapping[str, str]] = {
    "Retrieval and downstream tasks, percent": {
        "R@1": "retrieval/text_to_video/R@1",
        "R@10": "retrieval/text_to_video/R@10",
        "questions": "vqa/accuracy",
        "UCF101 (looks), linear": "recognition/top-1",
        "localization, average mAP": "localization/average_mAP",
    },
    "Grounding: where the model sees a noun, percent": {
        "pointing": "grounding/pointing",
        "with a distractor": "grounding/pointing_with_distractor",
        "on the distractor": "grounding/on_distractor",
        "IoU": "grounding/iou",
        "energy": "grounding/energy",
    },
    "Temporal awareness": {
        "gap": "temporal/gap",
        "told apart, %": "temporal/told_apart",
        "AUC, %": "temporal/auc",
        "boundary F1, %": "temporal/boundary_f1",
        "within half a tubelet, %": "temporal/boundary_f1_half",
        "assignment, %": "temporal/assignment_accuracy",
    },
    "Jump cuts: the place stays, the things change": {
        "gap": "temporal_cuts/gap",
        "told apart, %": "temporal_cuts/told_apart",
        "AUC, %": "temporal_cuts/auc",
        "boundary F1, %": "temporal_cuts/boundary_f1",
        "within half a tubelet, %": "temporal_cuts/boundary_f1_half",
    },
}
"""Columns with the score that each shows."""
BASELINES: Mapping[str, str] = {
    "untrained": "untrained",
    "contrast": "most salient place (colour contrast)",
    "motion": "where most changes",
    "pixels": "mean pictures of the steps, no model",
    "centre": "middle of the picture",
    "middle": "middle of the clip",
    "chance": "chance",
    "majority_by_question": "usual answer to the very question",
    "majority": "most frequent",
}
"""Families that stand beside a score, by what their names end with."""


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All result files of a folder, by scenario as in Table 6 and by seed.  Raises ConfigError when there are none."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-seed*.json"))]
    if not found:
        raise ConfigError(f"{folder}: no result files; `svilm claims` writes them")
    order = list(SCENARIOS)
    return sorted(found, key=lambda each: (order.index(each["scenario"]), each["seed"]))


def tables(results: Sequence[Result]) -> str:
    """The tables in Markdown: mean and deviation over seeds, baselines below, and what stands behind them."""
    lines = []
    for title, columns in TABLES.items():
        known = [name for name, metric in columns.items() if any(metric in each["scores"] for each in results)]
        if not known:
            continue
        rows = []
        for scenario in dict.fromkeys(each["scenario"] for each in results):
            seeds = [each for each in results if each["scenario"] == scenario and _measured(each, columns)]
            if seeds:
                row = f"{SCENARIOS[scenario][1]} ({len(seeds)})"
                rows.append([row, *(_cell(seeds, columns[name], len(seeds)) for name in known)])
        for family, words in BASELINES.items():
            cells = [_cell(results, _beside(columns[name], family)) for name in known]
            if any(cell != "-" for cell in cells):
                rows.append([f"*{words}*", *cells])
        lines += [f"### {title}", "", *markdown(["", *known], rows), ""]
    return "\n".join([*lines, *_provenance(results)])


def draw_curves(results: Sequence[Result], folder: Path) -> list[Path]:
    """Each loss over the steps, a line for each scenario (mean over seeds), as SVG files in ``folder``."""
    files = []
    for name in CURVES:
        lines = {}
        for scenario in dict.fromkeys(each["scenario"] for each in results):
            runs = [each["curves"][name] for each in results if each["scenario"] == scenario and name in each["curves"]]
            if runs:
                values = [mean(point) for point in zip(*(run["values"] for run in runs), strict=False)]
                lines[scenario] = Line(runs[0]["steps"][: len(values)], values)
        if lines:
            file = folder / f"{name.replace('/', '-')}.svg"
            own = [SEGMENT_COLOURS[list(SCENARIOS).index(scenario)] for scenario in lines]  # the same in each picture
            text = as_svg(curves(lines, colours=own), f"{name} over the steps")
            picture = text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
                "currentColor", "#777"
            )
            file.write_text(picture + "\n", encoding="utf-8")
            files.append(file)
    return files


def write_page(page: Path, results: Path) -> None:
    """Put the tables of the result files between the two marks of a page; the rest of it stays.  A new page is made.

    Raises ConfigError when the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Do the paper's claims hold?\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{page}: no place for the tables; it needs the lines {BEGIN} and {END}")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{head}{BEGIN}\n\n{tables(read_results(results))}\n{END}{tail}", encoding="utf-8")


def _measured(result: Result, columns: Mapping[str, str]) -> bool:
    """Whether a result has anything for a table; one of an earlier version may lack it."""
    return any(metric in result["scores"] for metric in columns.values())


def _cell(results: Iterable[Result], metric: str, seeds: int = 0) -> str:
    """Mean and deviation; how many seeds it has where others of its row have more."""
    values = [each["scores"][metric] for each in results if metric in each["scores"]]
    if not values:
        return "-"
    digits = 3 if metric.endswith("/gap") else 1
    spread = f" ± {stdev(values):.{digits}f}" if len(set(values)) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}" + (f" ({len(values)})" if len(values) < seeds else "")


def _beside(metric: str, family: str) -> str:
    first, _, rest = metric.partition("/")
    return f"{first}_{family}/{rest}"


def _provenance(results: Sequence[Result]) -> list[str]:
    """One line for each way in which result files came about."""
    found: dict[str, list[str]] = {}
    for each in results:
        about, world = each["environment"], each["world"]
        at = {"scored": [each.get("scored", about)], "downstream": [*each.get("downstream", {}).values()]}
        others = {name: sorted({one["commit"] for one in ones} - {about["commit"]}) for name, ones in at.items()}
        later = ", ".join(f"{name} at {' and '.join(commits)}" for name, commits in others.items() if commits)
        scored = f" ({later})" if later else ""
        settings = f", {' '.join(each['settings'])}" if each["settings"] else ""
        words = (
            f"{each['steps']} steps of {each['batch']} clips{settings}; drawn world of {world['clips']:,} training and "
            f"{world['test_clips']} held-out clips, seed {world['seed']}; {about['date'][:10]}, svilm {about['svilm']} "
            f"at {about['commit']}{scored}, torch {about['torch']}, Python {about['python']}, {about['system']}, "
            f"{about['cpus']} CPUs{', ' + ', '.join(about['gpus']) if about['gpus'] else ''}; `{about['command']}`"
        )
        found.setdefault(words, []).append(f"{each['scenario']} {each['seed']}")
    return ["In brackets: seeds; ± is the deviation between them. Behind the tables:", ""] + [
        f"- {', '.join(names)}: {words}" for words, names in found.items()
    ]
