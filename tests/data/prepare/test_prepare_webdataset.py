"""Shards in video2dataset's layout become a manifest; every sample is accounted for."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from svilm.data.cut import Packing
from svilm.data.decode import index_video, read_frames
from svilm.data.manifest import Manifest
from svilm.data.pack import pack
from svilm.data.prepare import webdataset
from svilm.data.prepare.common import Clip, PrepareError, Refusal, prepare
from svilm.data.shards import read_index

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


def captions_of(folder: Path) -> list[Any]:
    return [row.captions[0] if isinstance(row, Clip) else row.reason for row in webdataset.listing(folder).read()]


def simple(*captions: str, first: int = 0) -> dict[str, dict[str, Any]]:
    return {f"{first + k:04d}": {"mp4": b"video", "txt": text.encode()} for k, text in enumerate(captions)}


@pytest.mark.parametrize("writable", [True, False])
def test_an_index_of_an_older_tar_cuts_no_captions(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "s" / "0.tar", simple("a cat", "a dog runs fast", "a man"))
    assert captions_of(tmp_path / "s") == ["a cat", "a dog runs fast", "a man"]
    write_shard(shard, simple("a cat", "a dog", "a man", "one more"))  # the first and the last are where they were
    if not writable:
        monkeypatch.setattr(webdataset, "write_index", Mock(side_effect=PermissionError))
    assert captions_of(tmp_path / "s") == ["a cat", "a dog", "a man", "one more"]
    assert (len(read_index(shard) or ()) == 8) == writable


def test_a_right_index_is_left_alone(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s" / "0.tar", simple("a cat", "a dog"))
    captions_of(tmp_path / "s")
    index = shard.with_suffix(".idx")
    index.write_text(index.read_text().replace("v1.2 2", "v1.2 02"))  # as another program spells it
    captions_of(tmp_path / "s")
    assert index.read_text().startswith("v1.2 02")


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar", "2.tar"):
        shard = write_shard(tmp_path / "s" / name, simple("a cat", "a dog", "a man"))
        captions_of(tmp_path / "s")
    data = bytearray(shard.read_bytes())
    data[2048 + 3] ^= 4
    shard.write_bytes(data)
    (tmp_path / "s" / "1.tar").write_bytes(data[:2048])
    assert captions_of(tmp_path / "s") == ["a cat", "a dog", "a man", "a cat", "no shard"]
    assert (
        "1 shards do not end as tars usually do and may have been cut short: 1.tar"
        in webdataset.listing(tmp_path / "s").notes
    )


def test_keys_that_are_unique_in_their_shard_only(tmp_path: Path) -> None:
    for name in ("00000.tar", "00001.tar", "more/00000.tar"):
        write_shard(tmp_path / "s" / name, simple(f"a cat of {name}"))
    write_shard(tmp_path / "s" / "00002.tar", simple("a dog", first=9))
    found = [(row.id, row.captions[0]) for row in webdataset.listing(tmp_path / "s").read() if isinstance(row, Clip)]
    assert found == [
        ("0000", "a cat of 00000.tar"),
        ("00001/0000", "a cat of 00001.tar"),
        ("0009", "a dog"),
        ("more/0000", "a cat of more/00000.tar"),
    ]


def test_a_key_that_occurs_twice_in_a_shard(tmp_path: Path) -> None:
    """No caption of one sample comes to the video of another."""
    shard = write_shard(tmp_path / "s" / "0.tar", simple("old cat", "dog"))
    with tarfile.open(shard, "a") as tar:
        for extension, data in (("mp4", b"other"), ("txt", b"new cat")):
            info = tarfile.TarInfo(f"0000.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert captions_of(tmp_path / "s") == ["its video's name occurs again in the shard", "new cat", "dog"]


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("0000", "caf\udce9"):
            for extension in ("mp4", "txt"):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = 5
                tar.addfile(info, io.BytesIO(b"a cat"))
    rows = list(webdataset.listing(tmp_path).read())
    assert isinstance(rows[0], Clip) and rows[1] == Refusal(r"0.tar/caf\xe9", "its name is not UTF-8", r"'caf\udce9'")


def test_our_own_shards_and_packing_of_others(folder: Path, tmp_path: Path) -> None:
    prepare(webdataset.listing(folder), to=tmp_path / "m.jsonl", videos=folder)
    packed = pack(tmp_path / "m.jsonl", tmp_path / "packed", Packing(short_side=16), workers=0)
    assert packed.written == 4
    prepare(webdataset.listing(tmp_path / "packed"), to=tmp_path / "again.jsonl", videos=tmp_path / "packed")
    assert [entry.captions for entry in Manifest(tmp_path / "again.jsonl")] == [
        entry.captions for entry in Manifest(tmp_path / "m.jsonl")
    ]
