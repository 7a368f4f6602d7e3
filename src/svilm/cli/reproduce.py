"""`svilm reproduce`: a table of the paper, run as far as the data allows."""

from pathlib import Path
from typing import Annotated

import typer

from svilm.cli.train import Settings


def reproduce(
    table: Annotated[str, typer.Argument(help="table1 to table13, or all.", metavar="TABLE", show_default=False)],
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root", help="Folder with the data sets; docs/data.md has the layout.", show_default="data"
        ),
    ] = None,
    world: Annotated[
        bool, typer.Option("--world", help="Take a drawn world for the data (drawn if need be), and tiny recipes.")
    ] = False,
    to: Annotated[Path, typer.Option(help="Folder of the runs and the tables.")] = Path("runs/reproduce"),
    start: Annotated[str, typer.Option(help="Start downstream runs from this model instead of pre-training one.")] = "",
    only_finished: Annotated[bool, typer.Option("--only-finished", help="Run nothing: print what is there.")] = False,
    settings: Settings = None,
) -> None:
    """Run (or go on with) the recipes behind a table of the paper, and print its rows beside ours.

    Every row says data, seed, frames and counts; a row that cannot run says what is missing.
    """
    from svilm.config import ConfigError
    from svilm.data.language import TEMPLATES
    from svilm.data.world import draw_world
    from svilm.reproduce.harness import Workshop, render, render_settings
    from svilm.reproduce.tables import TABLES, Table

    if table == "table7":
        print("# Table 7: prompt templates for noun phrases\n", *TEMPLATES, sep="\n")
        return
    if table not in (*TABLES, "all"):
        raise ConfigError(f"no table {table!r}; there are {', '.join(TABLES)}, table7 (no run) and all")
    root = data_root or (to / "world" if world else Path("data"))
    only = (lambda step: False) if only_finished else (lambda step: True)
    workshop = Workshop(to, root, world=world, start=start, settings=settings or [], only=only)
    if world and not only_finished and not (root / "world.json").is_file():
        draw_world(root, clips=3000)
    for name in TABLES if table == "all" else [table]:
        found = TABLES[name]
        text = render(found, workshop) if isinstance(found, Table) else render_settings(found)
        to.mkdir(parents=True, exist_ok=True)
        (to / f"{name}.md").write_text(text, encoding="utf-8")
        print(text)
