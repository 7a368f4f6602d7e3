"""Shards in video2dataset's layout become a manifest; every sample is accounted for."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from svilm.data.cut import Packing
from svilm.data.decode import index_video, read_frames
from svilm.data.manifest import Manifest
from svilm.data.pack import pack
from svilm.data.prepare import webdataset
from svilm.data.prepare.common import PrepareError, prepare

sys.path.append(str(Path(__file__).parents[1]))
from make_videos import read_numbers, write_video


def write_shard(path: Path, samples: dict[str, dict[str, Any]]) -> Path:
    """As video2dataset's writer does it: members of a sample one after the other, mp4, txt, json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in samples.items():
            for extension, value in parts.items():
                data = value if isinstance(value, bytes) else json.dumps(value, indent=4).encode()
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mode, info.uname = len(data), 0o444, "bigdata"
                tar.addfile(info, io.BytesIO(data))
    return path


def meta(key: str, **more: Any) -> dict[str, Any]:
    return {
        "url": "https://host/v", "caption": "from the json", "key": key, "status": "success", "error_message": None,
        "yt_meta_dict": None, **more,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    short, long = (write_video(tmp_path / f"{n}.mp4", n, gop=4).read_bytes() for n in (8, 14))
    failed = meta("000000002", status="failed_to_download", error_message="HTTP Error 404")
    write_shard(
        tmp_path / "v2d" / "00000.tar",
        {
            "000000000": {"mp4": short, "txt": b"a dog runs", "json": meta("000000000")},
            "000000001_00000": {"mp4": long, "txt": b"a cat", "json": meta("000000001_00000", clips=[[3.0, 4.4]])},
            "000000001_00001": {"mp4": short, "json": meta("000000001_00001", clips=[[5.0, 5.8]])},
            "000000002": {"txt": b"gone", "json": failed},
            "000000003": {"mp4": b"no video", "txt": b"a page", "json": meta("000000003")},
        },
    )
    write_shard(
        tmp_path / "v2d" / "00001.tar",
        {
            "000010000": {"mp4": long, "txt": b"", "json": meta("000010000", caption=None)},
            "000010001": {"m4a": b"sound", "webm": long, "txt": b"two  words"},
            "000010002": {"mp4": short, "txt": b"\xff\xfe", "json": b"{"},
        },
    )
    (tmp_path / "v2d" / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "v2d" / "00000_stats.json").write_text("{}")
    return tmp_path / "v2d"


def test_every_sample_is_accounted_for(folder: Path, tmp_path: Path) -> None:
    summary = prepare(webdataset.listing(folder), to=tmp_path / "m.jsonl", videos=folder)
    assert (summary.rows, summary.written, summary.refused, summary.undecodable) == (8, 4, 3, 1)
    losses = {reason: tally.examples[0] for (_, reason), tally in summary.losses.items()}
    assert "failed_to_download: HTTP Error 404" in losses["no video in the sample"]
    assert set(losses) == {"no video in the sample", "not_a_video", "no caption in the sample", "its json is none"}
    manifest = Manifest(tmp_path / "m.jsonl")
    assert [(entry.id, entry.video, entry.captions) for entry in manifest] == [
        ("000000000", "00000.tar/000000000.mp4", ("a dog runs",)),
        ("000000001_00000", "00000.tar/000000001_00000.mp4", ("a cat",)),
        ("000000001_00001", "00000.tar/000000001_00001.mp4", ("from the json",)),
        ("000010001", "00001.tar/000010001.webm", ("two words",)),
    ]
    assert manifest[0].nouns == (("dog",),)
    assert (folder / "00000.idx").is_file() and (folder / "00001.idx").is_file()
    index = index_video(manifest.path_of(manifest[1]))
    assert read_numbers(read_frames(index, [0, 13])) == [0, 13]


def test_ids_of_shards_in_several_folders(folder: Path, tmp_path: Path) -> None:
    one = folder / "00001.tar"
    (folder / "more").mkdir()
    one.rename(folder / "more" / "00000.tar")
    ids = [row.id for row in webdataset.listing(folder).read() if hasattr(row, "id")]
    assert ids[-1] == "more/000010001" and len(ids) == 5


def test_shards_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    data = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(data[: len(data) // 3])
    listing = webdataset.listing(folder)
    assert listing.notes[0].startswith("1 shards have no index")
    assert [row.reason for row in listing.read() if not hasattr(row, "id")] == ["no video in the sample", "no shard"]
    with pytest.raises(PrepareError, match="no shards"):
        webdataset.listing(tmp_path / "nowhere")


def test_our_own_shards_and_packing_of_others(folder: Path, tmp_path: Path) -> None:
    prepare(webdataset.listing(folder), to=tmp_path / "m.jsonl", videos=folder)
    packed = pack(tmp_path / "m.jsonl", tmp_path / "packed", Packing(short_side=16), workers=0)
    assert packed.written == 4
    prepare(webdataset.listing(tmp_path / "packed"), to=tmp_path / "again.jsonl", videos=tmp_path / "packed")
    assert [entry.captions for entry in Manifest(tmp_path / "again.jsonl")] == [
        entry.captions for entry in Manifest(tmp_path / "m.jsonl")
    ]
