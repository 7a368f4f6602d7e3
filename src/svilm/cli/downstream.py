"""`svilm downstream`: every task of the paper from one pre-trained model."""

from pathlib import Path
from typing import Annotated

import typer

from svilm.cli.train import Settings


def downstream(
    model: Annotated[str, typer.Argument(help="Pre-trained run, saved model or hub id.", metavar="MODEL")],
    world: Annotated[Path, typer.Option("--world", help="Folder of the drawn world; drawn when it is not there.")],
    to: Annotated[Path, typer.Option(help="Folder of the runs and of their report.")] = Path("runs/downstream"),
    settings: Settings = None,
) -> None:
    """Carry a model to every downstream task on the drawn world: train, score beside baselines, report.

    Retrieval, question answering, action recognition (linear and fine-tuned), temporal localization and boxes with
    actions.  Runs that are finished are read, interrupted ones go on.
    """
    from svilm.data.world import draw_world
    from svilm.model import SViLM
    from svilm.report import write_report
    from svilm.reproduce.downstream import run_downstream
    from svilm.reproduce.harness import Workshop

    start = str(Path(model).absolute()) if Path(model).exists() else model
    workshop = Workshop(to, world, world=True, start=start, settings=settings or [])
    SViLM.from_pretrained(start, "cpu")  # a name that is wrong is told before a world is drawn
    if not (world / "world.json").is_file():
        draw_world(world, clips=3000, test_clips=500)
    text = run_downstream(workshop)
    (to / "downstream.md").write_text(text, encoding="utf-8")
    print(text)
    print(write_report(to))
