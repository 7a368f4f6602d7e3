"""`svilm claims`: Table 6 on a drawn world, over seeds."""

from pathlib import Path
from typing import Annotated

import typer

from svilm.cli.train import Settings


def claims(
    to: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/claims"),
    world: Annotated[Path | None, typer.Option(help="A drawn world, drawn if need be; default: TO-world.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of every scenario.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Pre-training steps; default: the recipe's.")] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="Only this one, repeatable; default: all.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the result files; default: TO/results.")] = None,
    page: Annotated[Path | None, typer.Option(help="Page whose tables are written; default: TO/claims.md.")] = None,
    only_page: Annotated[
        bool, typer.Option("--only-page", help="Run nothing: tables from the files there are.")
    ] = False,
    downstream: Annotated[
        bool, typer.Option(help="Carry each model to questions, actions and temporal localization.")
    ] = True,
    settings: Settings = None,
) -> None:
    """Do the paper's claims hold?  Each loss by itself and all together, over seeds, on a drawn world (Table 6).

    Pre-trains what has no result file yet, scores retrieval, grounding and scenes, carries the models downstream, and
    writes tables and curves.  An interrupted run goes on when the same command is given again.
    With 300 steps of 32 clips the 15 runs take about four hours on two cores.
    """
    from svilm.data.world import draw_world
    from svilm.reproduce.claims import SCENARIOS, Plan, run_claims
    from svilm.reproduce.claims_page import draw_curves, read_results, tables, write_page

    results, page = results or to / "results", page or to / "claims.md"
    if not only_page:
        place = world or to.with_name(to.name + "-world")
        given = [*([] if steps is None else [f"training.steps={steps}"]), *(settings or [])]
        plan = Plan(to, place, results, seeds, tuple(scenario or SCENARIOS), settings=given, downstream=downstream)
        if not (place / "world.json").is_file():
            draw_world(place, clips=3000)
        run_claims(plan)
    draw_curves(read_results(results), results)
    write_page(page, results)
    print(tables(read_results(results)))
