"""From an official list of clips to a manifest: find the videos, check them, extract nouns, account for all.

A reader (``videocc.listing``, ``msrvtt.listing``, ...) says which clips an annotation file lists; ``prepare``
does the rest, the same for all.  Nothing is dropped in silence: what was read is what was written plus what
was refused, missing or undecodable, each with its reason and place.  A test split that would shrink is an
error, because a score on fewer clips is a score on another benchmark.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from math import inf
from pathlib import Path

from tqdm import tqdm

from svilm.data.ends import cut_end
from svilm.data.manifest import (
    Entry,
    Header,
    LabelledBox,
    Segment,
    refuse_to_replace,
    refuse_unwritable,
    write_manifest,
)
from svilm.data.nouns import Phrases, extractor_name, noun_phrases
from svilm.data.prepare import Check, Split
from svilm.data.prepare.accounts import EXAMPLES, Kind, Lost, Summary, Tally
from svilm.data.prepare.tables import BadRow, PrepareError, Refusal, shortened
from svilm.data.prepare.videos import Verdict, VideoFolder, check_videos, chunks, pool

__all__ = ["Clip", "Listing", "PrepareError", "Refusal", "Summary", "prepare", "unique"]

LISTED = 20
"""Lost clips named in an error message."""
NOUN_CHUNK = 256
"""Captions given to the extractor at once."""
FEW_CLIPS = 10_000
"""Up to here noun phrases are extracted in this process: to start others takes longer."""
LATE_SECONDS = 1.0
"""A clip may end so much after its video, by rounding, without being mentioned."""


@dataclass(frozen=True)
class Clip:
    """A clip that an annotation file lists."""

    id: str
    names: tuple[str, ...]
    """Names under which the video may lie in the folder; the first one found counts."""
    captions: tuple[str, ...]
    place: str
    """Where the annotation file says so, for messages: "line 12"."""
    start: float | None = None
    end: float | None = None
    scene_changes: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    category: str = ""
    segments: tuple[Segment, ...] = ()
    boxes: tuple[LabelledBox, ...] = ()
    duration: float | None = None


@dataclass(frozen=True)
class Listing:
    """What a reader makes of annotation files."""

    source: str
    path: Path
    read: Callable[[], Iterator[Clip | Refusal]]
    """Gives all clips and refused rows, each time from the first."""
    protocol: str
    """The list in words, as it will stand beside a score."""
    split: Split = "train"
    published: int | None = None
    """How many clips the official list has, if that is well known."""
    notes: tuple[str, ...] = ()
    nouns: bool = True
    """Whether noun phrases are extracted from the captions; questions and class names need none."""
    classes: tuple[str, ...] = ()
    """Names of all classes in their official order, where labels come from a closed list."""
    longest: float = inf
    """Seconds that a video may have.  A longer one shows that the list counts its times from elsewhere."""
    too_long: str = ""
    """What such a video is, and the remedy."""


def unique(rows: Iterable[Clip | Refusal]) -> Iterator[Clip | Refusal]:
    """The clips with ids of their own, "x", "x#2", ..., for lists without ids; repeated rows are refused."""
    uses, seen = Counter[str](), set[int]()
    for row in rows:
        if isinstance(row, Clip):
            content = hash((row.id, row.captions))
            if content in seen:
                yield Refusal(row.place, "repeats an earlier row", shortened(row.id))
                continue
            seen.add(content)
            uses[row.id] += 1
            if uses[row.id] > 1:
                row = replace(row, id=f"{row.id}#{uses[row.id]}")
        yield row


def prepare(
    listing: Listing,
    *,
    to: str | Path,
    videos: str | Path,
    check: Check = "index",
    workers: int = 0,
    allow_missing: bool = False,
    extractor: str = "auto",
) -> Summary:
    """Write the manifest of a listing, and say what became of every row.

    ``videos`` is searched for the files, which are looked into as ``check`` says ("none", "index": list the
    frames and decode the first, "full": decode all).  ``workers`` processes share the work, 0 uses this one.
    ``allow_missing`` lets a test split shrink in the open: the header keeps the official count and names what
    was struck.  Raises ManifestError when ``to`` cannot be written, or is there and no manifest; PrepareError when it
    is the list itself, annotations cannot be read, a video is longer than the listing says, no clip is left, or a test
    split would shrink; ValueError for an unknown extractor.
    """
    to, name = Path(to), extractor_name(extractor)
    refuse_unwritable(to)
    if to.is_dir():
        raise PrepareError(f"{to} is a folder; give the manifest a file name")
    if listing.path.is_file() and to.is_file() and to.samefile(listing.path):
        raise PrepareError(f"{to} is the list of clips itself and would be replaced; write to another file")
    refuse_to_replace(to)
    folder = VideoFolder(Path(videos))
    reading = tqdm(_judged(listing, folder, {}), desc="reading annotations", unit="clip")
    files = {outcome.file for outcome in reading if isinstance(outcome, _Kept)}
    verdicts = check_videos(folder.root, sorted(files), check, workers)
    _refuse_longer(listing, verdicts)

    account = _Account()
    for outcome in _judged(listing, folder, verdicts):
        account.add(outcome, keep=listing.split != "train")
    if account.kept == 0:  # before what is said of a split that shrinks: --allow-missing is no way out here
        raise PrepareError(_nothing_left(listing, account, folder))
    if account.struck and not allow_missing:
        raise PrepareError(_shrunken(listing, account, folder))

    header = Header(
        source=listing.source,
        root=_root(folder.root, to),
        official=account.rows,
        protocol=listing.protocol,
        nouns=name if listing.nouns else "",
        struck=tuple(f"{lost.id}: {lost.reason}" for lost in account.struck),
        split=listing.split,
        classes=listing.classes,
    )
    kept = (outcome for outcome in _judged(listing, folder, verdicts) if isinstance(outcome, _Kept))
    workers = workers if account.kept > FEW_CLIPS else 0
    shown = iter(tqdm(kept, desc="noun phrases" if listing.nouns else "writing", unit="clip", total=account.kept))
    nouns = Counter[str]()
    entries = _entries(shown, extractor, workers) if listing.nouns else map(_plain_entry, shown)
    written = write_manifest(to, header, _counted(entries, nouns))
    return Summary(
        manifest=to,
        source=listing.source,
        protocol=listing.protocol,
        rows=account.rows,
        losses=account.losses,
        written=written,
        captions=nouns["captions"],
        phrases=nouns["phrases"],
        without_nouns=nouns["without"],
        extractor=name if listing.nouns else "",
        notes=(*listing.notes, *_notes(listing, account, verdicts, folder)),
    )


@dataclass(frozen=True)
class _Kept:
    """A clip with its video and, where known, the video's duration."""

    clip: Clip
    file: str
    duration: float | None

    @property
    def span(self) -> tuple[float | None, float | None] | None:
        """Start and end of the clip inside its video; None where that has ended before the boxes' moment."""
        start, end = self.clip.start, self.clip.end
        if end is None or self.duration is None or end <= self.duration:
            return start, end
        inside = cut_end(start or 0.0, end, self.duration, centred=bool(self.clip.boxes))
        return inside and (inside.start or start, inside.end)


def _judged(listing: Listing, folder: VideoFolder, verdicts: Mapping[str, Verdict]) -> Iterator[_Kept | Lost]:
    """What becomes of each row, as far as the verdicts on the videos are known."""
    ids = set[str]()
    for row in listing.read():
        if isinstance(row, Refusal):
            yield Lost("refused", row.place, row.place, row.reason, row.detail)
        elif row.id in ids:
            yield Lost("refused", row.id, row.place, "id of an earlier row", shortened(row.id))
        else:
            ids.add(row.id)
            yield _judge(row, folder, verdicts)


def _judge(clip: Clip, folder: VideoFolder, verdicts: Mapping[str, Verdict]) -> _Kept | Lost:
    try:
        file = next((found for name in clip.names if (found := folder.find(name)) is not None), None)
    except BadRow as bad:
        return Lost("refused", clip.id, clip.place, bad.reason, bad.detail)
    if file is None:
        return Lost("missing", clip.id, clip.place, "video not found", shortened(clip.names[0]))
    verdict = verdicts.get(file, Verdict(None))
    if verdict.reason:
        return Lost("undecodable", clip.id, clip.place, verdict.reason, verdict.message)
    if verdict.duration is not None and (clip.start or 0.0) >= verdict.duration:
        times = f"{file} has {verdict.duration:.2f} s, the clip starts at {clip.start or 0.0:.2f} s"
        return Lost("undecodable", clip.id, clip.place, "starts after the end of its video", times)
    kept = _Kept(clip, file, verdict.duration)
    if kept.span is None:
        times = f"{file} has {verdict.duration:.2f} s, the clip is [{clip.start or 0.0:.2f}, {clip.end:.2f}) s"
        return Lost("undecodable", clip.id, clip.place, "has its boxes after the end of its video", times)
    return kept


class _Account:
    """How many rows became what."""

    def __init__(self) -> None:
        self.rows = self.kept = self.late = 0
        self.losses: dict[tuple[Kind, str], Tally] = {}
        self.struck: list[Lost] = []

    @property
    def missing(self) -> bool:
        """Whether the video of some clip is not in the folder."""
        return any(kind == "missing" for kind, _ in self.losses)

    def add(self, outcome: _Kept | Lost, *, keep: bool) -> None:
        """Count an outcome; ``keep`` also remembers what was lost."""
        self.rows += 1
        if isinstance(outcome, Lost):
            self.losses.setdefault((outcome.kind, outcome.reason), Tally()).add(outcome)
            if keep:
                self.struck.append(outcome)
            return
        self.kept += 1
        end, duration = outcome.clip.end, outcome.duration
        self.late += end is not None and duration is not None and end > duration + LATE_SECONDS


def _root(videos: Path, manifest: Path) -> str:
    """The videos' folder as the header states it: relative where the two can be moved together."""
    beside = Path(os.path.abspath(manifest)).parent
    return videos.relative_to(beside).as_posix() if videos.is_relative_to(beside) else str(videos)


def _entries(kept: Iterable[_Kept], extractor: str, workers: int) -> Iterator[Entry]:
    extract = partial(noun_phrases, extractor=extractor)
    with pool(workers) if workers else nullcontext() as processes:
        each = processes.map if processes else map
        for batch in chunks(kept, NOUN_CHUNK * max(1, 4 * workers)):
            captions = (caption for item in batch for caption in item.clip.captions)
            nouns = chain.from_iterable(each(extract, chunks(captions, NOUN_CHUNK)))
            for item in batch:
                yield _entry(item, tuple(islice(nouns, len(item.clip.captions))))


def _entry(kept: _Kept, nouns: tuple[Phrases, ...]) -> Entry:
    clip, span = kept.clip, kept.span
    assert span is not None  # judged before
    return Entry(
        clip.id,
        kept.file,
        clip.captions,
        nouns,
        *span,
        clip.scene_changes,
        clip.labels,
        clip.category,
        clip.segments,
        clip.boxes,
        clip.duration,
    )


def _plain_entry(kept: _Kept) -> Entry:
    return _entry(kept, ((),) * len(kept.clip.captions))


def _counted(entries: Iterable[Entry], counts: Counter[str]) -> Iterator[Entry]:
    for entry in entries:
        counts["captions"] += len(entry.captions)
        counts["phrases"] += sum(len(phrases) for phrases in entry.nouns)
        counts["without"] += sum(not phrases for phrases in entry.nouns)
        yield entry


def _refuse_longer(listing: Listing, verdicts: Mapping[str, Verdict]) -> None:
    """Raise PrepareError where videos are longer than those of the listing."""
    found = {
        file: verdict.duration for file, verdict in verdicts.items() if (verdict.duration or 0.0) > listing.longest
    }
    if found:
        file = min(found)
        raise PrepareError(
            f"{listing.path}: {len(found)} of {len(verdicts)} videos are longer than {listing.longest:g} s, {file} has "
            f"{found[file]:.0f} s: {listing.too_long}"
        )


def _looked_in(folder: VideoFolder) -> str:
    return f"{folder.root} has {len(folder)} videos; --videos names another folder"


def _notes(listing: Listing, account: _Account, verdicts: Mapping[str, Verdict], folder: VideoFolder) -> Iterator[str]:
    if account.missing:
        yield f"where videos were looked for: {_looked_in(folder)}"
    if listing.published not in (None, account.rows):
        yield (
            f"the published list has {listing.published} clips and this one {account.rows}: "
            "scores on it do not compare with published ones"
        )
    if account.late:
        yield f"{account.late} clips end over {LATE_SECONDS:g} s after their video does; they are cut there"
    damaged = sorted(file for file, verdict in verdicts.items() if verdict.damaged)
    if damaged:
        yield f"{len(damaged)} videos are damaged but readable, kept: {', '.join(damaged[:EXAMPLES])}"
    yield from _unseen(folder)


def _unseen(folder: VideoFolder) -> Iterator[str]:
    if folder.unseen:
        few = ", ".join(folder.unseen[:EXAMPLES]) + (", ..." if len(folder.unseen) > EXAMPLES else "")
        yield f"{len(folder.unseen)} folders in {folder.root} could not be looked into: {few}"


def _shrunken(listing: Listing, account: _Account, folder: VideoFolder) -> str:
    lines = [
        f"{listing.path}: {len(account.struck)} of {account.rows} {listing.split} clips cannot be used:",
        *(f"  {lost}" for lost in account.struck[:LISTED]),
    ]
    if len(account.struck) > LISTED:
        lines.append(f"  and {len(account.struck) - LISTED} more")
    if account.missing:
        lines.append(f"  {_looked_in(folder)}")
    lines += [f"  note: {note}" for note in (*listing.notes, *_unseen(folder))]
    return "\n".join([*lines, "find them, or strike them from the split in the open with --allow-missing"])


def _nothing_left(listing: Listing, account: _Account, folder: VideoFolder) -> str:
    if account.rows == 0:
        return f"{listing.path}: no " + ("videos" if listing.path.is_dir() else "rows")
    reasons = (f"{tally.count} x {reason}: {tally.examples[0]}" for (_, reason), tally in account.losses.items())
    where = "; ".join((_looked_in(folder), *(f"note: {note}" for note in listing.notes), *_unseen(folder)))
    return f"{listing.path}: none of {account.rows} rows can be used ({'; '.join(reasons)}); {where}"
