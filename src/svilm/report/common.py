"""What the parts of a report share: the files of a run, a part that is absent, an entry's clip."""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError

from svilm import draw
from svilm.config import ConfigError
from svilm.data.decode import DecodeError
from svilm.data.manifest import Entry, Manifest
from svilm.data.sample import Clip, Sampling, load_clip
from svilm.engine.logbook import read_metrics
from svilm.run import Run, load_run

T = TypeVar("T")
FILM_FRAMES, FILM_SIDE = 12, 112
OWN_LISTS = frozenset({"folder", "webdataset"})
"""Sources of manifests that no published list stands behind."""
Number = int | float
"""As JSON has them."""


@dataclass(frozen=True)
class Absent:
    """Stands in place of a part that cannot be shown; ``why`` is one line."""

    why: str


def attempt(build: Callable[[], T]) -> T | Absent:
    """What ``build`` gives, or, where files are missing, moved or do not fit, the reason in one line."""
    try:
        return build()
    except (ValueError, OSError, LookupError, RuntimeError, DecodeError, SafetensorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Absent(lines[-1] if lines else type(error).__name__)


@dataclass(frozen=True)
class Files:
    """A run folder as read: its settings and whatever it holds of scores, protocols, environment and log."""

    folder: Path
    run: Run
    scores: Mapping[str, Number]
    protocols: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    log: Sequence[Mapping[str, Number]]

    @property
    def name(self) -> str:
        """The folder's own name after that of the folder around it."""
        return "/".join(self.folder.resolve().parts[-2:])

    @property
    def short(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name


def read_files(folder: Path) -> Files:
    """Everything that a run folder holds in JSON.

    Raises ConfigError when it is no run folder and ValueError for a file that is not what its name says.
    """
    run = load_run(folder)
    log = read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    scores, protocols, environment = (_json(folder / f"{name}.json") for name in ("scores", "protocols", "environment"))
    return Files(folder, run, scores, protocols, environment, log)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); `svilm evaluate` writes it anew") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold one JSON object; `svilm evaluate` writes it anew")
    return data


def fixed(value: float, digits: int) -> str:
    """A number with so many digits after the point, and a real minus sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def open_manifest(path: str, otherwise: str) -> Manifest:
    """The manifest at ``path``.  Raises ConfigError with the words ``otherwise`` where the run names none."""
    if not path:
        raise ConfigError(otherwise)
    return Manifest(path)


def still(manifest: Manifest, entry: Entry, sampling: Sampling) -> Clip:
    """The clip of an entry as evaluation sees it."""
    return load_clip(manifest.path_of(entry), entry.start, entry.end, sampling, None, centred=bool(entry.boxes))


def test_manifest(run: Run) -> Manifest:
    """What the run was tested on: the test manifest of its task, or that of retrieval.

    Raises ConfigError when it names none.
    """
    return open_manifest(
        getattr(run.task, "test", "") or run.retrieval.manifest, "No test manifest in the run (--test)."
    )


def without_workers(run: Run) -> Run:
    """The run read in this process, where errors arrive as they were raised."""
    return run.model_copy(update={"data": run.data.model_copy(update={"workers": 0})})


@dataclass(frozen=True)
class Film:
    """The frames of a clip in one picture, side by side, to be shown one after the other."""

    uri: str
    frames: int
    seconds: float


def film(manifest: Manifest, entry: Entry, sampling: Sampling) -> Film:
    """The clip of an entry, as evaluation sees it, lasting as long as it does (but 1 to 4 seconds)."""
    clip = still(manifest, entry, sampling)
    frames = clip.frames.numpy()
    lasting = float(clip.seconds[-1] - clip.seconds[0]) * len(frames) / max(1, len(frames) - 1)
    frames = frames[draw.evenly(len(frames), FILM_FRAMES)]
    picture = draw.strip(draw.resized(frames, FILM_SIDE))
    return Film(draw.as_data_uri(picture), len(frames), float(np.clip(lasting, 1.0, 4.0)))


def varied(items: Sequence[T], keys: Callable[[T], Iterable[Hashable]], count: int) -> list[T]:
    """At most ``count`` of the items: one after the other that which has least in common with those before it.

    What an item has in common is counted by its ``keys``; the first in the list wins between equals.
    """
    used, left = Counter[Hashable](), dict(enumerate(items))
    found: list[T] = []
    while left and len(found) < count:
        number = min(left, key=lambda number: sum(used[key] for key in keys(left[number])))
        found.append(left.pop(number))
        used.update(keys(found[-1]))
    return found


def is_drawn(manifest: Manifest) -> bool:
    """Whether the videos are those of a drawn world (`svilm world`), in whatever benchmark's form it lists them."""
    return any((folder / "world.json").is_file() for folder in (manifest.root, manifest.root.parent))


def list_in_words(run: Run) -> str:
    """What the count of scored items is a count of: a benchmark's official list, or just the list.

    It is just the list for videos of one's own, drawn ones, and where the manifest cannot be read.
    """
    test = attempt(lambda: test_manifest(run))
    if isinstance(test, Absent) or is_drawn(test) or OWN_LISTS & set(test.header.source.split("+")):
        return "the list"
    return "the official list"


def caption_of(entry: Entry) -> str:
    """The first caption of an entry."""
    return entry.captions[0] if entry.captions else "(no caption)"
