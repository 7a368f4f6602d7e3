"""Random training clips from shards, our packed ones and video2dataset's own, against the original files.

Each reading is that of a first sight, as in an epoch over millions of clips: the file is opened, its frames are listed,
32 of them read, scaled and cut to a square.
"""

import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from svilm.bench.frame import How, Row, higher, not_measured, seconds_of
from svilm.bench.material import film
from svilm.data.cut import H264, Packing
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.data.pack import pack
from svilm.data.prepare import webdataset
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling, load_clip
from svilm.data.shards import place_of

FRAMES, SIDE, SECONDS = 32, 224, 10
WEB, SMALL = (1280, 720), (340, 256)
"""What a downloaded video looks like, and a clip as those of Kinetics are passed on; key frames 250 frames apart."""
GRAIN = 6.0
"""Of the small one, so that 10 s of it take 650 kB: two real clips of that size have 640 and 1,350, the large one's
1,900 are those of a real one anyway."""
GOP = 250
FPS = 8
"""The lowest whole number at which fewer than one of 32 uniform frames of 10 s is the one before once more (0.9 of a
clip's 32 on average; 1.1 at 7, 3.4 at 4, 0.1 at the original's 30)."""
GPU = "clips per second of a training step on one GPU"
HEIGHT = 256
"""That video2dataset is asked to scale to."""


def rows(how: How) -> Iterator[Row]:
    """Clips per core and second from packed shards against a large and a small original, and from video2dataset's."""
    sampling = Sampling(num_frames=FRAMES, size=SIDE)
    (wide, high), small, seconds = ((160, 120), (96, 64), 2) if how.quick else (WEB, SMALL, SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        web = _listed(film(folder / "web.mp4", wide, high, GOP, seconds))
        theirs = _prepared(video2dataset(folder / "web.mp4", folder / "video2dataset", "a clip"))
        sets = {"packed": _packed(web, Packing()), "video2dataset's shards": theirs}
        found = list(_against(web, sets, f"{wide}x{high}", sampling, how))
        yield from found
        yield not_measured("cores that feed one GPU from packed shards", f"it is ({GPU}) / {found[0].ours:.1f}")
        kept = _listed(film(folder / "small.mp4", *small, GOP, seconds, GRAIN))
        ways = {
            "packed": Packing(),
            f"packed at {FPS} frames a second": Packing(fps=FPS),
            "packed as H.264": Packing(codec=H264()),
        }
        sets = {name: _packed(kept, packing) for name, packing in ways.items()}
        yield from _against(kept, sets, "{}x{}".format(*small), sampling, how)


def _against(original: Path, sets: dict[str, Path], name: str, sampling: Sampling, how: How) -> Iterator[Row]:
    """A row for each way to store the clip: clips per second against those from the original, all in turn."""
    paths = [original, *sets.values()]
    theirs, *ours = seconds_of([clip_reader(Manifest(path), sampling) for path in paths], how)
    before, *after = (_kilobytes(path) for path in paths)
    for title, mine, size in zip(sets, ours, after, strict=True):
        note = f"{size:,.0f} kB instead of {before:,.0f}; {os.cpu_count()} cores here"
        yield higher(
            f"training clips per core and second, {title} against {name}", 1 / mine, 1 / theirs, "clips/s", note
        )


def clip_reader(manifest: Manifest, sampling: Sampling) -> Callable[[], object]:
    """Reads the next random training clip of a manifest at each call, as a worker of the loader does at first sight."""
    rng, turn = np.random.default_rng(0), 0

    def read() -> object:
        nonlocal turn
        entry = manifest[turn % len(manifest)]
        turn += 1
        return load_clip(manifest.path_of(entry), entry.start, entry.end, sampling, rng)

    return read


def video2dataset(source: Path, folder: Path, caption: str) -> Path:
    """Write a shard of one video as video2dataset does with `ResolutionSubsampler: {resize_mode: scale, height: 256}`.

    The pictures are scaled and encoded with the defaults of the ffmpeg command (bicubic; libx264's preset medium, crf
    23, key frames up to 250 frames apart), the tar is WebDataset's: members of a sample by name, times to the
    microsecond in headers of their own.  Returns the folder.
    """
    folder.mkdir()
    key = f"{0:09d}"
    about = {"url": source.name, "caption": caption, "key": key, "status": "success", "error_message": None}
    data = json.dumps({**about, "yt_meta_dict": None}, indent=4).encode()
    with tarfile.open(folder / "00000.tar", "w|") as tar:
        for extension, content in (("json", data), ("mp4", _scaled(source)), ("txt", caption.encode())):
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size, member.mode, member.mtime = len(content), 0o444, time.time()
            member.uname = member.gname = "bigdata"
            tar.addfile(member, io.BytesIO(content))
    stats = {"count": 1, "successes": 1, "failed_to_download": 0, "failed_to_subsample": 0}
    (folder / "00000_stats.json").write_text(json.dumps({**stats, "status_dict": {"success": 1}}, indent=4))
    return folder


def _scaled(source: Path) -> bytes:
    """The mp4 file that `ffmpeg -i SOURCE -vf scale=-2:256` writes."""
    target = io.BytesIO()
    with av.open(str(source)) as old, av.open(target, "w", format="mp4") as new:
        shown = old.streams.video[0]
        stream: Any = new.add_stream("libx264", rate=shown.average_rate)
        stream.width, stream.height = 2 * round(HEIGHT * shown.width / shown.height / 2), HEIGHT
        stream.thread_type = "FRAME"  # as there; PyAV would cut pictures into slices
        for frame in old.decode(shown):
            picture = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            picture.pict_type = PictureType.NONE  # or it would be a key frame where the old one was
            new.mux(stream.encode(picture))
        new.mux(stream.encode())
    return target.getvalue()


def _listed(video: Path) -> Path:
    """The manifest of one video."""
    path = video.with_suffix(".jsonl")
    write_manifest(path, Header("bench", ".", 1), [Entry("clip", video.name, ("a clip",), ((),))])
    return path


def _prepared(folder: Path) -> Path:
    """The manifest of a folder of shards, as `svilm prepare webdataset` makes it."""
    path = folder.with_suffix(".jsonl")
    prepare(webdataset.listing(folder), to=path, videos=folder)
    return path


def _packed(manifest: Path, packing: Packing) -> Path:
    folder = manifest.with_name(f"{manifest.stem}-{packing.codec.codec}-{packing.fps:g}")
    return pack(manifest, folder, packing, workers=0).manifest


def _kilobytes(manifest: Path) -> float:
    """Size of the videos of a manifest."""
    whole = Manifest(manifest)
    return sum(place_of(str(whole.path_of(entry))).size for entry in whole) / 1000
