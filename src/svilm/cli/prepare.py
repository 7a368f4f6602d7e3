"""`svilm prepare`: official annotation files to a manifest, one sub-command per dataset.

The datasets are not listed here.  Each module of ``svilm.data.prepare`` with a function ``listing`` is one, and
the parameters of that function are its options; the docstring of that package says how to write one.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from svilm.data import prepare as package
from svilm.data.nouns import Extractor
from svilm.data.prepare import Check

if TYPE_CHECKING:
    from svilm.data.prepare.common import Listing


class Datasets(TyperGroup):
    """Sub-commands that are found.  A reader is imported when it is called, not when it is listed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.datasets = {name: TyperCommand(name, help=_plain(line)) for name, line in _found()}
        self.commands = {**self.datasets, **self.commands}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and remaining arguments; the name may be that of a module outside svilm."""
        name, *rest = args
        ours = name in self.datasets
        if not ours and name in self.commands:
            return name, self.commands[name], rest
        if not ours and not _is_module(name):
            near = " or ".join(map(repr, get_close_matches(name, self.commands)))
            meant = f"Did you mean {near}? " if near else ""
            ctx.fail(f"No such command {name!r}. {meant}`svilm prepare --help` lists the datasets.")
        reader = import_module(f"{package.__name__}.{name.replace('-', '_')}" if ours else name)
        if not callable(getattr(reader, "listing", None)):
            ctx.fail(f"module {name!r} has no function listing; see the docstring of {package.__name__}")
        return name, _command(name, reader), rest


app = typer.Typer(
    cls=Datasets,
    no_args_is_help=True,
    epilog="A test split that would shrink is refused; with --allow-missing it shrinks in the open.",
)


@app.callback()
def _about() -> None:
    """Turn a dataset's official files into a manifest; say what was found, missing and undecodable.

    Your own reader is called by the name of its module: svilm prepare my_package.my_dataset FILE --to ...
    """


@app.command(rich_help_panel="Manifests")
def join(
    manifests: Annotated[
        list[Path], typer.Argument(help="Manifests to join, two or more.", metavar="MANIFEST", show_default=False)
    ],
    to: Annotated[
        Path, typer.Option("--to", help="Manifest to write (JSON Lines).", metavar="FILE", show_default=False)
    ],
) -> None:
    """Join manifests into one: `svilm train --data` takes a single file.

    The paper pre-trains on VideoCC and ActivityNet Captions together:
    svilm prepare join videocc.jsonl activitynet.jsonl --to pretrain.jsonl
    """
    from svilm.data.manifest import Manifest, merge_manifests

    count = merge_manifests(manifests, to)
    parts = " + ".join(f"{len(Manifest(path))} of {path}" for path in manifests)
    print(f"{to}: {count} clips, {parts}")


def _found() -> Iterator[tuple[str, str]]:
    """Name of each dataset and the first line of its module, read without importing it."""
    for path in sorted(path for folder in package.__path__ for path in Path(folder).glob("*.py")):
        text = path.read_text("utf-8")
        if "\ndef listing(" in text:
            yield path.stem.replace("_", "-"), text.partition("\n")[0].strip('" ')


def _is_module(name: str) -> bool:
    here = os.getcwd()
    if here not in sys.path:  # the script `svilm`, unlike `python -m svilm`, does not see modules of this folder
        sys.path.append(here)
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _common(flag: str, text: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, rich_help_panel="Options of all datasets", **more)


def _write(
    listing: "Listing",
    annotations: Path,
    *,
    to: Annotated[Path, _common("--to", "Manifest to write (JSON Lines).", metavar="FILE", show_default=False)],
    videos: Annotated[
        Path | None,
        _common("--videos", "Folder of the videos, with all below it; default: where the annotations are."),
    ] = None,
    check: Annotated[
        Check, _common("--check", "Of each video decode no frame, the first (and list them all), or every one.")
    ] = "index",
    workers: Annotated[
        int | None, _common("--workers", "Processes besides this one; default: all cores.", min=0)
    ] = None,
    allow_missing: Annotated[
        bool, _common("--allow-missing", "Let a test split shrink; the manifest names what was struck.")
    ] = False,
    nouns: Annotated[
        Extractor, _common("--nouns", "Noun phrases by spaCy or by offline rules; auto: spaCy if it has a pipeline.")
    ] = "auto",
) -> None:
    from svilm.data.prepare.common import prepare

    summary = prepare(
        listing,
        to=to,
        videos=videos or (annotations if annotations.is_dir() else annotations.parent),
        check=check,
        workers=(os.cpu_count() or 1) if workers is None else workers,
        allow_missing=allow_missing,
        extractor=nouns,
    )
    print(summary)


def _command(name: str, reader: ModuleType) -> Any:
    """The command of a reader: the parameters of its ``listing``, then the keyword parameters of ``_write``."""
    annotations, *options = inspect.signature(reader.listing, eval_str=True).parameters.values()
    common = [p for p in inspect.signature(_write).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def run(annotations: Path, **given: Any) -> None:
        listing = reader.listing(annotations, **{option.name: given.pop(option.name) for option in options})
        _write(listing, annotations, **given)

    own = [_typed(annotations.replace(name="annotations"), typer.Argument, metavar="ANNOTATIONS", show_default=False)]
    own += [_typed(option, typer.Option, f"--{option.name.replace('_', '-')}") for option in options]
    run.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False)
    single.command(name, help=_plain(inspect.cleandoc(reader.__doc__ or reader.listing.__doc__ or "")))(run)
    return typer.main.get_command(single)


def _typed(parameter: inspect.Parameter, make: Callable[..., Any], *flag: str, **more: Any) -> inspect.Parameter:
    """A parameter of ``listing`` as typer wants it; the text in its Annotated is the help."""
    kind, text = parameter.annotation, ""
    if get_origin(kind) is Annotated:
        kind, text = kind.__origin__, " ".join(each for each in kind.__metadata__ if isinstance(each, str))
    if Path in get_args(kind):  # str | Path
        kind = Path | None if NoneType in get_args(kind) else Path
    default = ... if parameter.default is parameter.empty else parameter.default
    info = make(default, *flag, help=_plain(text), **more)
    return parameter.replace(annotation=kind, default=info, kind=parameter.KEYWORD_ONLY)


def _plain(text: str) -> str:
    """Text of a docstring as it is to be seen: lines of a paragraph joined, brackets no markup."""
    from rich.markup import escape

    return escape(re.sub(r"(?<=\S)\n(?=[^\s-])", " ", text.replace("``", "`")))
