"""A dataset as tar shards of short, small clips that decode quickly: `svilm pack`.

    DIR/00000.tar  {00000000.mp4, .txt, .json, 00000001.mp4, ...}     DIR/00000.idx  where each member begins
    DIR/00000_stats.json  what became of its clips                    DIR/manifest.jsonl  the packed dataset

The layout is that of video2dataset, so WebDataset and all that reads it read these shards.  Nothing behind the
manifest knows of them: its entries name "00000.tar/00000000.mp4".  A shard is whole or absent; packing goes on after
the last whole one.  The same manifest, videos, settings and libraries give the same bytes, whatever the workers.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from svilm.data.cut import Job, Packing, Piece, cut_out
from svilm.data.manifest import Entry, Manifest, ManifestError, Segment, entry_row, read_row, write_manifest
from svilm.data.shards import Member, members, write_index

A = TypeVar("A")
B = TypeVar("B")

AHEAD = 4
"""Clips for each worker that are cut ahead of the one to be written."""
ROOM = 1.5
"""Free room on the disk that must be left, in shards of the largest size seen."""
EXAMPLES = 5
"""Lost clips that the report and the errors name."""


@dataclass(frozen=True)
class Packed:
    """What became of a manifest's entries; ``str`` is the report."""

    manifest: Path
    entries: int
    """Entries of the old manifest."""
    written: int
    """Entries of the new one."""
    clips: int
    """Clips in the shards; entries that show the same stretch of a video share one."""
    shards: int
    new_shards: int
    """Of these, made now and not by an earlier, interrupted call."""
    num_bytes: int
    """Of all shards."""
    lost: Mapping[str, str]
    """Ids of the entries left out, each with the reason."""

    def __str__(self) -> str:
        lines = [
            f"  {'entries':<9} {self.entries:>8}  in the old manifest",
            f"  {'clips':<9} {self.clips:>8}  in {self.shards} shards ({self.new_shards} new), {_size(self.num_bytes)}",
            f"  {'written':<9} {self.written:>8}  entries to {self.manifest}",
            f"  {'lost':<9} {len(self.lost):>8}  entries left out",
        ]
        for reason, count in Counter(_word(reason) for reason in self.lost.values()).most_common():
            named = [f"{id} ({why})" for id, why in self.lost.items() if _word(why) == reason][:EXAMPLES]
            lines.append(f"{'':12}{count} x {reason}: {'; '.join(named)}{'; ...' if count > EXAMPLES else ''}")
        return "\n".join(lines)


def pack(
    manifest: str | Path,
    to: str | Path,
    packing: Packing | None = None,
    *,
    workers: int = 1,
    allow_missing: bool = False,
) -> Packed:
    """Write the clips of a manifest as shards into the folder ``to``, with a manifest of the packed set.

    ``workers`` processes cut clips, 0 does it in this one.  A clip that cannot be read is left out and named; of a
    test split only with ``allow_missing``, which strikes it in the open.  Raises ValueError for a folder that holds
    something else or was packed otherwise, ManifestError when nothing is left or a test split would shrink, and
    OSError when the disk is nearly full; what is done stays, and the next call goes on from there.
    """
    packing, source, folder = packing or Packing(), Manifest(manifest), Path(to)
    _claim(folder, source, packing)
    clips = _Clips(source)
    shards = range(-(-len(clips) // packing.shard_size))
    missing = [number for number in shards if not _shard(folder, number).is_file()]
    jobs = (_job(clips, clip, packing) for number in missing for clip in _chosen(clips, number, packing))
    pieces = in_order(cut_out, jobs, workers)
    left = sum(len(_chosen(clips, number, packing)) for number in missing)
    with tqdm(total=len(clips), initial=len(clips) - left, desc="packing", unit="clip") as bar, closing(pieces):
        for number in missing:
            _check_room(folder)
            _write_shard(folder, number, clips, packing, pieces, bar)
    lost = {id: why for number in shards for id, why in _stats(folder, number)["lost"].items()}
    return _finish(source, folder, packing, lost, len(shards), len(missing), allow_missing)


class _Clips:
    """The distinct clips of a manifest in the order of their first entries; several entries may share one.

    So an entry keeps its place among the others, unless it shows the same as an earlier one: then it comes after that.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        marks = np.array([hash(_stretch(entry)) for entry in manifest], dtype=np.int64)
        _, first, clip = np.unique(marks, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self._entries = np.argsort(rank[clip], kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(rank[clip], minlength=len(order)))])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> list[Entry]:
        """The entries that show a clip."""
        entries = [self.manifest[int(n)] for n in self._entries[self._starts[number] : self._starts[number + 1]]]
        if len({_stretch(entry) for entry in entries}) > 1:  # two hashes of 64 bits that are equal by chance
            raise ManifestError(f"{self.manifest.path}: {entries[0].id} and {entries[-1].id} cannot be told apart")
        return entries


def _stretch(entry: Entry) -> tuple[str, float | None, float | None, bool]:
    return entry.video, entry.start, entry.end, bool(entry.boxes)


# One shard


def _chosen(clips: _Clips, number: int, packing: Packing) -> range:
    """The clips of a shard."""
    return range(number * packing.shard_size, min((number + 1) * packing.shard_size, len(clips)))


def _write_shard(
    folder: Path, number: int, clips: _Clips, packing: Packing, pieces: Iterator[Piece | None], bar: Any
) -> None:
    """Write a shard with its index and statistics; the tar gets its name last, when all else is there."""
    shard, chosen = _shard(folder, number), _chosen(clips, number, packing)
    part, digits = shard.with_name(shard.name + ".part"), max(1, len(str(packing.shard_size - 1)))
    lost: dict[str, str] = {}
    found: list[Member] = []
    with open(part, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for place, clip in enumerate(chosen):
            piece = next(pieces) or Piece(reason="crashed", message="the process that read it crashed")
            key, kept, entries = f"{number:05d}{place:0{digits}d}", [], clips[clip]
            for entry in entries:
                new = moved(entry, piece, f"{shard.name}/{key}.mp4")
                if isinstance(new, Entry):
                    kept.append(new)
                else:
                    lost[entry.id] = new
            if kept:
                _add_sample(tar, found, key, entries[0], kept, piece)
            bar.update()
        tar.close()
        file.flush()
        os.fsync(file.fileno())
    write_index(shard, found)
    stats = {
        "count": len(chosen), "successes": len(found) // 3, "failed_to_download": 0,
        "failed_to_subsample": len(chosen) - len(found) // 3,
        "status_dict": dict(Counter(_word(why) for why in lost.values()), success=len(found) // 3), "lost": lost,
    }  # fmt: skip
    _write_json(folder / f"{number:05d}_stats.json", stats)
    os.replace(part, shard)


def _job(clips: _Clips, clip: int, packing: Packing) -> Job:
    entry = clips[clip][0]
    return Job(str(clips.manifest.path_of(entry)), entry.start, entry.end, packing, bool(entry.boxes))


def _add_sample(
    tar: tarfile.TarFile, found: list[Member], key: str, old: Entry, kept: list[Entry], piece: Piece
) -> None:
    captions = [caption for entry in kept for caption in entry.captions]
    caption = captions[0] if captions else ""
    about = {
        "key": key, "url": old.video, "caption": caption, "status": "success",
        "error_message": None, "clips": [[piece.shift + piece.start, piece.shift + piece.end]],
        "width": piece.width, "height": piece.height, "frames": piece.frames, "duration": piece.duration,
        "captions": captions, "svilm": {"shift": piece.shift, "entries": [entry_row(entry) for entry in kept]},
    }  # fmt: skip
    text = json.dumps(about, ensure_ascii=False, indent=1)
    for extension, data in (("mp4", piece.data), ("txt", caption.encode()), ("json", text.encode())):
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        found.append(Member(info.name, tar.offset + tarfile.BLOCKSIZE, len(data)))
        tar.addfile(info, io.BytesIO(data))


def moved(entry: Entry, piece: Piece, video: str) -> Entry | str:
    """The entry as it is in the packed video, its times counted from that one's beginning; or why it cannot be.

    Scene changes outside of the clip are left out.  Labelled segments must lie inside, or the truth would change.
    """
    if piece.reason:
        return f"{piece.reason}: {piece.message}"
    whole = entry.start is None and entry.end is None
    segments = tuple(Segment(s.start - piece.shift, s.end - piece.shift, s.label) for s in entry.segments)
    if not whole and any(s.start < 0 or s.end > piece.duration for s in segments):
        return "segments_outside: a labelled segment reaches out of the clip; pack whole videos, without start and end"
    changes = (time - piece.shift for time in entry.scene_changes)
    return replace(
        entry,
        video=video,
        start=None if entry.start is None and piece.start == 0 else piece.start,
        end=None if entry.end is None else piece.end,
        scene_changes=tuple(time for time in changes if 0 < time < piece.duration),
        segments=segments if piece.shift else entry.segments,
        duration=entry.duration if whole or entry.duration is None else piece.duration,
    )


# All shards


def _claim(folder: Path, source: Manifest, packing: Packing) -> None:
    """Make the folder one for these shards, or see that it is."""
    if folder.resolve() == source.root.resolve():
        raise ValueError(f"{folder} holds the videos of {source.path}; choose another folder for the shards")
    target = folder / "manifest.jsonl"
    if target.exists() and target.samefile(source.path):
        raise ValueError(f"{source.path} would be replaced by the packed set's; choose another folder for the shards")
    about = {
        "svilm_pack": 1,
        "manifest": hashlib.sha256(source.path.read_bytes()).hexdigest(),
        "packing": packing.model_dump(),
    }
    path = folder / "pack.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError:
            before = None
        if before != about:
            raise ValueError(f"{folder} holds shards of another manifest or other settings; choose another folder")
        return
    if folder.is_dir() and any(folder.glob("*.tar")):
        raise ValueError(f"{folder} holds tar files of other origin; choose an empty folder")
    if target.exists():
        raise ValueError(f"{target} is of other origin and would be replaced; choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(path, about)


def _finish(
    source: Manifest,
    folder: Path,
    packing: Packing,
    lost: Mapping[str, str],
    shards: int,
    new: int,
    allow_missing: bool,
) -> Packed:
    """Write the manifest of the packed set, from what the shards say of themselves."""
    header, complete = source.header, source.header.split == "train"
    named = "; ".join(f"{id}: {why}" for id, why in islice(lost.items(), EXAMPLES))
    if len(lost) == len(source):
        raise ManifestError(f"{source.path}: none of its {len(source)} clips can be packed: {named}")
    if lost and not complete and not allow_missing:
        raise ManifestError(
            f"{source.path}: {len(lost)} of {len(source)} {header.split} clips cannot be packed: {named}; replace "
            "their videos, or strike them in the open with --allow-missing: what is packed stays"
        )
    words = f"packed at {packing.short_side}, {packing.codec}" + (f", {packing.fps:g} fps" if packing.fps else "")
    struck = () if complete else tuple(f"{id}: {why}" for id, why in lost.items())
    header = replace(
        header,
        root=".",
        protocol=f"{header.protocol or header.source}, {words}",
        struck=(*header.struck, *struck),
    )
    path = folder / "manifest.jsonl"
    written = write_manifest(
        path, header, (row for number in range(shards) for row in _entries(_shard(folder, number)))
    )
    size = sum(_shard(folder, number).stat().st_size for number in range(shards))
    clips = sum(_stats(folder, number)["successes"] for number in range(shards))
    return Packed(path, len(source), written, clips, shards, new, size, lost)


def _entries(shard: Path) -> Iterator[Entry]:
    """The entries whose clips are in a shard."""
    with open(shard, "rb") as file:
        for name, offset, size in members(shard):
            if name.endswith(".json"):
                file.seek(offset)
                about = json.loads(file.read(size))
                for row in about["svilm"]["entries"]:
                    yield read_row(row, shard, offset)


def _check_room(folder: Path) -> None:
    largest = max((path.stat().st_size for path in folder.glob("*.tar")), default=0)
    free = shutil.disk_usage(folder).free
    if free < ROOM * largest:
        raise OSError(f"{folder}: {_size(free)} left on this disk, a shard takes {_size(largest)}; make room and go on")


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.tar"


def _stats(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{number:05d}_stats.json").read_text("utf-8"))
    return found


def _write_json(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")
    os.replace(part, path)


def _word(reason: str) -> str:
    return reason.partition(":")[0]


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"


# Processes


def in_order(work: Callable[[A], B], jobs: Iterable[A], workers: int) -> Generator[B | None, None, None]:
    """What ``work`` makes of each job, in their order; None for a job that kills its process.

    ``workers`` processes work a few jobs ahead; 0 works in this one.
    """
    if workers == 0:
        yield from map(work, jobs)
        return
    jobs, ahead = iter(jobs), deque[tuple[A, Future[B]]]()
    crew = _crew(workers)
    try:
        while True:
            ahead.extend((job, _submit(crew, work, job)) for job in islice(jobs, AHEAD * workers - len(ahead)))
            if not ahead:
                return
            job, future = ahead.popleft()
            try:
                result: B | None = future.result()
            except BrokenProcessPool:  # by which job?  A process for this one alone will tell
                crew.shutdown()
                result = _alone(work, job)
                crew = _crew(workers)
                ahead = deque((waiting, _submit(crew, work, waiting)) for waiting, _ in ahead)
            yield result
    finally:
        crew.shutdown(cancel_futures=True)


def _submit(crew: ProcessPoolExecutor, work: Callable[[A], B], job: A) -> Future[B]:
    """The result to come; of a crew that has lost a process meanwhile, the error that says so."""
    try:
        return crew.submit(work, job)
    except BrokenProcessPool as error:
        failed: Future[B] = Future()
        failed.set_exception(error)
        return failed


def _alone(work: Callable[[A], B], job: A) -> B | None:
    with _crew(1) as crew:
        try:
            return crew.submit(work, job).result()
        except BrokenProcessPool:
            return None


def _crew(workers: int) -> ProcessPoolExecutor:
    """Processes that are started afresh, since a forked one may hang in a thread pool that it inherited; Ctrl-C is
    for the process that gives the jobs."""
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
