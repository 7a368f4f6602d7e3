"""`svilm bench`: measure the parts of svilm on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Subjects; default: all.  `svilm bench --list` names them.", metavar="[NAME]..."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows here.", metavar="FILE")] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Timed repetitions of each row; the median counts.",
            show_default="5, or as few as 3 of what takes long",
        ),
    ] = None,
    peers: Annotated[
        Path | None,
        typer.Option(help="Folder with clones of other projects (frozen-in-time, GroupViT) to run beside ours."),
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures of `step` and `growth`.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: only to see that everything runs; the figures mean nothing.")
    ] = False,
    list_subjects: Annotated[bool, typer.Option("--list", help="Name the subjects and stop.")] = False,
) -> None:
    """Measure svilm on this machine, each part beside a peer that does the same work in the same process.

    A ratio above 1 means that ours is better.  What this machine cannot measure says why.
    """
    import json
    import math
    import sys
    from dataclasses import replace

    from tqdm import tqdm

    from svilm.bench import SUBJECTS, measure
    from svilm.bench.frame import How, about_machine, table

    if list_subjects:
        print("\n".join(f"{name:10} {what}" for name, what in SUBJECTS.items()))
        return
    how = How(peers=peers, pictures=pictures, quick=quick)
    if repetitions:
        how = replace(how, repetitions=repetitions, patience=math.inf)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
    print(about_machine(), flush=True)
    rows = []
    try:
        with tqdm(measure(names or [], how), desc="measuring", unit=" rows", file=sys.stderr, leave=False) as measured:
            for row in measured:
                rows.append(row)
                measured.set_postfix_str(row.name)
    finally:  # who stops it, or meets a fault, has what was measured so far
        if rows:
            print(table(rows))
        if rows and json_file is not None:
            json_file.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n", encoding="utf-8")
