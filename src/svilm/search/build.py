"""`svilm index`: the videos below a folder to an index, over and over again, and only what is new or has changed."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tqdm import tqdm

from svilm.backbones import PREFIX, Backbone, load_backbone
from svilm.data.files import Found, find_files
from svilm.data.prepare.videos import EXTENSIONS
from svilm.data.scan import printable
from svilm.runtime import gather_objects, rank, world_size
from svilm.search.ledger import (
    ABOUT,
    About,
    Failure,
    Journal,
    Known,
    clear_journals,
    read_about,
    read_journals,
    read_videos,
    size_on_disk,
    write_about,
    write_videos,
)
from svilm.search.moments import Splitting
from svilm.search.records import IndexedVideo
from svilm.search.store import Rows
from svilm.search.stores import check_store, open_store
from svilm.search.watch import File, Seen, Settings, Unseen, watch

EXAMPLES = 3
"""Failures of a kind that a report shows."""


@dataclass(frozen=True)
class Built:
    """What an index holds after a run; ``str`` is the report."""

    folder: Path
    known: Mapping[str, Known]
    encoded: int
    """Files that were new or had changed, those that failed among them."""
    removed: int
    """Videos that are gone since the last one."""
    encoded_hours: float
    seconds: float
    """What the run took."""
    bytes: int
    """Size of the index on disk."""
    unseen: tuple[str, ...]
    """Folders that could not be looked into."""

    @property
    def videos(self) -> tuple[IndexedVideo, ...]:
        """Those that can be searched."""
        return tuple(one for one in self.known.values() if isinstance(one, IndexedVideo))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The others."""
        return tuple(one for one in self.known.values() if isinstance(one, Failure))

    def __str__(self) -> str:
        hours = sum(video.duration for video in self.videos) / 3600
        moments = sum(video.moments for video in self.videos)
        rate = f", {self.encoded_hours * 3600 / self.seconds:.1f} s of video a second" if self.encoded else ""
        an_hour = f", {self.bytes / hours / 1e6:.2f} MB per hour of video" if hours else ""
        lines = [
            f"  {'videos':<9} {len(self.videos):>8}  {hours:.2f} h; {self.encoded} files read now, {self.removed} gone",
            f"  {'moments':<9} {moments:>8}  {hours * 3600 / max(1, moments):.1f} s on average",
            f"  {'failures':<9} {len(self.failures):>8}",
        ]
        for reason, count in Counter(failure.reason.partition(":")[0] for failure in self.failures).most_common():
            those = [one for one in self.failures if one.reason.partition(":")[0] == reason]
            shown = "; ".join(f"{printable(one.video)}{one.reason[len(reason) :]}" for one in those[:EXAMPLES])
            lines.append(f"{'':21}{count} x {reason}: {shown}" + ("; ..." if count > EXAMPLES else ""))
        lines.append(f"  {'index':<9} {self.bytes / 1e6:>8.2f}  MB in {self.folder}{an_hour}")
        lines.append(f"  {'time':<9} {self.seconds:>8.1f}  s{rate}")
        lines += [f"  note: no permission to look into {printable(folder)}" for folder in self.unseen]
        return "\n".join(lines)


def build_index(
    videos: str | Path,
    to: str | Path,
    model: str,
    *,
    splitting: Splitting = Splitting(),  # noqa: B008  # frozen
    store: str = "exact",
    batch: int = 16,
    workers: int = 1,
    device: str = "auto",
    retry: bool = False,
) -> Built:
    """Bring the index ``to`` in line with the videos below a folder, and say what it holds.

    Videos with the size and date that they were indexed with are left alone, failed ones too unless ``retry``.
    Killed at any point, the next run goes on and ends in the same index.  The ranks of torchrun share the videos.
    Raises ValueError for an index that was made with another model, splitting or store, one that another process
    is writing, and a folder in which there is no video or none of those that the index knows.
    """
    begun = time.monotonic()
    check_store(store)
    backbone = load_backbone(model, device)
    root, folder = Path(os.path.abspath(videos)), Path(os.path.abspath(to))
    with _alone(folder):
        plan = gather_objects(_Plan.make(root, folder, backbone, splitting, store, retry) if rank() == 0 else None)[0]
        settings = Settings(splitting, batch, workers)
        try:
            _encode(plan.todo[rank() :: world_size()], root, folder, backbone, settings)
        except KeyboardInterrupt:
            if world_size() == 1:  # what is done can be searched
                _fold(folder, plan.about, {})
            raise
        gather_objects(None)
        if rank() == 0:
            _fold(folder, plan.about, {found.path: found for found in plan.found})
        gather_objects(None)
    known = read_videos(folder)
    made = [known[found.path] for found in plan.todo if found.path in known]
    hours = sum(one.duration for one in made if isinstance(one, IndexedVideo)) / 3600
    seconds = time.monotonic() - begun
    return Built(folder, known, len(made), plan.removed, hours, seconds, size_on_disk(folder), plan.unseen)


@dataclass(frozen=True)
class _Plan:
    """What a run has to do."""

    about: About
    found: tuple[Found, ...]
    """All videos below the root, those that may not be opened among them."""
    todo: tuple[Found, ...]
    removed: int
    unseen: tuple[str, ...]

    @classmethod
    def make(
        cls, root: Path, folder: Path, backbone: Backbone, splitting: Splitting, store: str, retry: bool
    ) -> "_Plan":
        """Look at the folder and at what an earlier run left, which is folded in.  Raises ValueError as build_index."""
        if root.is_file():
            raise ValueError(f"{root} is a file; give the folder of videos that it lies in: {root.parent}")
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder of videos")
        unseen: list[str] = []
        found = _videos(root, unseen)
        before = read_about(folder)
        about = _about(root, backbone, splitting, store, before)
        if before is not None:
            differences = before.differs(about)
            if differences:
                raise ValueError(f"{folder} was made with {'; '.join(differences)}; choose another folder with --to")
            _fold(folder, before, None)
        known = read_videos(folder)
        names = {one.path for one in found}
        if known.keys() - names and not known.keys() & names:
            raise ValueError(
                f"{folder} knows {len(known)} videos and none of them is below {root}; give the folder that it was "
                "made of, or another one with --to"
            )
        if not found:
            raise ValueError(f"{root}: no videos (files that end in {', '.join(EXTENSIONS[:-1])})")
        write_about(folder, about)
        todo = [one for one in found if not one.reason and not _is_known(one, known.get(one.path), retry)]
        return cls(about, tuple(found), tuple(todo), len(known.keys() - names), tuple(unseen))


def _videos(root: Path, unseen: list[str]) -> list[Found]:
    """All videos below a folder in order of their names, which must be text."""
    found = []
    for one in find_files(root, False, unseen.append):
        name = one.path.replace(os.sep, "/")
        if name.lower().endswith(EXTENSIONS):
            readable = name.encode("utf-8", "backslashreplace").decode("utf-8")
            if readable != name:
                one = Found(readable, reason="name_not_text", message="its name is no text (UTF-8); rename it")
            found.append(one._replace(path=readable))
    return sorted(found)


def _is_known(found: Found, known: Known | None, retry: bool) -> bool:
    if known is None or (retry and isinstance(known, Failure)):
        return False
    return (known.size, known.modified) == (found.size, found.modified)


def _about(root: Path, backbone: Backbone, splitting: Splitting, store: str, before: About | None) -> About:
    watching = backbone.watching
    seen = {name: getattr(watching.sampling, name) for name in ("num_frames", "size", "short_side", "fit")}
    prefix = PREFIX if backbone.name.startswith(PREFIX) else ""
    path = Path(backbone.name.removeprefix(prefix))
    return About(
        id=before.id if before else uuid4().hex,
        root=str(root),
        model=prefix + str(path.absolute()) if path.exists() else backbone.name,
        weights=backbone.fingerprint,
        width=backbone.width,
        grounds=backbone.own is not None,
        watching=seen | {"rate": watching.rate},
        splitting=splitting.model_dump(),
        store=store,
    )


def _encode(todo: tuple[Found, ...], root: Path, folder: Path, backbone: Backbone, settings: Settings) -> None:
    """Encode this rank's videos into its journal."""
    files = {found.path: found for found in todo}
    journal = Journal(folder, rank())
    total = sum(found.size for found in todo)
    shares = dict.fromkeys(files, 0.0)
    try:
        with tqdm(total=total, desc="indexing", unit="B", unit_scale=True, disable=rank() > 0 or not todo) as bar:

            def progress(video: str, share: float) -> None:
                shares[video] += share
                bar.n = round(sum(share * files[video].size for video, share in shares.items()))
                bar.refresh()

            paths = [File(found.path, os.path.join(root, found.path)) for found in todo]
            for outcome in watch(paths, backbone, settings, progress):
                found = files[outcome.video]
                _note(journal, found, outcome)
                progress(outcome.video, 1.0 - shares[outcome.video])
    finally:
        journal.close()


def _note(journal: Journal, found: Found, outcome: Seen | Unseen) -> None:
    if isinstance(outcome, Unseen):
        journal.add(Failure(found.path, found.size, found.modified, outcome.reason))
        return
    index, bounds = outcome.index, outcome.bounds
    size = found.size, found.modified, len(bounds)
    known = IndexedVideo(found.path, index.duration, index.width, index.height, *size)
    journal.add(known, Rows(found.path, bounds, outcome.vectors))


def _fold(folder: Path, about: About, found: Mapping[str, Found] | None) -> None:
    """Bring what the journals hold into the store; with ``found``, forget all other videos.

    Done again from the start when it is interrupted: the journals go last.
    """
    known = read_videos(folder)
    journaled = {one.known.video: one for one in read_journals(folder, about.width)}
    known |= {video: one.known for video, one in journaled.items()}
    if found:
        known = {video: one for video, one in known.items() if video in found}
        known |= {
            one.path: Failure(one.path, 0, 0, f"{one.reason}: {one.message}") for one in found.values() if one.reason
        }
    added = [one.rows for video, one in journaled.items() if one.rows is not None and video in known]
    before = {video for video, one in read_videos(folder).items() if isinstance(one, IndexedVideo)}
    removed = {video for video in before if not isinstance(known.get(video), IndexedVideo)}
    if added or removed:
        store = open_store(about.store, folder, about.width, about.id)
        try:
            store.update(added, removed)
        finally:
            store.close()
    write_videos(folder, known)
    del added, journaled  # they map the files that go now
    clear_journals(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing the index; the system lets go of the lock when the process ends.

    What fails before there is an index leaves behind nothing that was not there.
    """
    if rank() > 0:
        yield
        return
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None  # type: ignore[assignment]
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    new = not lock.exists()
    with open(lock, "a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                    raise BlockingIOError  # one that failed took its lock away, and another has a new one
            except OSError:
                raise ValueError(f"{folder}: another process is indexing into it; wait for it to end") from None
        try:
            yield
        except BaseException:
            if new and not (folder / ABOUT).exists():
                with suppress(OSError):  # in a folder where something else was put meanwhile
                    lock.unlink()
                    for place in made:
                        place.rmdir()
            raise
