"""The commands about one's own videos: index, search."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from svilm.search.index import Index
    from svilm.search.records import Filter, Hit

Folder = Annotated[Path, typer.Argument(help="Folder of an index, made by `svilm index`.", metavar="INDEX")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]


def index(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, searched with all its folders.", metavar="VIDEOS")],
    model: Annotated[
        str,
        typer.Option(help="A run, a saved model, an id on the hub; or hf:NAME for a published CLIP or SigLIP."),
    ],
    to: Annotated[Path, typer.Option(help="Folder of the index; what is in it already is kept up to date.")],
    windows: Annotated[
        float,
        typer.Option(
            min=0, help="Moments of so many seconds; 0: cut where the model sees a change.", metavar="SECONDS"
        ),
    ] = 0.0,
    shortest: Annotated[float, typer.Option(min=0.1, help="Seconds that a moment lasts at least ...")] = 2.0,
    longest: Annotated[float, typer.Option(min=0.2, help="... and at most.")] = 16.0,
    store: Annotated[
        str, typer.Option(help="exact, lancedb, or qdrant=ADDRESS of a server.", metavar="STORE")
    ] = "exact",
    batch: Annotated[int, typer.Option(min=1, help="Clips encoded at once.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 1,
    device: Device = "auto",
    retry: Annotated[bool, typer.Option("--retry", help="Try the files again that failed before.")] = False,
) -> None:
    """Make the videos below a folder searchable, or bring an index up to date: new, changed and deleted files.

    Interrupted, it goes on where it stopped.  Several GPUs: torchrun --nproc-per-node N -m svilm index ...
    """
    from svilm.runtime import close_distributed, device_for, init_distributed, rank
    from svilm.search.build import build_index
    from svilm.search.moments import Splitting

    if longest < 2 * shortest:
        raise ValueError(f"--longest {longest:g}: must be at least twice --shortest ({shortest:g} s)")
    init_distributed(device_for(device))
    try:
        built = build_index(
            videos,
            to,
            model,
            splitting=Splitting(seconds=windows, shortest=shortest, longest=longest),
            store=store,
            batch=batch,
            workers=workers,
            device=device,
            retry=retry,
        )
        if rank() == 0:
            print(built)
            print(f'next: svilm search {to} "what you look for", or svilm app {to}')
    finally:
        close_distributed()


def search(
    folder: Folder,
    query: Annotated[str, typer.Argument(help="What you look for, in words.", metavar="QUERY")] = "",
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Moments shown.")] = 10,
    image: Annotated[Path | None, typer.Option(help="Look for what resembles a picture.", metavar="FILE")] = None,
    clip: Annotated[
        str | None, typer.Option(help="Look for what resembles a video, or part of it.", metavar="FILE[@START-END]")
    ] = None,
    below: Annotated[str, typer.Option("--folder", help="Only videos below this folder of the index.")] = "",
    shortest: Annotated[float, typer.Option(min=0, help="Only moments of at least so many seconds ...")] = 0.0,
    longest: Annotated[float, typer.Option(min=0, help="... and at most so many.")] = float("inf"),
    nouns: Annotated[
        bool, typer.Option("--nouns", help="Show the query's nouns; on a sheet, where in the pictures each is.")
    ] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the moments (PNG, JPEG, WebP).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the model of the index is now, if it was moved.")] = None,
    device: Device = "auto",
) -> None:
    """Find the moments nearest to a description, a picture or a video."""
    from svilm.search.index import Index
    from svilm.search.records import Filter

    if sum(bool(given) for given in (query, image, clip)) != 1:
        raise ValueError("give one of: a query in words, --image, --clip")
    if nouns and not query:
        raise ValueError("--nouns are those of a query in words; give one")
    if sheet is not None:
        from svilm.draw import check_picture

        check_picture(sheet)
    with Index(folder, model=model, device=device) as opened:
        hits = _hits(opened, query, image, clip, k, Filter(below, shortest, longest))
        found = opened.nouns(query) if nouns else ()
        if as_json:
            rows = [{"rank": hit.rank, "score": hit.score, **vars(hit.moment)} for hit in hits]
            told: dict[str, Any] = {"query": query or str(image or clip), "hits": rows}
            print(json.dumps(told | ({"nouns": found} if nouns else {}), ensure_ascii=False, indent=1))
        else:
            print(_table(hits) if hits else _nothing(opened, below))
            if nouns:
                print(f"nouns: {', '.join(found) or 'none'}")
        if sheet is not None:
            from svilm.search.sheet import write_sheet

            write_sheet(opened, hits, sheet, title=query or f"like {image or clip}", nouns=found)
            if not as_json:
                print(sheet)


def _nothing(opened: "Index", below: str) -> str:
    """Why no moment was found."""
    folders = sorted({name.partition("/")[0] for name in opened.videos if "/" in name})
    if below and folders:
        shown = ", ".join(folders[:10]) + (", ..." if len(folders) > 10 else "")
        return f"no moment below folder {below!r} is admitted; the folders of the index: {shown}"
    return "no moment of the index is admitted; loosen --folder, --shortest or --longest"


def _hits(opened: "Index", query: str, image: Path | None, clip: str | None, k: int, where: "Filter") -> "list[Hit]":
    if query:
        return opened.search(query, k, where)
    if image is not None:
        return opened.search_like(image, k, where)
    path, start, end = _parsed(clip or "")
    return opened.search_like(path, k, where, start=start, end=end)


def _parsed(clip: str) -> tuple[Path, float | None, float | None]:
    """FILE[@START-END], unless there is a file of the whole name."""
    part = re.fullmatch(r"(.+)@(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", clip, flags=re.DOTALL)
    if part is None or Path(clip).exists():
        if "@" in clip and not Path(clip).exists():
            raise ValueError(f"--clip {clip!r}: no such file; for a part of a video give FILE@START-END in seconds")
        return Path(clip), None, None
    return Path(part[1]), float(part[2]), float(part[3])


def _table(hits: "list[Hit]") -> str:
    from svilm.data.scan import printable

    lines = [f"{'':4} {'score':>6} {'start':>9} {'end':>9}  video"]
    for hit in hits:
        start, end = (_clock(seconds) for seconds in (hit.moment.start, hit.moment.end))
        lines.append(f"{hit.rank:4} {hit.score:6.3f} {start:>9} {end:>9}  {printable(hit.moment.video)}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
