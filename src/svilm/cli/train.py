"""The commands about runs: train, look, show."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from svilm.run import Run

RecipeName = Annotated[str, typer.Argument(help="Recipe to start from; `svilm show` lists them.", metavar="RECIPE")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting: name=value, repeatable; `svilm show RECIPE` lists them.",
        metavar="A.B=V",
    ),
]
DataFile = Annotated[Path | None, typer.Option("--data", help="Training manifest, made by `svilm prepare`.")]
TestFile = Annotated[Path | None, typer.Option("--test", help="Test manifest.")]
ScenesFile = Annotated[Path | None, typer.Option("--scenes", help="Manifest whose entries state scene changes.")]
JumpCutsFile = Annotated[
    Path | None, typer.Option("--jump-cuts", help="Manifest whose scenes change before one and the same background.")
]


def train(
    recipe: RecipeName,
    to: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/RECIPE.")] = None,
    data: DataFile = None,
    test: TestFile = None,
    scenes: ScenesFile = None,
    jump_cuts: JumpCutsFile = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in TO, with its own settings.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print size, cost and commands, build nothing, need no data.")
    ] = False,
) -> None:
    """Train a recipe, evaluate it and save the model.

    A run that was interrupted goes on from its last checkpoint when the same command is given again.
    Several GPUs: torchrun --nproc-per-node N -m svilm train RECIPE ...
    """
    from svilm.config import ConfigError
    from svilm.run import execute, load_run

    folder = to or Path("runs") / recipe
    if resume and (settings or data or test or scenes or jump_cuts):
        raise ConfigError(
            f"--resume goes on with the settings and lists of {folder}/run.json; leave out --set, --data, --test, "
            "--scenes and --jump-cuts, or give another --to for another run"
        )
    run = load_run(folder) if resume else configured(recipe, settings, data, test, scenes, jump_cuts)
    if dry_run:
        from svilm.plan import describe_plan

        print(describe_plan(run, folder))
        return
    scores = execute(run, folder)
    if os.environ.get("RANK", "0") == "0":  # under torchrun every rank has the scores
        print_scores(scores)
        print(f"{folder / 'scores.json'}; how each was computed is in protocols.json; svilm report {folder} draws them")


def look(
    data: Annotated[Path, typer.Argument(help="Manifest to look at.", metavar="MANIFEST")],
    to: Annotated[Path, typer.Option(help="Picture to write.")] = Path("first_batch.png"),
    recipe: Annotated[str, typer.Option(help="Recipe whose sampling and cut-and-paste are shown.")] = "tiny",
    settings: Settings = None,
) -> None:
    """Draw the first training batch of a manifest, without training: frames, captions, nouns, seams."""
    from svilm.data.language import Tokenizer
    from svilm.data.loader import Items, training_batches
    from svilm.data.manifest import Manifest
    from svilm.draw import check_picture
    from svilm.draw.batch import first_batch

    check_picture(to)
    run = configured(recipe, settings, data, None, None)
    manifest = Manifest(data)
    size = min(8, len(manifest))
    few = run.data.model_copy(update={"batch": size, "workers": 0})
    tokenizer = Tokenizer.train((c for e in manifest for c in e.captions), run.model.text.vocabulary)
    first_batch(next(iter(training_batches(Items(manifest), few, tokenizer, seed=run.seed, start=0, stop=1))), to)
    print(to)


def show(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe to show; none lists the recipes.", metavar="RECIPE")
    ] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json instead of a table.")] = False,
) -> None:
    """List the recipes, or every setting of one with its value and meaning."""
    from svilm.config import settings as leaves
    from svilm.recipes import RECIPES

    if recipe is None:
        for name, function in RECIPES.items():
            print(f"{name:20} {(function.__doc__ or '').strip().splitlines()[0]}")
        return
    run = configured(recipe, settings, None, None, None)
    if as_json:
        print(run.model_dump_json(indent=1))
        return
    rows = [(name, json.dumps(value), text) for name, value, text in leaves(run)]
    wide = max(len(name) + len(value) for name, value, _ in rows) + 3
    for name, value, text in rows:
        print(f"{name + ' = ' + value:{wide}}  {text}")


def configured(
    recipe: str,
    settings: list[str] | None,
    data: Path | None,
    test: Path | None,
    scenes: Path | None,
    jump_cuts: Path | None = None,
) -> "Run":
    """A recipe with the files and settings of the command line."""
    from svilm.recipes import recipe as find

    return with_files(find(recipe), data, test, scenes, settings, jump_cuts)


def with_files(
    run: "Run",
    data: Path | None,
    test: Path | None,
    scenes: Path | None,
    settings: list[str] | None,
    jump_cuts: Path | None = None,
) -> "Run":
    """A run with the files and settings of the command line."""
    from svilm.config import override

    tested = "task.test" if "test" in type(run.task).model_fields else "retrieval.manifest"
    files = {"data.manifest": data, tested: test, "temporal.manifest": scenes, "temporal.jump_cuts": jump_cuts}
    given = [f"{name}={json.dumps(str(path.absolute()))}" for name, path in files.items() if path is not None]
    return _on_scanned(override(run, [*given, *(settings or [])]))


def _on_scanned(run: "Run") -> "Run":
    """The run on those clips that a scan could read: X-verified.jsonl for X.jsonl, unless the scan is older."""
    from svilm.config import named_manifests, override
    from svilm.data.manifest import verified

    found = []
    for name, path in ((name, Path(value)) for name, value in named_manifests(run)):
        if not path.is_file() or not verified(path).is_file():
            continue
        if verified(path).stat().st_mtime < path.stat().st_mtime:
            print(f"{name}: {verified(path)} is older than {path} and left alone; scan again", file=sys.stderr)
        else:
            print(f"{name}: {verified(path)}, the clips that a scan could read", file=sys.stderr)
            found.append(f"{name}={json.dumps(str(verified(path)))}")
    return override(run, found)


def print_scores(scores: dict[str, float]) -> None:
    """Print scores.json as a table."""
    for name, value in scores.items():
        print(f"{name:48} {value:10.3f}")
