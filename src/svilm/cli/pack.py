"""`svilm pack`: a dataset as tar shards of clips that decode quickly."""

import os
from pathlib import Path
from typing import Annotated

import typer


def pack(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the dataset.", metavar="MANIFEST")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the shards and their manifest.", metavar="DIR")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; never enlarged.", min=16)] = 256,
    key_frames: Annotated[int, typer.Option("--keyframes", help="Frames between key frames, at most.", min=1)] = 12,
    crf: Annotated[int, typer.Option(help="Quality: 0 loses nothing, 51 is the worst.", min=0, max=51)] = 23,
    fps: Annotated[float, typer.Option(help="Keep at most so many frames a second; 0 keeps all.", min=0)] = 0.0,
    shard_size: Annotated[int, typer.Option(help="Clips in a shard.", min=1)] = 1000,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.", min=0)] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Let a test split shrink; the manifest names what was struck.")
    ] = False,
) -> None:
    """Rewrite a dataset as tar shards of short clips with small pictures and near key frames, several times quicker to
    read.  DIR/manifest.jsonl then takes the place of MANIFEST, in training as in evaluation.

    Frame times stay exact. WebDataset, video2dataset and DALI read the shards, too. Sound is left out. An interrupted
    call goes on where it stopped.
    """
    from svilm.data import pack as packer
    from svilm.data.cut import Packing

    packing = Packing(short_side=short_side, key_frames=key_frames, crf=crf, fps=fps, shard_size=shard_size)
    count = (os.cpu_count() or 1) if workers is None else workers
    print(packer.pack(manifest, to, packing, workers=count, allow_missing=allow_missing))
