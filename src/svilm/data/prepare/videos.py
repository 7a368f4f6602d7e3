"""The videos that a manifest speaks of: where they are in a folder, and whether they can be read."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from svilm.data.prepare import Check
from svilm.data.prepare.tables import BadRow, PrepareError, shortened
from svilm.data.shards import place_of

EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts"),
    *(".3g2", ".mts", ".m2ts", "."),  # some uploads of DiDeMo end in a bare dot
)
"""Where a folder holds one name with several of these, the first listed is taken."""
CHUNK = 1000

T = TypeVar("T")


class VideoFolder:
    """All videos below a folder, found by name.  The folder is read once; links are followed.

    ``root`` is its absolute path, ``unseen`` the folders below it that could not be looked into.  Raises PrepareError
    for a folder that is not there, or that cannot be looked into itself.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        if not self.root.is_dir():
            raise PrepareError(f"{root}: no such folder of videos")
        self.unseen: list[str] = []
        self._paths: set[str] = set()
        self._by_name: dict[str, list[str]] = {}
        for path in _walk(self.root, self.unseen):
            self._paths.add(path)
            stem = _without_extension(path)
            for name in {stem, os.path.basename(stem)}:
                self._by_name.setdefault(name, []).append(path)
        if self.unseen == ["."]:
            raise PrepareError(f"{root}: this folder of videos cannot be looked into; change its permissions")

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._paths))

    def find(self, name: str) -> str | None:
        """The video of that name as a path relative to the root, None if there is none.

        ``name`` is a path below the root, with or without its extension, or the bare name of a video anywhere
        below it.  A name whose extension is another than the file's counts as found, since videos get
        re-encoded.  "00000.tar/KEY.mp4" is a member of a tar, by its full path alone.  Raises BadRow for a name
        that leaves the root, and for one that several videos bear.
        """
        if ".tar/" in name:
            return self._member(name)
        found = self._find(name)
        if found is None and "/" in name:
            found = self._find(self._inside(name))
        return found

    def _find(self, name: str) -> str | None:
        if name in self._paths:
            return name
        for key in (name, _without_extension(name)):
            found = self._by_name.get(key, [])
            if len(found) > 1:
                found = [path for path in found if _without_extension(path) == key] or found
                if len({_without_extension(path) for path in found}) > 1:
                    raise BadRow("several videos of that name", shortened(f"{name}: {', '.join(sorted(found))}"))
            if found:
                return min(found, key=_rank)
        return None

    def _member(self, name: str) -> str | None:
        inside = self._inside(name)
        try:
            return None if place_of(os.path.join(self.root, inside)).whole else inside
        except (OSError, ValueError):
            return None

    def _inside(self, name: str) -> str:
        """A path in plain form, relative to the root."""
        if "://" in name:
            raise BadRow("an address, not a file", shortened(name))
        path = Path(os.path.normpath(os.path.join(self.root, name)))
        if not path.is_relative_to(self.root):
            raise BadRow("lies outside the folder of videos", shortened(name))
        return path.relative_to(self.root).as_posix()


def _walk(root: Path, unseen: list[str]) -> Iterator[str]:
    """Paths of all videos below ``root``, relative to it, with forward slashes; ``unseen`` gets the folders that
    cannot be listed."""
    folders, visited = [root], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:  # a link to a folder above would never end
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = list(listed)
        except OSError:
            unseen.append(folder.relative_to(root).as_posix())
            continue
        for entry in entries:
            try:
                entry.name.encode()
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except (UnicodeEncodeError, OSError):
                continue  # a name that no annotation file can give, or a link to itself
            if is_folder:
                folders.append(Path(entry.path))
            elif is_file and entry.name.lower().endswith(EXTENSIONS):
                yield Path(entry.path).relative_to(root).as_posix()


def _without_extension(name: str) -> str:
    """The name without a video's extension; any other dot is part of the name."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name


def _rank(path: str) -> tuple[int, str]:
    return EXTENSIONS.index(os.path.splitext(path)[1].lower()), path


class Verdict(NamedTuple):
    """What the check of one video found."""

    duration: float | None
    """Seconds; None where it is not known."""
    reason: str = ""
    """Why it cannot be read, "" if it can."""
    message: str = ""
    damaged: bool = False
    """Readable, but perhaps not to its end."""


def check_videos(root: Path, paths: Sequence[str], check: Check, workers: int) -> dict[str, Verdict]:
    """Look into each video: "index" lists its frames and decodes the first, "full" decodes all of them.

    ``workers`` processes share the work; 0 does it in this one.  A video that kills its process is found out.
    """
    if check == "none":
        return {}
    verdicts: dict[str, Verdict] = {}
    look = partial(_look, str(root), check)
    with tqdm(total=len(paths), desc="checking videos", unit="video") as bar:
        for chunk in chunks(paths, CHUNK):
            for path, verdict in zip(chunk, _each(look, chunk, workers), strict=True):
                verdicts[path] = verdict
                bar.update()
    return verdicts


def _each(look: "partial[Verdict]", chunk: Sequence[str], workers: int) -> Iterator[Verdict]:
    if workers == 0:
        yield from map(look, chunk)
        return
    done = 0
    try:
        with pool(workers) as processes:
            for verdict in processes.map(look, chunk):
                yield verdict
                done += 1
    except BrokenProcessPool:  # by which video?  One process for each of those left will tell
        for path in chunk[done:]:
            try:
                with pool(1) as process:
                    yield process.submit(look, path).result()
            except BrokenProcessPool:
                yield Verdict(None, "crash", f"{path}: the decoder crashed")


def pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes that are started afresh: a forked one may hang in a thread pool that it inherited."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def _look(root: str, check: Check, path: str) -> Verdict:
    from svilm.data.decode import DecodeError, index_video, read_frames

    try:
        index = index_video(os.path.join(root, path))
        if check == "full":
            for numbers in chunks(range(len(index)), 4096):
                read_frames(index, numbers, resize=(32, 32))
    except DecodeError as error:
        return Verdict(None, error.reason, f"{path}: {error.message}")
    return Verdict(index.duration, damaged=index.damage is not None)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
