"""The command line.  Only light imports here: `svilm --help` answers at once."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from svilm.cli import (
    bench,
    claims,
    downstream,
    evaluate,
    features,
    index,
    localize,
    pack,
    page,
    prepare,
    reproduce,
    scan,
    score,
    train,
)
from svilm.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="S-ViLM: pre-train a video-language model from video-caption pairs, and find videos by words.",
    epilog="Start here: [bold]svilm demo[/bold] draws a world, trains on it and writes a report.",
)
app.add_typer(prepare.app, name="prepare")
app.add_typer(score.app, name="score")
app.command("scan")(scan.scan)
app.command("pack")(pack.pack)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("look")(train.look)
app.command("show")(train.show)
app.command("features")(features.features)
app.command("localize")(localize.localize)
app.command("downstream")(downstream.downstream)
app.command("reproduce")(reproduce.reproduce)
app.command("claims")(claims.claims)
app.command("index")(index.index)
app.command("search")(index.search)
app.command("app")(page.serve)
app.command("bench")(bench.bench)

_SETTING = re.compile(r"[a-z_]\w*(\.\w+)*=")
Folder = Annotated[Path, typer.Argument(help="Folder to write to.", metavar="DIR")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"svilm {__version__}")
        raise typer.Exit


@app.command()
def world(
    folder: Folder,
    clips: Annotated[int, typer.Option(min=1, help="Training clips.")] = 2000,
    test_clips: Annotated[int, typer.Option(min=1, help="Held-out clips.")] = 500,
    untrimmed: Annotated[int, typer.Option(min=0, help="Long videos with labelled segments.")] = 120,
    seed: Annotated[int, typer.Option(help="Same seed, same world.")] = 0,
    size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 64,
    frames: Annotated[int, typer.Option(min=4, help="Frames per clip.")] = 16,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second.")] = 8,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a world with other settings.")] = False,
) -> None:
    """Draw a world of moving shapes: real mp4 files with exact truth, in the benchmarks' own formats."""
    from svilm.data.world import draw_world, read_untrimmed

    drawn = draw_world(
        folder,
        clips=clips,
        test_clips=test_clips,
        untrimmed=untrimmed,
        seed=seed,
        size=size,
        frames=frames,
        fps=fps,
        workers=workers,
        force=force,
    )
    clip, long = frames / fps, sum(video.num_frames / video.fps for video in read_untrimmed(folder))
    print(f"  {'folder':<11} {folder}{', there already' if drawn.reused else f', drawn in {drawn.seconds:.1f} s'}")
    for name, count, seconds in (
        ("clips", drawn.clips, drawn.clips * clip),
        ("test clips", drawn.test_clips, drawn.test_clips * clip),
        ("long videos", drawn.untrimmed, long),
    ):
        print(f"  {name:<11} {count:>8}  {seconds / 60:.1f} min")
    print(f"next: svilm prepare videocc {drawn.videocc} --videos {drawn.videos} --to train.jsonl")


@app.command()
def hold_out(
    manifest: Annotated[Path, typer.Argument(help="Training manifest.", metavar="MANIFEST")],
    count: Annotated[int, typer.Option(min=1, help="Clips to hold out, about: videos stay whole.")] = 500,
    seed: Annotated[int, typer.Option(help="Same seed, same clips.")] = 0,
) -> None:
    """Divide a training manifest into MANIFEST-train and MANIFEST-val, to choose weights without the test set.

    Then: svilm train ... --data X-train.jsonl --set training.keep=best --set training.validation=X-val.jsonl
    """
    from svilm.data import manifest as manifests

    rest, held = (manifest.with_name(f"{manifest.stem}-{part}{manifest.suffix}") for part in ("train", "val"))
    left, out = manifests.hold_out(manifest, count, rest=rest, held=held, seed=seed)
    why = f" instead of {count}: clips of one video stay together" if out != count else ""
    print(f"{rest}: {left} clips\n{held}: {out} clips{why}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of several runs.", metavar="RUN")],
    baseline: Annotated[
        Path | None,
        typer.Option(help="Another run to set beside it, for instance without temporal grouping."),
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries shown with their results.")] = 8,
) -> None:
    """Write one self-contained report.html about a run, or about all runs in a folder."""
    from svilm.report import write_report

    print(write_report(run, baseline=baseline, queries=queries))


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, what clashes, and what this machine can do."""
    from svilm.doctor import describe, examine

    found = examine()
    print(describe(found))
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def demo(
    to: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    world: Annotated[Path | None, typer.Option(help="Folder of the drawn world; default: TO-world.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default: the recipe's.")] = None,
    clips: Annotated[int, typer.Option(min=64, help="Training clips to draw.")] = 3000,
    test_clips: Annotated[int, typer.Option(min=20, help="Held-out clips to draw.")] = 500,
) -> None:
    """Everything at once: draw a world, prepare it, pre-train S-ViLM, retrieve, write a report, and index videos."""
    from svilm.cli.demo import run_demo

    run_demo(to, world or to.with_name(to.name + "-world"), steps=steps, clips=clips, test_clips=test_clips)


def main() -> NoReturn:
    """Run the command line; a mistake of the user ends in one line on stderr and exit code 1, never a traceback.

    SVILM_TRACEBACK=1 shows the traceback all the same.
    """
    if os.getcwd() not in sys.path:  # a reader or a task of the user's own may lie here
        sys.path.append(os.getcwd())
    sys.argv[1:] = _each_set(sys.argv[1:])
    try:
        app()
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except SystemExit as end:  # typer makes one of a KeyboardInterrupt, without a word
        if end.code == 130 and type(end) is SystemExit:
            _stop("interrupted", 130)
        raise
    except Exception as error:
        if os.environ.get("SVILM_TRACEBACK") == "1" or not _expected(error):
            raise
        _stop(_words_of(error), 1)
    sys.exit(0)


def _each_set(words: list[str]) -> list[str]:
    """The command line with --set before each setting, where several were written behind one: --set a.b=1 c.d=2."""
    found: list[str] = []
    for word in words:
        behind = len(found) > 1 and found[-2] == "--set" and _SETTING.match(found[-1])
        found += ["--set", word] if behind and _SETTING.match(word) else [word]
    return found


def _words_of(error: Exception) -> str:
    """An error for people: what the system says of a file comes behind its name, with what to do."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    why = {
        errno.EACCES: "no permission to read or write there; choose another place, or change its permissions",
        errno.EROFS: "nothing can be written there; choose another place",
        errno.EEXIST: "is there already, and no folder; choose another place",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
        errno.EISDIR: "is a folder; give a file",
        errno.ENOENT: "no such file or folder",
        errno.ENOSPC: "the disk is full",
    }.get(error.errno, error.strerror or str(error))
    return f"{error.filename}: {why}"


def _expected(error: Exception) -> bool:
    """Whether an error is about the user's input or files, so that its message says it all."""
    if isinstance(error, (ValueError, OSError, ArithmeticError)):
        return True
    return type(error).__name__ == "DecodeError"  # by name: importing it would load the video library


def _stop(message: str, code: int) -> NoReturn:
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()  # or the message would stand behind it
    print(f"svilm: {message}", file=sys.stderr)
    sys.exit(code)
