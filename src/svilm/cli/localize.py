"""The command that says which actions a video shows, and when."""

from pathlib import Path
from typing import Annotated

import typer


def localize(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of temporal localization.", metavar="RUN")],
    video: Annotated[Path, typer.Argument(help="Video file.", metavar="VIDEO")],
    to: Annotated[Path | None, typer.Option(help="Picture of the timeline to write.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Most segments shown.")] = 10,
    encoder: Annotated[str, typer.Option(help="The model that made the run's features, if it has moved.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Find the actions in one video: segments with labels and scores, printed along its length."""
    from svilm.draw import check_picture
    from svilm.localize import detect

    if to is not None:
        check_picture(to)
    timeline = detect(run, video, encoder=encoder, device=device)
    print(timeline.text(most))
    if to is not None:
        timeline.draw(to, most)
        print(to)
