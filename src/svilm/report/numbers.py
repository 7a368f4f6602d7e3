"""The run in words and its scores in tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from svilm.config import settings
from svilm.data.manifest import Manifest
from svilm.report.about import about
from svilm.report.common import Absent, Files, Number, attempt, fixed, is_drawn, list_in_words, test_manifest
from svilm.tasks.pretrain import Pretrain

DIRECTIONS = (("text_to_video", "Text to video"), ("video_to_text", "Video to text"))
COLUMNS = ("R@1", "R@5", "R@10", "median_rank", "mean_rank", "tied_queries")

# The run


def sentence(files: Files) -> str:
    """What was trained on what, for how long, from what, in one sentence."""
    run, words = files.run, about(files.run)
    steps = int(max((row["step"] for row in files.log), default=0))
    source = attempt(lambda: Manifest(run.data.manifest))
    items = words.items
    if isinstance(source, Manifest):
        before, _, last = f" {items}".rpartition(" ")
        drawn, form = (" drawn", "in the form of ") if is_drawn(source) else ("", "")
        items = f"{len(source):,}{before}{drawn} {last} ({form}{source.header.source})"
    starts = [start for start in (run.start.model, run.start.video, run.start.text) if start]
    begun = f"from {' and '.join(starts)}" if starts else "from random weights"
    long = f"for {steps:,} steps of {run.data.batch} {words.items.split()[0]}" if steps else "for no step yet"
    taken = duration(files.log)
    took = f", in {_time(taken)} on {hardware(files)}" if taken else ""
    return f"{words.trained} {begun} on {items} {long}{_losses(files)}{took}."


def _losses(files: Files) -> str:
    """Which of its losses a dual encoder was trained with; other tasks have but one."""
    task = files.run.task
    if not isinstance(task, Pretrain):
        return ""
    names = {"contrast": "contrastive", "grounding": "spatial grounding", "grouping": "temporal grouping"}
    losses = [words for name, words in names.items() if getattr(task, name)]
    return f" with the {_list(losses)} loss{'es' if len(losses) > 1 else ''}"


def hardware(files: Files) -> str:
    """The machine in a few words."""
    found = files.environment
    gpus = found.get("gpus") or []
    if gpus and files.run.device != "cpu":
        return ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    cpus = found.get("cpus")
    return f"{cpus} CPU core{'' if cpus == 1 else 's'}" if cpus else "an unknown machine"


def duration(log: Sequence[Mapping[str, Number]]) -> float:
    """Seconds of training; a resumed run counts from zero again, so its pieces are added."""
    clock = [*(row["seconds"] for row in log), 0.0]
    return float(sum(now for now, later in pairwise(clock) if later < now))


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
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


# Scores


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is about, and its cells as text."""

    title: str
    cells: tuple[str, ...]
    own: bool


@dataclass(frozen=True)
class Retrieval:
    """The retrieval tables, one for each direction, and how they were computed."""

    tables: tuple[tuple[str, tuple[Row, ...]], ...]
    protocol: str
    scored: int
    official: int
    of: str
    """What ``official`` counts, in words."""
    warning: str
    """What forbids to compare rows of the tables, or them with other numbers."""


def retrieval_tables(files: Files, baseline: Files | None) -> Retrieval:
    """This run beside the baseline run, an untrained model and chance.  Raises ValueError without scores."""
    if not any(name.startswith("retrieval/") for name in files.scores):
        raise ValueError(
            "No retrieval scores: the run is unfinished, or was trained without a test manifest (--test). "
            "`svilm evaluate RUN --test MANIFEST` adds them."
        )
    sources = [("This run", files.scores, "retrieval")]
    if baseline is not None:
        sources.append((f"Baseline {baseline.short}", baseline.scores, "retrieval"))
    sources += [
        ("This run, dual softmax (transductive)", files.scores, "retrieval_transductive"),
        ("The same model, untrained", files.scores, "retrieval_untrained"),
        ("Chance", files.scores, "retrieval_chance"),
    ]
    tables = []
    for key, title in DIRECTIONS:
        rows = [
            Row(name, _cells(scores, f"{family}/{key}"), own=number == 0)
            for number, (name, scores, family) in enumerate(sources)
            if f"{family}/{key}/R@1" in scores
        ]
        tables.append((title, tuple(rows)))
    return Retrieval(
        tuple(tables),
        str(files.protocols.get("retrieval", {}).get("protocol", "not recorded")),
        int(files.scores.get("retrieval/scored", 0)),
        int(files.scores.get("retrieval/official", 0)),
        list_in_words(files.run),
        f"{drawn_test(files)} {mismatch(files, baseline, 'retrieval') if baseline else ''}".strip(),
    )


def _cells(scores: Mapping[str, Number], prefix: str) -> tuple[str, ...]:
    cells = []
    for column in COLUMNS:
        value = scores.get(f"{prefix}/{column}")
        exact = column in ("median_rank", "tied_queries")
        cells.append("" if value is None else f"{value:g}" if exact else fixed(value, 1))
    return tuple(cells)


def drawn_test(files: Files) -> str:
    """What forbids to compare scores with those of a real benchmark; empty when nothing does."""
    test = attempt(lambda: test_manifest(files.run))
    if isinstance(test, Absent) or not is_drawn(test):
        return ""
    return (
        f"The test videos are drawn ones in the form of {test.header.source}: compare nothing here with numbers "
        "on the real benchmark."
    )


def mismatch(files: Files, baseline: Files, family: str) -> str:
    """What forbids to compare the scores of two runs in a family; empty when nothing does."""
    here, there = files.protocols.get(family, {}), baseline.protocols.get(family, {})
    if not any(name.startswith(f"{family}/") for name in baseline.scores):
        return f"The baseline run {baseline.name} has no {family} scores."
    if there != here:
        return f"The baseline was scored differently: {there.get('protocol', 'protocol not recorded')}."
    return ""


@dataclass(frozen=True)
class Tile:
    """A number of the headline with the ones to compare it with; ``share`` is its length on a bar, 0 to 1."""

    title: str
    value: str
    unit: str
    beside: tuple[str, ...]
    link: str
    share: float | None = None
    mark: float | None = None
    over: tuple[str, ...] = ()
    """Lines above the title where several runs share a page: the run and its task."""


def headline(files: Files, baseline: Files | None) -> list[Tile]:
    """The few numbers that say how good the run is."""
    scores, tiles = files.scores, []
    recall, rank = "text_to_video/R@10", "text_to_video/median_rank"
    if f"retrieval/{recall}" in scores:
        value, chance = scores[f"retrieval/{recall}"], scores.get(f"retrieval_chance/{recall}", 0.0)
        beside = _beside(files, baseline, "retrieval", recall, "{:.1f} %")
        title = "Right video among the first ten (R@10)"
        tiles.append(Tile(title, f"{value:.1f}", "%", beside, "retrieval", value / 100, chance / 100))
        beside = _beside(files, baseline, "retrieval", rank, "{:g}")
        middle, videos = f"{scores[f'retrieval/{rank}']:g}", f"of {scores.get('retrieval/scored', 0):,.0f}"
        tiles.append(Tile("Median rank of the right video", middle, videos, beside, "retrieval"))
    scenes = {"within": "Similarity within a scene", "across": "Similarity across a scene change"}
    for key, title in scenes.items():
        if f"temporal/{key}" in scores:
            value = scores[f"temporal/{key}"]
            beside = _beside(files, baseline, "temporal", key, "{:.2f}")
            tiles.append(Tile(title, fixed(value, 2), "", beside, "scenes", min(1.0, max(0.0, value))))
    return [*tiles, *pointing_tile(files, baseline)]


def beside_table(
    files: Files, other: Files | None, family: str, columns: Sequence[str], blind: Mapping[str, str]
) -> tuple[Row, ...]:
    """Scores of a family beside a baseline run and the families named ``family_key`` for each key of ``blind``.

    Empty when the run has no such scores.
    """
    sources = [("This run", files.scores, family)]
    if other is not None:
        sources.append((f"Baseline {other.short}", other.scores, family))
    sources += [(words, files.scores, f"{family}_{key}") for key, words in blind.items()]
    rows = []
    for number, (title, scores, name) in enumerate(sources):
        values = [scores.get(f"{name}/{column}") for column in columns]
        if any(value is not None for value in values):
            cells = tuple("" if value is None else fixed(value, 1) for value in values)
            rows.append(Row(title, cells, own=number == 0))
    return tuple(rows) if rows and rows[0].own else ()


def pointing_tile(files: Files, baseline: Files | None) -> list[Tile]:
    """The headline of grounding: how often the hottest pixel lies on the named thing, the best blind map marked."""
    metric = "pointing_with_distractor"
    if f"grounding/{metric}" not in files.scores:
        return []
    value = files.scores[f"grounding/{metric}"]
    blind = [files.scores.get(f"grounding_{name}/{metric}", 0.0) for name in ("contrast", "motion", "centre", "chance")]
    beside = (f"most salient place {max(blind):.1f} %", *_beside(files, baseline, "grounding", metric, "{:.1f} %"))
    title = "Noun pointed at, with another thing in sight"
    return [Tile(title, f"{value:.1f}", "%", beside, "nouns", value / 100, max(blind) / 100)]


def heat_tile(inside: float, area: float) -> Tile:
    """The headline of the nouns: share of the heat in the true box, beside that of heat spread evenly."""
    title, even = "Heat of a noun inside its true box", f"spread evenly {100 * area:.0f} %"
    return Tile(title, f"{100 * inside:.0f}", "%", (even,), "nouns", inside, area)


def _beside(files: Files, baseline: Files | None, family: str, key: str, form: str) -> tuple[str, ...]:
    found = {
        "baseline run": None if baseline is None else baseline.scores.get(f"{family}/{key}"),
        "untrained": files.scores.get(f"{family}_untrained/{key}"),
        "chance": files.scores.get(f"{family}_chance/{key}"),
    }
    return tuple(f"{name} {form.format(value)}" for name, value in found.items() if value is not None)
