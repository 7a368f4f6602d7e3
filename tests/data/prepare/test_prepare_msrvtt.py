"""MSR-VTT: three protocols from two kinds of archives, splits that never mix."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svilm.data.prepare import Protocol, Split, msrvtt
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare

Text = Callable[[str, str | bytes], Path]
SPLITS = ["train", "train", "train", "validate", "test", "test", "test"]  # of video0 to video6
TEST = 'key,vid_key,video_id,sentence\nret0,msr5,video5,a dog runs\nret1,msr6,video6,"a cat, asleep"\n'


def dump() -> dict[str, Any]:
    videos = [{"video_id": f"video{k}", "category": 1, "split": split, "id": k} for k, split in enumerate(SPLITS)]
    sentences = [
        {"video_id": f"video{k}", "caption": f"a man does thing {j}", "sen_id": 10 * k + j}
        for j in (0, 1)
        for k in range(7)
    ]
    return {"info": {}, "videos": videos, "sentences": sentences}


def other_dump() -> dict[str, Any]:
    return {"annotations": [{"image_id": s["video_id"], "caption": s["caption"]} for s in dump()["sentences"]]}


@pytest.fixture
def archive(text: Text, tmp_path: Path) -> Path:
    text("MSRVTT_data.json", json.dumps(dump()))
    text("MSRVTT_JSFUSION_test.csv", TEST)
    text("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo1\nvideo3\nvideo4\n")
    return tmp_path


def ids(listing: Listing) -> list[str]:
    return [row.id for row in listing.read() if isinstance(row, Clip)]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_the_test_split_has_one_caption_a_video(archive: Path, text: Text, delimiter: str) -> None:
    rows = ["key,vid_key,video_id,sentence", "ret0,msr5,video5,a dog runs", "ret1,msr6,video6,a cat sleeps"]
    text("MSRVTT_JSFUSION_test.csv", "\r\n".join(rows).replace(",", delimiter))
    listing = msrvtt.listing(archive, split="test")
    assert [row.captions for row in listing.read() if isinstance(row, Clip)] == [
        ("a dog runs",),
        ("a cat sleeps",),
    ]
    assert ids(listing) == ["video5", "video6"]
    assert (listing.split, listing.protocol, listing.published) == ("test", "msrvtt-1ka-9k test", 1000)


def test_a_comma_in_a_sentence(archive: Path) -> None:
    assert [row.captions for row in msrvtt.listing(archive, split="test").read() if isinstance(row, Clip)] == [
        ("a dog runs",),
        ("a cat, asleep",),
    ]


@pytest.mark.parametrize(
    ("protocol", "split", "expected"),
    [
        ("msrvtt-1ka-9k", "train", [0, 1, 3, 4]),
        ("msrvtt-1ka-7k", "train", [0, 1, 2, 3]),
        ("msrvtt-1ka-7k", "test", [5, 6]),
        ("msrvtt-full", "train", [0, 1, 2]),
        ("msrvtt-full", "val", [3]),
        ("msrvtt-full", "test", [4, 5, 6]),
    ],
)
def test_splits(archive: Path, protocol: Protocol, split: Split, expected: list[int]) -> None:
    listing = msrvtt.listing(archive, protocol=protocol, split=split)
    assert ids(listing) == [f"video{k}" for k in expected]
    if not (protocol.startswith("msrvtt-1ka") and split == "test"):
        assert all(len(row.captions) == 2 for row in listing.read() if isinstance(row, Clip))


def test_a_missing_9k_list_is_made_as_it_was(archive: Path) -> None:
    (archive / "MSRVTT_train.9k.csv").unlink()
    listing = msrvtt.listing(archive)
    assert ids(listing) == [f"video{k}" for k in range(5)]  # all that are not in the test list
    assert "no MSRVTT_train.9k.csv" in listing.notes[0]


def test_test_videos_in_a_training_list_are_refused(archive: Path, text: Text) -> None:
    text("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo5\nvideo99\n")
    found = list(msrvtt.listing(archive).read())
    assert [(row.place, row.reason) for row in found if isinstance(row, Refusal)] == [
        ("line 3", "a test video in a training list"),
        ("line 4", "no caption in MSRVTT_data.json"),
    ]


def test_the_other_archive(text: Text, tmp_path: Path) -> None:
    (tmp_path / "annotation").mkdir()
    lists = tmp_path / "high-quality" / "structured-symlinks"
    lists.mkdir(parents=True)
    (tmp_path / "annotation" / "MSR_VTT.json").write_text(json.dumps(other_dump()))
    (lists / "test_list_full.txt").write_text("video4\nvideo5\n")
    (lists / "train_list_jsfusion.txt").write_text("video0\nvideo2\n")
    text("MSRVTT_JSFUSION_test.csv", TEST)
    assert ids(msrvtt.listing(tmp_path, protocol="msrvtt-full", split="test")) == ["video4", "video5"]
    assert ids(msrvtt.listing(tmp_path)) == ["video0", "video2"]
    with pytest.raises(PrepareError, match="does not say which video is of which split"):
        ids(msrvtt.listing(tmp_path, protocol="msrvtt-full", split="train"))


def test_empty_captions_are_told(archive: Path, text: Text) -> None:
    data = dump()
    data["sentences"][0]["caption"] = " "
    data["sentences"][1]["caption"] = None
    text("MSRVTT_data.json", json.dumps(data))
    listing = msrvtt.listing(archive)
    assert "2 empty captions" in listing.notes[0]
    assert {row.id: len(row.captions) for row in listing.read() if isinstance(row, Clip)}["video0"] == 1


def test_what_is_not_there(archive: Path, tmp_path: Path, text: Text) -> None:
    with pytest.raises(PrepareError, match="msrvtt-1ka-9k has train, test, no val"):
        msrvtt.listing(archive, split="val")
    with pytest.raises(PrepareError, match=r"no MSRVTT_JSFUSION_test\.csv in this folder"):
        msrvtt.listing(tmp_path / "nothing", split="test")
    text("MSRVTT_data.json", '{"videos": 3}')
    with pytest.raises(PrepareError, match=r"MSRVTT_data\.json: not a dump of MSR-VTT"):
        msrvtt.listing(archive)


def test_another_number_than_the_published_one_is_told(archive: Path, names: Callable[..., Path]) -> None:
    root = names("all/video5.mp4", "all/video6.mp4")
    summary = prepare(
        msrvtt.listing(archive, split="test"),
        to=archive / "m.jsonl",
        videos=root,
        check="none",
        extractor="rules",
    )
    assert summary.written == 2
    assert summary.notes == (
        "the published list has 1000 clips and this one 2: scores on it do not compare with published ones",
    )
