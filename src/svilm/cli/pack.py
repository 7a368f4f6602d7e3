"""`svilm pack`: a dataset as tar shards of clips that decode quickly."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def pack(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the dataset.", metavar="MANIFEST")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the shards and their manifest.", metavar="DIR")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; never enlarged.", min=16)] = 256,
    codec: Annotated[
        Literal["mjpeg", "h264"],
        typer.Option(help="mjpeg is read twice as fast, h264 takes a quarter of the room."),
    ] = "mjpeg",
    qscale: Annotated[
        int | None, typer.Option(help="Quality of mjpeg: 1 is the best, 31 the worst; default: 6.", min=1, max=31)
    ] = None,
    crf: Annotated[
        int | None, typer.Option(help="Quality of h264: 0 loses nothing, 51 is the worst; default: 23.", min=0, max=51)
    ] = None,
    key_frames: Annotated[
        int | None, typer.Option("--keyframes", help="Frames between key frames of h264, at most; default: 12.", min=1)
    ] = None,
    fps: Annotated[float, typer.Option(help="Keep at most so many frames a second; 0 keeps all.", min=0)] = 0.0,
    shard_size: Annotated[int, typer.Option(help="Clips in a shard.", min=1)] = 1000,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.", min=0)] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Let a test split shrink; the manifest names what was struck.")
    ] = False,
) -> None:
    """Rewrite a dataset as tar shards of short clips with small pictures, several times quicker to read.
    DIR/manifest.jsonl then takes the place of MANIFEST, in training as in evaluation.

    Frame times stay exact. WebDataset, video2dataset and DALI read the shards, too. Sound is left out.

    An interrupted call goes on where it stopped.
    """
    from svilm.data import pack as packer
    from svilm.data.cut import H264, Mjpeg, Packing

    if codec == "mjpeg" and (crf is not None or key_frames is not None):
        raise ValueError("--crf and --keyframes are settings of h264: add --codec h264, or set --qscale")
    if codec == "h264" and qscale is not None:
        raise ValueError("--qscale is a setting of mjpeg: leave --codec h264 out, or set --crf")
    coder = Mjpeg(**_given(qscale=qscale)) if codec == "mjpeg" else H264(**_given(crf=crf, key_frames=key_frames))
    packing = Packing(short_side=short_side, codec=coder, fps=fps, shard_size=shard_size)
    count = (os.cpu_count() or 1) if workers is None else workers
    print(packer.pack(manifest, to, packing, workers=count, allow_missing=allow_missing))


def _given(**settings: int | None) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
