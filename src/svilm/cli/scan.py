"""`svilm scan`: decode every video once, in processes that cannot be harmed, and write down what was found."""

import os
from pathlib import Path
from typing import Annotated

import typer


def scan(
    source: Annotated[Path, typer.Argument(help="Folder of videos, or a manifest.", metavar="DIR|MANIFEST")],
    out: Annotated[Path, typer.Option("--out", help="Rows to write, one per file (JSON Lines).", metavar="FILE")],
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.", min=1)] = None,
    seconds: Annotated[
        float, typer.Option(help="Processor time that a file may take, plus a second for each 20 kB of it.", min=1)
    ] = 20.0,
    memory: Annotated[int, typer.Option(help="Megabytes that decoding a file may take.", min=256)] = 2048,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Also read what links lead to.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Decode again what has not changed.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode nothing; say which videos are not what they were in FILE.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Let a test split shrink; the manifest names what was struck.")
    ] = False,
) -> None:
    """Decode every video once and say which can be read to the end, and why others cannot.

    Each file is read by a process with limits on time and memory; one that crashes or hangs it is refused, too.
    Files that have not changed since their row was written are not read again, so an interrupted scan goes on.

    Of a manifest X.jsonl, X-verified.jsonl keeps the clips that can be read; `svilm train` and `svilm evaluate` take
    it wherever X.jsonl is named.
    """
    from svilm.data import scan as scanning
    from svilm.data.manifest import Manifest, verified
    from svilm.data.prepare.videos import EXTENSIONS

    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder of videos, and no such manifest")
    if source.is_file() and source.name.lower().endswith(EXTENSIONS):
        raise ValueError(f"{source} is a video; give its folder, or a manifest that names it")
    manifest = None if source.is_dir() else Manifest(source)
    if verify:
        changed = 0
        root = manifest.root if manifest else source
        for path, what in scanning.changed_files(root, scanning.read_rows(out)):
            print(f"{scanning.printable(path)} {what}")
            changed += 1
        print(f"{changed} videos are not as they were when {out} was written")
        raise typer.Exit(1 if changed else 0)
    found = scanning.scan(
        source,
        out,
        workers=workers or os.cpu_count() or 1,
        seconds=seconds,
        memory_mb=memory,
        follow_links=follow_links,
        fresh=fresh,
    )
    print(found)
    if manifest is not None:
        to = verified(source)
        lost = scanning.write_verified(manifest, found, to, allow_missing=allow_missing)
        words = ", ".join(f"{count} x {reason}" for reason, count in sorted(lost.items())) or "none left out"
        print(f"  {'clips':<11} {len(manifest) - sum(lost.values()):>8}  of {len(manifest)} in {to}; {words}")
    raise typer.Exit(1 if found.unseen else 0)
