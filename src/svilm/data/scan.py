"""`svilm scan`: every file of a folder, or every video of a manifest, decoded once and judged.

Each file is decoded to its end in a process with limits (``sandbox``), so that nothing it does harms the scan.  A row
says what was found: how many frames of what size, or why it is refused.  Rows are kept: a second scan decodes only what
is new or has changed.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from svilm.data.decode import DecodeError, index_video, intact_frames
from svilm.data.ends import END_SLACK, slack
from svilm.data.files import Found, examine, find_files
from svilm.data.manifest import Entry, Manifest, ManifestError, write_manifest
from svilm.data.sandbox import Death, Limits, each
from svilm.data.shards import ShardError, open_bytes, place_of

SECONDS = 20.0
"""Processor time that any file may take to be decoded ..."""
BYTES_PER_SECOND = 20_000
"""... and a second more for each so many bytes of it, several times what the slowest honest files need."""
MAX_SECONDS = 24 * 3600.0
"""But never more: files with holes can be as large as they like."""
MEMORY_MB = 2048
EXAMPLES = 3

_BEGINNING = b'{"path": '  # of a row, by which one that was cut short is known from another file


@dataclass(frozen=True)
class Row:
    """What is known about a file; where ``ok`` is false, ``reason`` is a word to count by, ``message`` a sentence."""

    path: str
    """Relative to the folder that was scanned, or to the root of the manifest."""
    ok: bool
    """Whether each of its frames can be read, and nothing is known to be missing."""
    reason: str | None = None
    """As in ``container.Reason``; also "crashed", "too_slow", "outside_folder", "changed"."""
    frames: int | None = None
    """Frames that can be read."""
    width: int | None = None
    """Pixels of the upright picture."""
    height: int | None = None
    message: str | None = None
    rotation: int | None = None
    """Degrees clockwise by which stored pictures are turned upright."""
    mirrored: bool | None = None
    """Whether they are mirrored first."""
    start: float | None = None
    """The file's own time of its first frame, in seconds; all other times count from there."""
    duration: float | None = None
    """Seconds to the end of the last frame."""
    unreadable: tuple[tuple[float, float], ...] = ()
    """Stretches of a damaged video that cannot be read, in seconds, half-open."""
    size: int | None = None
    """Bytes."""
    modified: int | None = None
    """When the file was last changed, in nanoseconds since 1970."""
    sha256: str | None = None
    """Of the whole content, where it is a video."""

    def covers(self, start: float | None, end: float | None) -> bool:
        """Whether the clip [start, end) seconds (None: from the beginning, to the end) can be read."""
        if self.ok:
            duration = self.duration or 0.0
            late = slack(duration, self.frames or 1)
            return (start or 0.0) < duration and (end is None or end <= duration + late)
        if self.duration is None or end is None or end > self.duration + END_SLACK:
            return False  # a damaged video may have lost its end
        return all(end <= first or (start or 0.0) >= last for first, last in self.unreadable)


@dataclass(frozen=True)
class Scan:
    """All rows of a scan; ``str`` is the report."""

    out: Path
    rows: tuple[Row, ...]
    kept: int
    """Rows of files that have not changed since they were decoded."""
    unseen: tuple[str, ...]
    """Folders that could not be looked into."""

    @cached_property
    def by_path(self) -> Mapping[str, Row]:
        """Rows by the path of their file."""
        return {row.path: row for row in self.rows}

    def __str__(self) -> str:
        good = [row for row in self.rows if row.ok]
        frames, hours = sum(row.frames or 0 for row in good), sum(row.duration or 0.0 for row in good) / 3600
        lines = [
            f"  {'files':<11} {len(self.rows):>8}  judged, {self.kept} of them known from before; rows in {self.out}",
            f"  {'readable':<11} {len(good):>8}  videos with {frames} frames, {hours:.2f} h",
            f"  {'refused':<11} {len(self.rows) - len(good):>8}",
        ]
        for reason, count in Counter(row.reason for row in self.rows if not row.ok).most_common():
            those = [row for row in self.rows if row.reason == reason]
            shown = "; ".join(f"{printable(row.path)}: {row.message}" for row in those[:EXAMPLES])
            lines.append(f"{'':14}{count} x {reason}: {shown}" + ("; ..." if count > EXAMPLES else ""))
        lines += [f"  note: no permission to look into {printable(folder)}" for folder in self.unseen]
        return "\n".join(lines)


def scan(
    source: str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    seconds: float = SECONDS,
    memory_mb: int = MEMORY_MB,
    follow_links: bool = False,
    fresh: bool = False,
) -> Scan:
    """Judge all files below a folder, or all videos of a manifest, and write one row for each to ``out``.

    ``workers`` processes share the work.  Each file may take ``seconds`` of processor time, one more for each 20 kB of
    it, and ``memory_mb``.  Links that lead out of the folder are refused unless ``follow_links``.  Rows of an earlier
    scan are kept for files with the same size and date, unless ``fresh``; so a scan that was interrupted goes on.
    Raises ValueError when ``out`` is something else than a scan.
    """
    source, out = Path(source), Path(os.path.abspath(out))
    unseen: list[str] = []
    if source.is_dir():
        root = Path(os.path.abspath(source))
        found = list(find_files(root, follow_links, unseen.append))
    else:
        manifest = Manifest(source)
        root, found = manifest.root, list(_listed(manifest, follow_links))
    part = out.with_name(out.name + ".part")
    ours = {os.path.relpath(path, root) for path in (out, part)}
    found = [file for file in found if file.path not in ours]
    if fresh:
        _refuse_foreign(out)
    known = {} if fresh else {row.path: row for path in (out, part) for row in read_rows(path, missing_ok=True)}

    rows: list[Row] = []
    tasks: list[_Task] = []
    for file in found:
        row = known.get(file.path)
        if file.reason:
            rows.append(Row(file.path, False, file.reason, message=file.message))
        elif row is not None and (row.size, row.modified) == (file.size, file.modified):
            rows.append(row)
        else:
            tasks.append(_Task(str(root), file))
    kept = sum(row.size is not None for row in rows)

    def limits(task: _Task) -> Limits:
        return Limits(min(seconds + task.file.size / BYTES_PER_SECOND, MAX_SECONDS), memory_mb)

    out.parent.mkdir(parents=True, exist_ok=True)
    _write_rows(part, rows)
    with open(part, "a", encoding="ascii") as journal, tqdm(total=len(tasks), desc="decoding", unit="file") as bar:
        for task, result in each(_look, tasks, workers=min(workers, len(tasks)), limits=limits):
            row = _row(task, result)
            rows.append(row)
            journal.write(_line(row))
            journal.flush()
            bar.update()
    rows.sort(key=lambda row: row.path)
    _write_rows(out, rows)
    part.unlink()
    return Scan(out, tuple(rows), kept, tuple(unseen))


def read_rows(path: Path, missing_ok: bool = False) -> Iterator[Row]:
    """The rows of a scan.  Raises ValueError for a file that is none; a last row cut short is left out."""
    if missing_ok and not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") and (number > 1 or line.startswith(_BEGINNING[: len(line)])):
                return
            try:
                data = json.loads(line)
                data["unreadable"] = tuple((first, last) for first, last in data["unreadable"])
                yield Row(**data)
            except (ValueError, TypeError, KeyError, RecursionError):
                raise ValueError(f"{path}: line {number} is not a row of a scan; give --out another name") from None


def _refuse_foreign(out: Path) -> None:
    """Raises ValueError for a file that does not begin as a scan does; what is damaged further on may be replaced."""
    if out.is_file():
        with open(out, "rb") as file:
            if not _BEGINNING.startswith(file.read(len(_BEGINNING))):
                raise ValueError(f"{out}: line 1 is not a row of a scan; give --out another name")


def changed_files(root: str | Path, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Path and what is different of each readable video that is no longer as it was when it was scanned.

    The content is compared, so that a change is found even where size and date are the same.
    """
    for row in rows:
        if not row.ok:
            continue
        path = os.path.join(root, row.path)
        try:
            place = place_of(path)
            if not stat.S_ISREG(os.stat(place.file).st_mode):
                yield row.path, "is no file any more"
            elif place.size != row.size:
                yield row.path, f"has {place.size} bytes instead of {row.size}"
            elif _digest(path) != row.sha256:
                yield row.path, "has the same size but another content"
        except (OSError, ShardError) as error:
            yield row.path, f"cannot be read: {getattr(error, 'strerror', None) or error}"


def write_verified(manifest: Manifest, scanned: Scan, to: Path, *, allow_missing: bool = False) -> dict[str, int]:
    """Write the entries whose clip can be read to its end, and return how many were left out for which reason.

    Of a damaged video those clips stay that its unreadable stretches do not touch.  Raises ManifestError when nothing
    is left, and when a test split would shrink without ``allow_missing``; with it, the header names what was struck.
    """
    lost: list[tuple[Entry, str]] = []
    left: list[int] = []
    for number, entry in enumerate(manifest):
        row = scanned.by_path[entry.video]
        if row.covers(entry.start, entry.end):
            left.append(number)
        else:
            lost.append((entry, row.reason or "outside_clip"))
    struck = tuple(f"{entry.id}: {reason}" for entry, reason in lost)
    header, complete = manifest.header, manifest.header.split == "train"
    if lost and not complete and not allow_missing:
        more = f", and {len(struck) - 10} more" if len(struck) > 10 else ""
        raise ManifestError(
            f"{manifest.path}: {len(struck)} of {len(manifest)} {header.split} clips cannot be read: "
            f"{'; '.join(struck[:10])}{more}; replace their videos, or strike them in the open with --allow-missing"
        )
    if not left:
        raise ManifestError(f"{manifest.path}: none of its {len(manifest)} clips can be read; see {scanned.out}")
    header = replace(header, root=_root_seen_from(manifest, to), struck=(*header.struck, *(() if complete else struck)))
    write_manifest(to, header, (manifest[number] for number in left))
    return dict(Counter(reason for _, reason in lost))


def _listed(manifest: Manifest, follow_links: bool) -> Iterator[Found]:
    """The videos that a manifest names, each once."""
    for entry in {entry.video: entry for entry in manifest}.values():
        try:
            manifest.path_of(entry)
        except ManifestError:
            yield Found(entry.video, reason="outside_folder", message=f"lies outside {manifest.root}")
        else:
            yield examine(manifest.root, entry.video, follow_links)


# What becomes of a file


class _Task(NamedTuple):
    """A file to decode, and how it was when it was found."""

    root: str
    file: Found


def _row(task: _Task, result: Any) -> Row:
    if isinstance(result, Death):
        result = {"ok": False, "reason": result.reason, "message": result.message}
    result["unreadable"] = tuple((first, last) for first, last in result.get("unreadable", ()))
    return Row(path=task.file.path, size=task.file.size, modified=task.file.modified, **result)


def _look(task: _Task) -> dict[str, Any]:
    """Decode a file to its end.  This is what runs in the sandbox."""
    path = os.path.join(task.root, task.file.path)
    try:
        seen = _decode(path)
        place = place_of(path)
    except DecodeError as error:
        return {"ok": False, "reason": error.reason, "message": error.message}
    except MemoryError:
        return {"ok": False, "reason": "too_large", "message": "it takes more memory than is allowed"}
    except OSError as error:
        return {"ok": False, "reason": "changed", "message": f"it vanished while it was read ({error.strerror})"}
    if (place.size, place.modified) != (task.file.size, task.file.modified):
        return {"ok": False, "reason": "changed", "message": "it was written to while it was read; scan it again"}
    return seen


def _decode(path: str) -> dict[str, Any]:
    index = index_video(path)
    intact = intact_frames(index)
    ends = [*index.seconds[1:].tolist(), index.duration]
    unreadable: list[tuple[float, float]] = []
    for good, first, last in zip(intact.tolist(), index.seconds.tolist(), ends, strict=True):
        if not good and unreadable and unreadable[-1][1] == first:
            unreadable[-1] = unreadable[-1][0], last
        elif not good:
            unreadable.append((first, last))
    frames, lost = int(intact.sum()), int((~intact).sum())
    message = f"{lost} of {len(index)} frames cannot be decoded" if lost else index.damage
    return {
        "ok": message is None,
        "reason": message and "damaged",
        "frames": frames,
        "width": index.width,
        "height": index.height,
        "message": message,
        "rotation": index.orientation.rotation,
        "mirrored": index.orientation.mirrored,
        "start": index.start_seconds,
        "duration": index.duration,
        "unreadable": unreadable,
        "sha256": _digest(path),
    }


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open_bytes(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# Writing


def printable(path: str) -> str:
    """A path as it may stand in a terminal: names may hold anything."""
    return path if path.isprintable() else ascii(path)


def _line(row: Row) -> str:
    """A row as JSON in ASCII, so that names which are no text keep their bytes (as Python spells them)."""
    return json.dumps({f.name: getattr(row, f.name) for f in fields(row)}) + "\n"


def _write_rows(out: Path, rows: Iterable[Row]) -> None:
    fresh = out.with_name(out.name + ".new")
    with open(fresh, "w", encoding="ascii") as file:
        file.writelines(map(_line, rows))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, out)


def _root_seen_from(manifest: Manifest, to: Path) -> str:
    """The folder of the videos as a manifest at ``to`` has to name it."""
    same = Path(os.path.abspath(to)).parent == Path(os.path.abspath(manifest.path)).parent
    return manifest.header.root if same else str(manifest.root)
