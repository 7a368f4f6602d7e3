"""An opened manifest against all its lines as Python's dictionaries: memory, opening, an entry at random."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from svilm.bench import apart
from svilm.bench.frame import How, Row, lower, not_measured, seconds_of
from svilm.data.manifest import Entry, Header, Manifest, write_manifest

CLIPS = 200_000
ASKED = 1000
"""Entries that are asked for at random."""
NOUNS = ("man", "woman", "dog", "street", "kitchen", "guitar", "knife", "onion", "red car", "wooden table")


def rows(how: How) -> Iterator[Row]:
    """Figures for a million clips, scaled from 200,000, each in a process of its own; and one entry, in this one."""
    clips = 2_000 if how.quick else CLIPS
    with tempfile.TemporaryDirectory() as name:
        small, path = (written(Path(name) / f"{count}.jsonl", count) for count in (10, clips))
        said = f"a manifest of a million clips, {path.stat().st_size / clips:.0f} bytes each"
        if apart.can_measure():
            ours, peer = (apart.held(make, (path,), (small,)) for make in (Manifest, dictionaries))
            million = 1e6 / clips
            words = f"{said}, opened, against a list of dictionaries"
            note = f"scaled from {clips:,}"
            yield lower(f"{words}: memory", ours.megabytes * million, peer.megabytes * million, "MB", note)
            yield lower(f"{words}: time", ours.seconds * million, peer.seconds * million, "s", note)
        else:
            yield not_measured(f"{said}, opened", apart.WHY_NOT)
        chosen = np.random.default_rng(0).integers(clips, size=ASKED).tolist()
        whole, plain = Manifest(path), dictionaries(path)
        mine, theirs = seconds_of([_asking(whole, chosen), _asking(plain, chosen)], how)
        note = "read from the file and checked at each call; its clip takes hundreds of times as long"
        yield lower(f"an entry of {clips:,} at random, against the dictionary", mine / ASKED, theirs / ASKED, "s", note)


def dictionaries(path: Path) -> list[dict[str, Any]]:
    """All lines but the header, as `json` reads them."""
    with open(path, encoding="utf-8") as file:
        next(file)
        return [json.loads(line) for line in file]


def written(path: Path, clips: int) -> Path:
    """A manifest of so many clips with a caption of twelve words and three nouns each, as VideoCC has them."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(NOUNS), size=(clips, 3)).tolist()
    starts = rng.integers(600, size=clips).tolist()

    def entries() -> Iterator[Entry]:
        for number, (numbers, start) in enumerate(zip(chosen, starts, strict=True)):
            nouns = tuple(NOUNS[noun] for noun in numbers)
            caption = "a {} is seen with a {} in front of the {}".format(*nouns)
            name = f"{number * 7919 % 2**40:011x}"
            yield Entry(f"{name}:{start}", f"{name}.mp4", (caption,), (nouns,), float(start), start + 10.0)

    write_manifest(path, Header("bench", ".", clips), entries())
    return path


def _asking(held: Any, chosen: list[int]) -> Callable[[], object]:
    return lambda: [held[number] for number in chosen]
