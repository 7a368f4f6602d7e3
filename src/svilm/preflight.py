"""What is looked at before the first step of a run, so that nothing is told after hours that is known before."""

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from svilm.config import Config, ConfigError, named_manifests, settings
from svilm.data.loader import Data
from svilm.data.manifest import Manifest, shared_clips
from svilm.models.dual import DualEncoderConfig
from svilm.runtime import rank, world_size
from svilm.tasks.common import gallery_of

LEARNED = ("data.manifest", "training.validation")
"""Settings that name lists which weights are learned or chosen by; a run is scored on all others."""


def open_manifests(run: Config, retrieved: Collection[str]) -> None:
    """Raises ConfigError for a manifest in the settings that is none.

    Those that the settings ``retrieved`` name are read to the end, since retrieval wants captions of all entries.
    """
    for name, path in named_manifests(run):
        try:
            manifest = Manifest(path)
            if name in retrieved:
                gallery_of(manifest)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None


def refuse_misfits(data: Data, model: DualEncoderConfig) -> None:
    """Raises ConfigError for settings that would stop the training of a dual encoder on clips at some batch."""
    tubelet, length = model.video.tubelet, data.language.max_length
    if length > model.text.positions:
        raise ConfigError(
            f"data.language.max_length = {length} must be at most model.text.positions = {model.text.positions}"
        )
    frames, share = data.sampling.num_frames, data.batch // world_size()
    wanted = [
        ("data.sampling.num_frames", frames, "the frames of model.video.tubelet", tubelet[0]),
        ("data.sampling.size", data.sampling.size, "the rows of model.video.tubelet", tubelet[1]),
    ]
    if data.paste.probability:
        wanted += [
            ("data.sampling.num_frames", frames, "data.paste.clip_window", data.paste.clip_window),
            ("data.batch over the ranks", share, "data.paste.block", data.paste.block or 1),
        ]
    for name, value, of, part in wanted:
        if value % part:
            raise ConfigError(f"{name} = {value} must be a multiple of {of} = {part}")


def refuse_too_few(data: Data, items: int) -> None:
    """Raises ConfigError for fewer items than one batch has."""
    if items < data.batch:
        raise ConfigError(
            f"{data.manifest} has {items} items to train on, fewer than data.batch = {data.batch}; "
            f"add --set data.batch={items} or less"
        )


def differences(before: Config, now: Config) -> list[tuple[str, Any, Any]]:
    """The settings in which two runs are not the same, with both values."""
    values = {name: value for name, value, _ in settings(before)}
    return [(name, values.get(name), value) for name, value, _ in settings(now) if values.get(name) != value]


def scored_lists(run: Config) -> dict[str, str]:
    """The lists that a run is scored on, by the settings that name them."""
    return {name: path for name, path in named_manifests(run) if name not in LEARNED}


def seen_in_training(run: Config) -> dict[str, int]:
    """Of each list that a run is scored on how many of its clips are parts of training clips, where any is."""
    learned = dict(named_manifests(run)).get(LEARNED[0])
    found = {path: _shared(learned, path) for path in scored_lists(run).values()} if learned else {}
    return {path: clips for path, clips in found.items() if clips}


def warn_of_seen(run: Config) -> None:
    """Say on stderr which test lists have training clips in them."""
    for path, clips in seen_in_training(run).items() if rank() == 0 else ():
        print(
            f"{path}: {clips} of {len(Manifest(path))} clips are training clips, as the scores will say",
            file=sys.stderr,
        )


def remark_on_lists(run: Config, chosen_by: str) -> str:
    """What a protocol has to say of lists that are no fair test: "" or words in capitals, a semicolon before each.

    ``chosen_by`` is the list by which the weights were chosen, empty for those of the last step.
    """
    learned = dict(named_manifests(run)).get(LEARNED[0])
    words = []
    if chosen_by and Manifest(chosen_by).header.split == "test":
        words.append("WEIGHTS CHOSEN ON A TEST SPLIT")
    if learned and Manifest(learned).header.split == "test":
        words.append("TRAINED ON A TEST SPLIT")
    for path, clips in seen_in_training(run).items():
        words.append(f"{clips} OF {len(Manifest(path))} CLIPS OF {Path(path).name} ARE TRAINING CLIPS")
    return "".join(f"; {each}" for each in words)


@contextmanager
def leaving_no_trace(folder: Path) -> Iterator[None]:
    """Files that are written into the folder go again where what follows is refused: the next try may be another."""
    before = set(folder.iterdir()) if folder.is_dir() else None
    try:
        yield
    except ValueError:
        if rank() == 0 and folder.is_dir():
            for file in set(folder.iterdir()) - (before or set()):
                if file.is_file():
                    file.unlink()
            if before is None and not any(folder.iterdir()):
                folder.rmdir()
        raise


@cache
def _shared(learned: str, tested: str) -> int:
    return len(shared_clips(Manifest(learned), Manifest(tested)))
