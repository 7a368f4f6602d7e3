"""Which files lie below a folder, and which of them may be opened: pipes, devices and links out of it may not."""

import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from svilm.data.shards import ShardError, place_of, split_path


class Found(NamedTuple):
    """A file that may be opened, or, with a ``reason``, one that is refused unopened."""

    path: str
    """Relative to the folder; bytes that are no text as Python spells them (surrogates)."""
    size: int = 0
    modified: int = 0
    """Nanoseconds since 1970."""
    reason: str = ""
    """A word to count by."""
    message: str = ""


def find_files(root: Path, follow_links: bool, unseen: Callable[[str], None]) -> Iterator[Found]:
    """All files below a folder, whatever they are called, each folder once.

    Links to folders are entered with ``follow_links`` only.  ``unseen`` is told the folders that cannot be listed.
    """
    folders, visited = [""], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            names = sorted(os.listdir(root / folder))
        except OSError:
            unseen(folder or ".")
            continue
        for name in names:
            path = os.path.join(folder, name)
            if _is_folder(root / path, follow_links):
                folders.append(path)
                if not (mimetypes.guess_type(name)[0] or "").startswith("video/"):
                    continue
            yield examine(root, path, follow_links)


def examine(root: Path, path: str, follow_links: bool) -> Found:
    """Whether the file at ``path`` below ``root`` may be opened; with ``follow_links`` also where a link leads to."""
    whole = os.path.join(root, path)
    inside = split_path(whole)
    if inside is not None:
        return _examine_member(root, path, inside[0], follow_links)
    try:
        real, status = os.path.realpath(whole), os.stat(whole)
    except PermissionError:
        return Found(path, reason="no_permission", message="no permission to look at this file")
    except (OSError, ValueError) as error:
        words = str(getattr(error, "strerror", None) or error).lower()
        message = f"a link that leads nowhere ({words})" if os.path.islink(whole) else words
        return Found(path, reason="not_found", message=message)
    if not follow_links and not Path(real).is_relative_to(os.path.realpath(root)):
        return Found(path, reason="outside_folder", message="a link out of the folder; --follow-links allows it")
    if not stat.S_ISREG(status.st_mode):
        return Found(path, reason="not_regular_file", message=f"{_kind(status.st_mode)}, not a file")
    return Found(path, status.st_size, status.st_mtime_ns)


def _examine_member(root: Path, path: str, shard: str, follow_links: bool) -> Found:
    """The same for a member of a tar: the tar must be allowed, and have it."""
    outer = examine(root, os.path.relpath(shard, root), follow_links)
    if outer.reason:
        return outer._replace(path=path)
    try:
        place = place_of(os.path.join(root, path))
    except ShardError as error:
        return Found(path, reason="damaged", message=str(error))
    except (OSError, ValueError) as error:
        return Found(path, reason="not_found", message=str(error))
    return Found(path, place.size, place.modified)


def _is_folder(path: Path, follow_links: bool) -> bool:
    with suppress(OSError):
        return stat.S_ISDIR((os.stat if follow_links else os.lstat)(path).st_mode)
    return False


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
