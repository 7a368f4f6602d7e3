"""The command that turns videos into frozen snippet features."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def features(
    model: Annotated[str, typer.Argument(help="A run, a saved model, or an id on the hub.", metavar="MODEL")],
    manifest: Annotated[Path, typer.Argument(help="Manifest whose videos are encoded whole.", metavar="MANIFEST")],
    to: Annotated[Path, typer.Option(help="Folder of the features; what is there already is kept.")],
    vector: Annotated[
        Literal["groups", "tokens", "projected"],
        typer.Option(help="Mean of the group tokens, mean of the video tokens, or the vector of the common space."),
    ] = "groups",
    fps: Annotated[float, typer.Option(help="Frames per second at which videos are read.")] = 15.0,
    frames: Annotated[int, typer.Option(min=1, help="Frames that a snippet sees.")] = 16,
    stride: Annotated[int, typer.Option(min=1, help="Frames from one snippet to the next.")] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Snippets encoded at once.")] = 16,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Numbers in the files.")] = "float16",
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Encode whole videos, snippet by snippet, into one .npy each, with a features.json that says what they are.

    Interrupted, it goes on where it stopped.  Several GPUs: torchrun --nproc-per-node N -m svilm features ...
    """
    from svilm.data.manifest import Manifest
    from svilm.data.snippets import Windows
    from svilm.features.extract import Extraction, extract
    from svilm.model import SViLM
    from svilm.runtime import close_distributed, device_for, init_distributed, rank

    init_distributed(device_for(device))
    try:
        found = SViLM.from_pretrained(model, device)
        settings = Extraction(
            vector=vector,
            windows=Windows(fps=fps, frames=frames, stride=stride),
            batch=batch,
            dtype=dtype,
        )
        made = extract(
            found.encoder, Manifest(manifest), to, settings, found.config.sampling, name=model, workers=workers
        )
        if rank() == 0:
            print(made)
    finally:
        close_distributed()
