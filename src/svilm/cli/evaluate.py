"""`svilm evaluate`: score a finished run again, or by one evaluation alone."""

import json
from pathlib import Path
from typing import Annotated

import typer

from svilm.cli.train import JumpCutsFile, ScenesFile, Settings, TestFile, print_scores, with_files


def evaluate(
    words: Annotated[
        list[str],
        typer.Argument(
            help="Folder of a finished run; before it, retrieval, temporal or grounding to score by that alone. "
            "Or hf:NAME, a published CLIP or SigLIP, to stand beside it.",
            metavar="[TASK] RUN",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="With a TASK: the manifest to score it on, as --test; default: the run's."),
    ] = None,
    test: TestFile = None,
    scenes: ScenesFile = None,
    jump_cuts: JumpCutsFile = None,
    settings: Settings = None,
) -> None:
    """Score a run again on its own test manifests, which rewrites scores.json, or on others, which makes RUN/on-NAME.

    `svilm evaluate grounding RUN` asks where the model sees each noun, beside chance, the centre and the most salient
    place; `svilm evaluate temporal RUN` whether it tells scenes apart, with --jump-cuts also those in which only the
    things change.  Grounding also writes RUN/grounding.json, a line for each noun, and RUN/grounding.png, heat and true
    boxes of the first clips.

    `svilm evaluate hf:NAME --test FILE` scores a published image-text model by retrieval, frame by frame, and only
    prints the scores.
    """
    from svilm.config import ConfigError
    from svilm.run import EVALUATIONS, evaluate_only, load_run, place_of
    from svilm.run import evaluate as score

    *task, place = words
    if place.startswith("hf:"):
        _published(task, place, test or data, settings)
        return
    folder = Path(place)
    if len(task) > 1 or not set(task) <= set(EVALUATIONS):
        raise ConfigError(f"evaluate takes [TASK] RUN with TASK one of {', '.join(EVALUATIONS)}, got {' '.join(words)}")
    if not task:
        if data is not None:
            raise ConfigError(
                "--data belongs to a TASK; give --test and --scenes, or svilm evaluate TASK RUN --data FILE"
            )
        run = with_files(load_run(folder), None, test, scenes, settings, jump_cuts)
        print_scores(score(run, folder))
        print(place_of(run, folder) / "scores.json")
        return
    data, test = data or test, None  # there is one list to score a TASK on, whatever it is called
    own = [] if data is None else [f"{task[0]}.manifest={json.dumps(str(data.absolute()))}"]
    run = with_files(load_run(folder), None, test, scenes, [*own, *(settings or [])], jump_cuts)
    print_scores(evaluate_only(run, folder, task[0]))
    results = place_of(run, folder)
    print(results / "scores.json")
    if task[0] == "grounding":
        from svilm.report.nouns import draw_nouns

        print(results / "grounding.json")
        print(draw_nouns(run, folder, results))


def _published(task: list[str], name: str, manifest: Path | None, settings: list[str] | None) -> None:
    """Print what a published image-text model scores."""
    from svilm.backbones import evaluate_retrieval, load_backbone
    from svilm.config import ConfigError, override
    from svilm.data.manifest import Manifest
    from svilm.tasks.retrieval import Retrieval

    if task not in ([], ["retrieval"]) or manifest is None:
        raise ConfigError(f"{name} is scored by retrieval alone: svilm evaluate {name} --test FILE")
    own = [setting.removeprefix("retrieval.") for setting in settings or []]
    scores = evaluate_retrieval(load_backbone(name), Manifest(manifest), override(Retrieval(), own))
    print_scores(dict(scores.metrics))
    print(f"{scores.scored} of {scores.official} items; {scores.protocol}")
