"""`svilm claims`: do the paper's claims hold?  Table 6 on a drawn world, over seeds, grounding and scenes measured.

Every pre-training run leaves a small file of JSON that names command, settings, seed, commit, versions and hardware;
`svilm.reproduce.claims_page` makes the tables of docs/claims.md from those files and nothing else.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svilm.config import ConfigError, override
from svilm.draw import Line, thinned
from svilm.provenance import environment
from svilm.recipes import recipe
from svilm.reproduce.harness import Workshop
from svilm.reproduce.sources import WORLD, Source, manifest_of
from svilm.reproduce.steps import STEPS
from svilm.run import Run, evaluation_of, execute

SCENARIOS: Mapping[str, tuple[str, str]] = {
    "contrastive": ("tiny-contrastive", "contrastive"),
    "grounding": ("tiny-grounding", "and grounding"),
    "grouping": ("tiny-grouping", "and grouping"),
    "all": ("tiny", "all: the paper's design"),
    "regions": ("tiny-regions", "all, with region tokens: ours"),
}
"""Rows of Table 6 and of our own designs: recipe and title by name."""
DOWNSTREAM: Mapping[str, str] = {
    "msrvtt-qa": "vqa/accuracy",
    "ucf101-linear": "recognition/top-1",
    "activitynet": "localization/average_mAP",
}
"""Tasks that each pre-trained model is carried to, with the score that is kept."""
SHORTER: Mapping[str, Sequence[str]] = {"msrvtt-qa": ("data.batch=32",)}
"""Settings of tasks that would take longer than the pre-training here; the recipe has twice the batch."""
SCENES: Mapping[str, Source] = {
    "scenes": Source("folder", "scenes.csv", "videos", {"split": "test"}),
    "jump_cuts": Source("folder", "jump_cuts.csv", "jump_cuts", {"split": "test"}),
}
CURVES = ("loss/contrast", "loss/grounding", "loss/grouping")


@dataclass(frozen=True)
class Plan:
    """What is run, and where its files go.  Raises ConfigError for an unknown scenario or setting."""

    folder: Path
    """Runs."""
    world: Path
    """A drawn world."""
    results: Path
    """The small files."""
    seeds: int = 3
    scenarios: Sequence[str] = tuple(SCENARIOS)
    settings: Sequence[str] = field(default=())
    """Given to every pre-training run: "training.steps=150"."""
    downstream: bool = True
    """Carry each model to question answering, action recognition and temporal localization."""

    def __post_init__(self) -> None:
        unknown = set(self.scenarios) - set(SCENARIOS)
        if unknown:
            raise ConfigError(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
        for name in self.scenarios:  # before a world is drawn for them
            override(recipe(SCENARIOS[name][0]), self.settings)


def run_claims(plan: Plan) -> list[Path]:
    """Run whatever has no result file yet (or none with downstream tasks, if wanted), and return the files.

    A run that was interrupted goes on from its last checkpoint.  Raises ConfigError when a result file comes from other
    settings.
    """
    plan.results.mkdir(parents=True, exist_ok=True)
    files = []
    for seed in range(plan.seeds):
        for scenario in plan.scenarios:
            file = plan.results / f"{scenario}-seed{seed}.json"
            if not _complete(file, plan):
                print(f"claims: {scenario}, seed {seed}", file=sys.stderr, flush=True)
                text = json.dumps(result_of(plan, scenario, seed), indent=1)
                file.write_text(text + "\n", encoding="utf-8")
            files.append(file)
    return files


def _complete(file: Path, plan: Plan) -> bool:
    if not file.is_file():
        return False
    found = json.loads(file.read_text(encoding="utf-8"))
    if list(found["settings"]) != list(plan.settings):
        raise ConfigError(
            f"{file} was made with the settings {' '.join(found['settings']) or '(none)'}, asked for "
            f"{' '.join(plan.settings) or '(none)'}; give the same, or another folder (--results)"
        )
    scores = found["scores"]
    return not plan.downstream or all(metric in scores for metric in DOWNSTREAM.values())


def result_of(plan: Plan, scenario: str, seed: int) -> dict[str, Any]:
    """Pre-train a scenario, carry it downstream, and return its result file."""
    place = plan.folder / f"{scenario}-seed{seed}"
    run = pretraining(plan, scenario, seed)
    scores = execute(run, place / "pretrain")
    kept = {name: value for name, value in scores.items() if evaluation_of(name)}
    carried = {}
    if plan.downstream:
        start = str((place / "pretrain").absolute())
        for step, metric in DOWNSTREAM.items():
            given = [f"seed={seed}", *SHORTER.get(step, ())]
            workshop = Workshop(place, plan.world, world=True, start=start, settings=given)
            kept |= _with_baselines(workshop.scores(STEPS[step]), metric)
            carried[step] = _when(_environment_of(workshop.place(STEPS[step])))
    about = _environment_of(place / "pretrain")
    return {
        "scenario": scenario,
        "recipe": run.recipe,
        "seed": seed,
        "settings": list(plan.settings),
        "steps": run.training.steps,
        "batch": run.data.batch,
        "world": json.loads((plan.world / "world.json").read_text(encoding="utf-8")),
        "environment": about,
        "scored": _when(environment()),
        "downstream": carried,
        "scores": {name: round(value, 4) for name, value in kept.items()},
        "curves": _curves(place / "pretrain" / "metrics.jsonl"),
    }


def _environment_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return found


def _when(about: Mapping[str, Any]) -> dict[str, Any]:
    """What tells one version of the code from another: a run that goes on may have met several."""
    return {name: about[name] for name in ("date", "svilm", "commit")}


def pretraining(plan: Plan, scenario: str, seed: int) -> Run:
    """The pre-training run of a scenario, with everything measured that needs no further training."""
    data = plan.folder / "data"
    train, test = (manifest_of(name, WORLD, plan.world, data) for name in ("videocc", "msrvtt-test"))
    scenes, jump_cuts = (manifest_of(name, SCENES, plan.world, data) for name in SCENES)
    files = {
        "data.manifest": train,
        "retrieval.manifest": test,
        "temporal.manifest": scenes,
        "temporal.pasted": test,
        "temporal.jump_cuts": jump_cuts,
        "grounding.manifest": test,
    }
    given = [f"{name}={path.absolute()}" for name, path in files.items()]
    return override(recipe(SCENARIOS[scenario][0]), [*given, f"seed={seed}", *plan.settings])


def _with_baselines(scores: Mapping[str, float], metric: str) -> dict[str, float]:
    """A score, and the same of the families that stand beside it (``vqa_majority/accuracy``)."""
    family, _, rest = metric.partition("/")
    return {
        name: value
        for name, value in scores.items()
        if name.partition("/")[2] == rest and name.partition("/")[0].partition("_")[0] == family
    }


def _curves(log: Path) -> dict[str, dict[str, list[float]]]:
    """Each loss over the steps, thinned."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = {}
    for name in CURVES:
        points = [(float(row["step"]), float(row[name])) for row in rows if name in row]
        if points:
            steps, values = thinned(Line(*map(list, zip(*points, strict=True))))
            found[name] = {"steps": [round(step, 1) for step in steps], "values": [round(v, 4) for v in values]}
    return found
