"""Where the data behind the tables lies: below a data root, or in a drawn world."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svilm.data.manifest import Manifest, merge_manifests
from svilm.data.prepare.common import Listing, PrepareError, prepare


@dataclass(frozen=True)
class Source:
    """An annotation file with its reader (a module of ``svilm.data.prepare``), and the folder of its videos."""

    reader: str
    annotations: str
    videos: str
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Options that are files below the root."""

    def listing(self, root: Path) -> Listing:
        """What the annotation file lists.  Raises PrepareError where it is missing or not of the form."""
        module = importlib.import_module(f"svilm.data.prepare.{self.reader}")
        files = {name: root / path for name, path in self.files.items()}
        listing: Listing = module.listing(root / self.annotations, **self.options, **files)
        return listing


Sources = Mapping[str, Source | tuple[str, ...]]
"""Data by name; a tuple joins several."""

_QA = {"train": "train_qa.json", "test": "test_qa.json"}
_AVA = {
    split: Source("ava", f"ava/ava_{split}_v2.2.csv", "ava/videos", {"starts_at": 900.0}, {"boxes": f"ava/{boxes}"})
    for split, boxes in (("train", "ava_train_predicted_boxes.csv"), ("val", "ava_val_predicted_boxes.csv"))
}


def _folds(name: str, reader: str, lists: str, videos: str) -> dict[str, Source]:
    return {f"{name}-{split}": Source(reader, lists, videos, {"fold": 1, "split": split}) for split in _QA}


REAL: Sources = {
    "videocc": Source("videocc", "videocc/video_cc_public.csv", "videocc/videos"),
    "activitynet-captions": Source("activitynet_captions", "activitynet_captions/train.json", "activitynet/videos"),
    "videocc-activitynet": ("videocc", "activitynet-captions"),
    "howto100m": Source("howto100m", "howto100m/caption.json", "howto100m/videos"),
    "msrvtt-train": Source("msrvtt", "msrvtt", "msrvtt/videos", {"split": "train"}),
    "msrvtt-test": Source("msrvtt", "msrvtt", "msrvtt/videos", {"split": "test"}),
    **{f"msrvtt-qa-{split}": Source("msrvtt_qa", f"msrvtt_qa/{file}", "msrvtt/videos") for split, file in _QA.items()},
    **{f"msvd-qa-{split}": Source("msvd_qa", f"msvd_qa/{file}", "msvd/videos") for split, file in _QA.items()},
    **_folds("ucf101", "ucf101", "ucf101", "ucf101/videos"),
    **_folds("hmdb51", "hmdb51", "hmdb51", "hmdb51/videos"),
    **{
        f"activitynet-{subset}": Source(
            "activitynet", "activitynet/activity_net.v1-3.min.json", "activitynet/videos", {"subset": subset}
        )
        for subset in ("training", "validation")
    },
    **{f"ava-{split}": source for split, source in _AVA.items()},
}
"""The layout of a data root, as docs/data.md shows it.  AVA's videos are those cut to seconds 900 to 1800."""

_WORLD_SETS: dict[str, Source | tuple[str, ...]] = {
    "videocc": Source("videocc", "videocc/video_cc_public.csv", "videos"),
    "msrvtt-train": Source("msrvtt", "msrvtt", "videos", {"split": "train"}),
    "msrvtt-test": Source("msrvtt", "msrvtt", "videos", {"split": "test"}),
    **{f"msrvtt-qa-{split}": Source("msrvtt_qa", f"msrvtt_qa/{file}", "videos") for split, file in _QA.items()},
    **_folds("ucf101", "ucf101", "ucf101", "ucf101"),
    **_folds("hmdb51", "hmdb51", "hmdb51", "hmdb51"),
    **{
        f"activitynet-{subset}": Source(
            "activitynet", "activitynet/activity_net.v1-3.min.json", "untrimmed", {"subset": subset}
        )
        for subset in ("training", "validation")
    },
    **{
        f"ava-{split}": Source(
            "ava", f"ava/ava_{split}_v2.2.csv", "videos", {}, {"boxes": f"ava/ava_{split}_predicted_boxes.csv"}
        )
        for split in ("train", "val")
    },
}
WORLD: Sources = {
    **_WORLD_SETS,
    # the drawn world stands in for every corpus with what it has
    "videocc-activitynet": _WORLD_SETS["videocc"],
    "activitynet-captions": _WORLD_SETS["videocc"],
    "howto100m": _WORLD_SETS["videocc"],
    **{f"msvd-qa-{split}": _WORLD_SETS[f"msrvtt-qa-{split}"] for split in _QA},
}
"""The same names in a drawn world, which has one corpus and one set of questions."""


def manifest_of(name: str, sources: Sources, root: Path, to: Path) -> Path:
    """The manifest of some data, prepared into ``to`` when it is not there yet.

    Raises PrepareError that names what is missing, or where the manifest that is there is of other data.
    """
    path = to / f"{name}.jsonl"
    if path.is_file():
        videos = Manifest(path).root
        if not (videos.is_relative_to(root.absolute()) or videos.resolve().is_relative_to(root.resolve())):
            raise PrepareError(f"{path} is of the videos in {videos}, not of those in {root}; choose another --to")
        return path
    source = sources[name]
    if isinstance(source, tuple):
        merge_manifests([manifest_of(part, sources, root, to) for part in source], path)
    else:
        drawn = (root / "world.json").is_file()  # just written by ourselves: not to be looked through
        prepare(source.listing(root), to=path, videos=root / source.videos, check="none" if drawn else "index")
    return path
