"""`svilm prepare`: official annotation files to a manifest, one sub-command per dataset."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from svilm.data.nouns import Extractor
from svilm.data.prepare import Check, Protocol, Split

if TYPE_CHECKING:
    from svilm.data.prepare.common import Listing

app = typer.Typer(
    no_args_is_help=True,
    help="Turn a dataset's official files into a manifest; say what was found, missing and undecodable.",
    epilog="A test split that would shrink is refused; with --allow-missing it shrinks in the open.",
)


def _annotations(text: str) -> Any:
    return typer.Argument(help=text, metavar="ANNOTATIONS", show_default=False)


def _option(name: str, text: str, **more: Any) -> Any:
    return typer.Option(name, help=text, **more)


To = Annotated[Path, _option("--to", "Manifest to write (JSON Lines).", metavar="FILE", show_default=False)]
Videos = Annotated[
    Path | None,
    _option(
        "--videos",
        "Folder of the videos, with all below it; default: where the annotations are.",
        metavar="DIR",
    ),
]
HowClosely = Annotated[
    Check, _option("--check", "Of each video decode no frame, the first (and list them all), or every one.")
]
Workers = Annotated[int | None, _option("--workers", "Processes besides this one; default: all cores.", min=0)]
AllowMissing = Annotated[
    bool, _option("--allow-missing", "Let a test split shrink; the manifest names what was struck.")
]
Nouns = Annotated[
    Extractor,
    _option("--nouns", "Noun phrases by spaCy or by offline rules; auto: spaCy if it has a pipeline."),
]
Use = Annotated[Split, _option("--split", "What the list is used for; val and test must be complete.")]


@app.command()
def videocc(
    annotations: Annotated[Path, _annotations("video_cc_public.csv, or a folder filled by video2dataset.")],
    to: To,
    videos: Videos = None,
    split: Use = "train",
    check: HowClosely = "index",
    workers: Workers = None,
    allow_missing: AllowMissing = False,
    nouns: Nouns = "auto",
) -> None:
    """VideoCC: video, start, end in microseconds, caption; a header or none; ids, addresses or file names."""
    from svilm.data.prepare.videocc import listing

    _run(listing(annotations, split=split), annotations, to, videos, check, workers, allow_missing, nouns)


@app.command()
def webvid(
    annotations: Annotated[Path, _annotations("results_2M_train.csv or the like.")],
    to: To,
    videos: Videos = None,
    split: Use = "train",
    check: HowClosely = "index",
    workers: Workers = None,
    allow_missing: AllowMissing = False,
    nouns: Nouns = "auto",
) -> None:
    """WebVid: videoid, page_dir and name; the videos are page_dir/videoid.mp4."""
    from svilm.data.prepare.webvid import listing

    _run(listing(annotations, split=split), annotations, to, videos, check, workers, allow_missing, nouns)


@app.command()
def howto100m(
    annotations: Annotated[Path, _annotations("caption.json, or the file of HowToCaption.")],
    to: To,
    videos: Videos = None,
    only: Annotated[
        Path | None,
        _option("--only", "HowTo100M_v1.csv or a part of it: take these videos only.", metavar="CSV"),
    ] = None,
    min_seconds: Annotated[
        float, _option("--min-seconds", "Grow each narration by its neighbours to this length.", min=0)
    ] = 8.0,
    check: HowClosely = "index",
    workers: Workers = None,
    nouns: Nouns = "auto",
) -> None:
    """HowTo100M: narrations with their times, each grown by its neighbours to a clip."""
    from svilm.data.prepare.howto100m import listing

    found = listing(annotations, only=only, min_seconds=min_seconds)
    _run(found, annotations, to, videos, check, workers, False, nouns)


@app.command()
def activitynet_captions(
    annotations: Annotated[Path, _annotations("train.json, val_1.json or val_2.json.")],
    to: To,
    videos: Videos = None,
    paragraph: Annotated[
        bool, _option("--paragraph", "One clip per video with all its sentences, for retrieval.")
    ] = False,
    split: Annotated[
        Split | None, _option("--split", "Default: train for a file named train..., test for others.")
    ] = None,
    check: HowClosely = "index",
    workers: Workers = None,
    allow_missing: AllowMissing = False,
    nouns: Nouns = "auto",
) -> None:
    """ActivityNet Captions: one clip per sentence, or per video with --paragraph."""
    from svilm.data.prepare.activitynet_captions import listing

    found = listing(annotations, paragraph=paragraph, split=split)
    _run(found, annotations, to, videos, check, workers, allow_missing, nouns)


@app.command()
def msrvtt(
    annotations: Annotated[Path, _annotations("Folder of MSRVTT_data.json and the lists of the splits.")],
    to: To,
    videos: Videos = None,
    protocol: Annotated[Protocol, _option("--protocol", "How the videos are split.")] = "msrvtt-1ka-9k",
    split: Annotated[Split, _option("--split", "Which part of it; only msrvtt-full has val.")] = "train",
    check: HowClosely = "index",
    workers: Workers = None,
    allow_missing: AllowMissing = False,
    nouns: Nouns = "auto",
) -> None:
    """MSR-VTT: the 1k-A test split of 1,000 with 9k or 7k videos to train on, or the full split."""
    from svilm.data.prepare.msrvtt import listing

    found = listing(annotations, protocol=protocol, split=split)
    _run(found, annotations, to, videos, check, workers, allow_missing, nouns)


@app.command()
def folder(
    annotations: Annotated[
        Path,
        _annotations("csv, tsv or jsonl of video, start, end, caption; or a folder of videos with texts."),
    ],
    to: To,
    videos: Videos = None,
    split: Use = "train",
    names_as_captions: Annotated[
        bool, _option("--names-as-captions", "In a folder: a video without a text is told by its name.")
    ] = False,
    check: HowClosely = "index",
    workers: Workers = None,
    allow_missing: AllowMissing = False,
    nouns: Nouns = "auto",
) -> None:
    """Your own videos: any table of video and caption, with start and end in seconds or h:mm:ss if you like.

    Without a table, the captions of x.mp4 are the lines of x.txt beside it.
    """
    from svilm.data.prepare.folder import listing

    table = None if annotations.is_dir() else annotations
    found = listing(table, _root(annotations, videos), split=split, names_as_captions=names_as_captions)
    _run(found, annotations, to, videos, check, workers, allow_missing, nouns)


def _root(annotations: Path, videos: Path | None) -> Path:
    return videos or (annotations if annotations.is_dir() else annotations.parent)


def _run(
    listing: "Listing",
    annotations: Path,
    to: Path,
    videos: Path | None,
    check: Check,
    workers: int | None,
    allow_missing: bool,
    nouns: Extractor,
) -> None:
    from svilm.data.prepare.common import prepare

    summary = prepare(
        listing,
        to=to,
        videos=_root(annotations, videos),
        check=check,
        workers=(os.cpu_count() or 1) if workers is None else workers,
        allow_missing=allow_missing,
        extractor=nouns,
    )
    print(summary)
