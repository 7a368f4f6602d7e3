"""The scores of any task in tables and on tiles, each beside its baselines."""

from collections.abc import Mapping
from dataclasses import dataclass

from svilm.report.about import BASELINES, FAMILIES, METRICS, about
from svilm.report.common import Files, Number, fixed, list_in_words
from svilm.report.numbers import Row, Tile, drawn_test, mismatch
from svilm.run import evaluation_of

_COUNTS = ("scored", "official")


@dataclass(frozen=True)
class Table:
    """A family of scores, with what stands beside it, and how they were computed."""

    title: str
    percent: bool
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    protocol: str
    scored: int
    official: int
    of: str
    """What ``official`` counts, in words."""
    remarks: tuple[str, ...]
    """How far the first number can be trusted, and what forbids to compare."""


def tables(files: Files, other: Files | None) -> list[Table]:
    """A table for each family of scores that the run's task has.  Raises ValueError when there is none."""
    families = [family for family in files.protocols if not evaluation_of(family)]
    found = [_table(files, other, family) for family in families if _metrics(files.scores, family)]
    if not found:
        raise ValueError(
            "No scores: the run is unfinished, or was trained without a test manifest (--test). "
            "`svilm evaluate RUN --test MANIFEST` adds them."
        )
    return found


def _table(files: Files, other: Files | None, family: str) -> Table:
    own = _metrics(files.scores, family)
    shown = about(files.run).columns
    columns = [metric for metric in shown or own if metric in own] or list(own)
    percent = bool(about(files.run).headlines)
    sources = [("This run", own)]
    remarks = [drawn_test(files)]
    if other is not None:
        sources.append((f"Baseline {other.short}", _metrics(other.scores, family)))
        remarks.append(mismatch(files, other, family))
    sources += [(_in_words(name, family), _metrics(files.scores, name)) for name in _beside(files, family)]
    rows = [
        Row(title, tuple(_cell(metrics.get(column), percent) for column in columns), own=number == 0)
        for number, (title, metrics) in enumerate(sources)
        if any(column in metrics for column in columns)
    ]
    protocol = files.protocols[family]
    scored, official = int(protocol.get("scored", 0)), int(protocol.get("official", 0))
    if percent and columns[0] in ("accuracy", "top-1"):
        share = own[columns[0]] / 100
        error = 100 * (share * (1 - share) / max(1, scored)) ** 0.5
        remarks.insert(0, f"The standard error of the first number is {fixed(error, 1)} points.")
    return Table(
        FAMILIES.get(family, family),
        percent,
        tuple(shown.get(column) or METRICS.get(column, column) for column in columns),
        tuple(rows),
        str(protocol.get("protocol", "not recorded")),
        scored,
        official,
        list_in_words(files.run),
        tuple(remark for remark in remarks if remark),
    )


def _metrics(scores: Mapping[str, Number], family: str) -> dict[str, Number]:
    """The scores of a family by metric, its counts left out."""
    named = {name.removeprefix(f"{family}/"): value for name, value in scores.items() if name.startswith(f"{family}/")}
    return {metric: value for metric, value in named.items() if metric not in _COUNTS}


def _beside(files: Files, family: str) -> list[str]:
    """Families without a protocol of their own that belong to this one, as in scores.json."""
    names = dict.fromkeys(name.partition("/")[0] for name in files.scores)

    def owner(name: str) -> str:
        owners = [known for known in files.protocols if name == known or name.startswith(f"{known}_")]
        return max(owners, key=len, default="")

    return [name for name in names if name != family and owner(name) == family]


def _in_words(name: str, family: str) -> str:
    rest = name.removeprefix(f"{family}_")
    return BASELINES.get(name) or {"chance": "Guessing"}.get(rest) or rest.replace("_", " ").capitalize()


def _cell(value: Number | None, percent: bool) -> str:
    if value is None:
        return ""
    return fixed(value, 1) if percent else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def tiles(files: Files, other: Files | None) -> list[Tile]:
    """The few numbers that say how good the run is, with the best baseline marked on a bar.

    A task that is not ours shows the first of its scores as it is.
    """
    found = []
    for headline in about(files.run).headlines:
        metric = headline.score.partition("/")[2]
        if headline.score not in files.scores:
            continue
        value = files.scores[headline.score]
        known = {words: files.scores.get(f"{name}/{metric}") for name, words in headline.beside.items()}
        lines = {words: number for words, number in known.items() if number is not None}
        beside = tuple(f"{words} {fixed(number, 1)}\N{NO-BREAK SPACE}%" for words, number in lines.items())
        if other is not None and headline.score in other.scores:
            beside = (f"baseline run {fixed(other.scores[headline.score], 1)}\N{NO-BREAK SPACE}%", *beside)
        mark = max(lines.values()) / 100 if lines else None
        found.append(Tile(headline.title, fixed(value, 1), "%", beside, "scores", value / 100, mark))
    if not found and not about(files.run).headlines:
        own = [family for family in files.protocols if not evaluation_of(family)]
        first = [(family, name, value) for family in own for name, value in _metrics(files.scores, family).items()]
        found = [Tile(f"{family}: {name}", _cell(value, False), "", (), "scores") for family, name, value in first[:1]]
    return found
