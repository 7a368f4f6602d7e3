"""DiDeMo, MSVD, LSMDC and YouCook2: their odd names, their odd files, and their official sizes."""

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svilm.data.manifest import Manifest
from svilm.data.prepare import didemo, lsmdc, msvd, youcook2
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


# DiDeMo

MOMENTS = [
    {"annotation_id": 1, "video": "1@N00_a.mov", "description": "a dog runs", "times": [[0, 0], [0, 1]]},
    {"annotation_id": 2, "video": "2@N00_b.", "description": "a cat sleeps", "times": [[1, 1]]},
    {"annotation_id": 3, "video": "1@N00_a.mov", "description": "the dog\nstops", "times": [[2, 2]]},
    {"annotation_id": 4, "video": "3@N00_c.3g2", "description": "a car", "times": [[2, 2]]},
    {"annotation_id": 5, "video": "3@N00_c.3g2", "description": " ", "times": [[2, 2]]},
]


def test_didemo_paragraphs(text: Text, names: Names, tmp_path: Path) -> None:
    listing = didemo.listing(text("test_data.json", json.dumps(MOMENTS)))
    videos = names("1@N00_a.mp4", "2@N00_b.", "3@N00_c.3g2")  # re-encoded; as they came
    prepare(listing, to=tmp_path / "m.jsonl", videos=videos, check="none", extractor="rules")
    assert [(e.id, e.video, e.captions, e.start, e.end) for e in Manifest(tmp_path / "m.jsonl")] == [
        ("1@N00_a", "1@N00_a.mp4", ("a dog runs the dog stops",), None, None),
        ("2@N00_b", "2@N00_b.", ("a cat sleeps",), None, None),
        ("3@N00_c", "3@N00_c.3g2", ("a car",), None, None),
    ]
    assert (listing.split, listing.published) == ("test", 1037)
    assert listing.protocol == "didemo test, paragraphs, all videos of the json file"
    assert listing.notes == (
        "1 empty descriptions left out",
        "test_data.json has 5 descriptions, the published file 4021",
    )


def test_didemo_on_a_list(text: Text, names: Names, tmp_path: Path) -> None:
    path = text("test_data.json", json.dumps(MOMENTS))
    listing = didemo.listing(path, only=text("test_list.txt", "2@N00_b.\n1@N00_a.mp4\n"))
    assert [clip.id for clip in clips(listing)] == ["2@N00_b", "1@N00_a"]
    assert (listing.published, listing.protocol) == (1004, "didemo test, paragraphs, test_list.txt")
    prepare(listing, to=tmp_path / "m.jsonl", videos=names("2@N00_b.mp4", "1@N00_a.avi"), check="none")
    longer = didemo.listing(path, only=text("test_list.txt", "2@N00_b.\n9@N00_z.mp4\n"))
    assert refused(longer) == {"line 2": "no description in test_data.json"}
    with pytest.raises(PrepareError, match=r"1 of 2 test clips cannot be used"):
        prepare(longer, to=tmp_path / "m.jsonl", videos=names(), check="none")


def test_didemo_of_another_form(text: Text) -> None:
    listing = didemo.listing(text("val_data.json", json.dumps([1, {"description": "a dog"}])))
    assert refused(listing) == {"item 1": "not an object", "item 2": "no video named"}
    with pytest.raises(PrepareError, match="--split"):
        didemo.listing(text("moments.json", "[]"))
    assert didemo.listing(text("moments.json", "[]"), split="train").published is None


# MSVD

CAPTIONS = {"-4wsuPCjDBc_5_15": [["a", "squirrel", "eats"], ["an", "animal"], []], "a.b_1_2": [["a", "dog"]]}


@pytest.fixture
def lists(text: Text, tmp_path: Path) -> Path:
    text("train_list.txt", "a.b_1_2\n")
    text("val_list.txt", "nowhere_0_1\n")
    text("test_list.txt", "-4wsuPCjDBc_5_15\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("raw-captions.pkl", pickle.dumps(CAPTIONS, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        ("captions.json", json.dumps({k: [" ".join(words) for words in v] for k, v in CAPTIONS.items()}).encode()),
        ("captions.json", json.dumps(CAPTIONS).encode()),
        (
            "AllVideoDescriptions.txt",
            b"# Video descriptions\r\n#\r\n\r\n-4wsuPCjDBc_5_15 a squirrel eats\r\n-4wsuPCjDBc_5_15 an  animal\r\n"
            b"-4wsuPCjDBc_5_15 ...\r\na.b_1_2 a dog\r\n",
        ),
        (
            "AllVideoDescriptions.txt",
            b"-4wsuPCjDBc_5_15\ta squirrel eats\n-4wsuPCjDBc_5_15\tan animal\n-4wsuPCjDBc_5_15\t\na.b_1_2\ta dog",
        ),
    ],
)
def test_msvd_captions_of_one_video_are_one_entry(lists: Path, text: Text, name: str, content: bytes) -> None:
    text(name, content)
    test = msvd.listing(lists, split="test")
    assert [(clip.id, clip.captions) for clip in clips(test)] == [
        ("-4wsuPCjDBc_5_15", ("a squirrel eats", "an animal")),
    ]
    assert test.notes == (f"1 empty captions left out of {name}",)
    assert [clip.captions for clip in clips(msvd.listing(lists))] == [("a dog",)]
    assert refused(msvd.listing(lists, split="val")) == {"line 1": f"no caption in {name}"}
    assert [msvd.listing(lists, split=split).published for split in ("train", "val", "test")] == [1200, 100, 670]


class Trap:
    """What a malicious pickle does when it is read."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"a": Trap()}), "it wants to load"),
        (pickle.dumps(OrderedDict(CAPTIONS)), "it wants to load collections.OrderedDict"),
        (pickle.dumps(CAPTIONS)[:-5], "not a pickle"),
        (b"", "not a pickle"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "not a pickle"),
        (pickle.dumps(["a"]), "not a list of captions for each video"),
        (pickle.dumps({"a": "b"}), "not a list of captions for each video"),
        (pickle.dumps({"a": [[1]]}), "a caption that is no text"),
    ],
)
def test_a_pickle_is_read_only_if_it_is_plain(
    lists: Path, text: Text, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lists)
    text("raw-captions.pkl", content)
    with pytest.raises(PrepareError, match=r"raw-captions\.pkl") as error:
        msvd.listing(lists)
    assert said in str(error.value)
    assert not Path("sprung").exists()


def test_msvd_captions_may_be_called_otherwise(lists: Path, text: Text) -> None:
    with pytest.raises(PrepareError, match=r"no raw-captions\.pkl or .* in this folder; .*--captions"):
        msvd.listing(lists)
    listing = msvd.listing(lists, captions=text("sentences.txt", "a.b_1_2 a dog\n"))
    assert [clip.captions for clip in clips(listing)] == [("a dog",)]
    with pytest.raises(PrepareError, match="no such file"):
        msvd.listing(lists, captions=lists / "nothing.pkl")


# LSMDC

ROW = "0001_A_00.00.51.926-00.00.54.129\t00:00:51.926\t00:00:54.129\t00:00:51,900\t00:00:54,100\t{}\n"


def test_lsmdc(text: Text, names: Names, tmp_path: Path) -> None:
    content = ROW.format("SOMEONE runs.") + ROW.format('He says "stop.') + ROW.format("SOMEONE runs.") + "x\ty\n"
    listing = lsmdc.listing(text("LSMDC16_annos_training.csv", content))
    clip_id = "0001_A_00.00.51.926-00.00.54.129"
    assert [(clip.id, clip.captions, clip.start) for clip in clips(listing)] == [
        (clip_id, ("SOMEONE runs.",), None),
        (f"{clip_id}#2", ('He says "stop.',), None),
    ]
    assert refused(listing) == {"line 3": "repeats an earlier row", "line 4": "not 6 columns between tabs"}
    assert (listing.split, listing.published) == ("train", 101_079)
    prepare(listing, to=tmp_path / "m.jsonl", videos=names(f"0001_A/{clip_id}.avi"), check="none", extractor="rules")
    assert {entry.video for entry in Manifest(tmp_path / "m.jsonl")} == {f"0001_A/{clip_id}.avi"}


@pytest.mark.parametrize(
    ("name", "split", "published"),
    [("LSMDC16_annos_val.csv", "val", 7408), ("LSMDC16_challenge_1000_publictect.csv", "test", 1000)],
)
def test_lsmdc_splits(text: Text, name: str, split: str, published: int) -> None:
    listing = lsmdc.listing(text(name, ROW.format("x")))
    assert (listing.split, listing.published) == (split, published)


# YouCook2

COOKING = {
    "database": {
        "xHr8X2Wpmno": {
            "duration": 311.8,
            "subset": "training",
            "recipe_type": "113",
            "annotations": [
                {"id": 0, "segment": [41, 54], "sentence": "pick the ends off the verdalago"},
                {"id": 1, "segment": [54, 54], "sentence": "combine lemon juice"},
                {"id": 2, "segment": 3, "sentence": "stir"},
            ],
        },
        "GLd3aX16zBg": {
            "duration": 241.62,
            "subset": "validation",
            "recipe_type": "405",
            "annotations": [{"id": 0, "segment": [90, 102.5], "sentence": "spread margarine"}],
        },
        "tested": {"duration": 1.0, "subset": "testing", "recipe_type": "1"},
        "nowhere": {"annotations": []},
        "broken": {"subset": "training"},
    }
}


def test_youcook2(text: Text, names: Names, tmp_path: Path) -> None:
    path = text("youcookii_annotations_trainval.json", json.dumps(COOKING))
    train, val = youcook2.listing(path), youcook2.listing(path, split="val")
    (clip,) = clips(train)
    assert (clip.id, clip.start, clip.end, clip.duration) == ("xHr8X2Wpmno:0", 41.0, 54.0, 311.8)
    assert refused(train) == {
        "xHr8X2Wpmno, step 1": "end is not after start",
        "xHr8X2Wpmno, step 2": "segment is not a start and an end",
        "broken": "no list of annotations",
        "nowhere": "of no subset",
    }
    assert [(clip.id, clip.captions) for clip in clips(val)] == [("GLd3aX16zBg:0", ("spread margarine",))]
    assert (train.published, val.published, val.split) == (10_337, 3_492, "val")
    for place in ("validation/405/GLd3aX16zBg.mkv", "validation/405/GLd3aX16zBg/GLd3aX16zBg.webm", "GLd3aX16zBg.mp4"):
        found = Path(place).with_suffix("").as_posix()
        assert found in clips(val)[0].names
    # the same id in another folder does not confuse it
    videos = names("validation/405/GLd3aX16zBg.mkv", "elsewhere/GLd3aX16zBg.mkv")
    assert refused(val) == {"nowhere": "of no subset"}
    prepare(val, to=tmp_path / "m.jsonl", videos=videos, check="none", allow_missing=True, extractor="rules")
    assert Manifest(tmp_path / "m.jsonl")[0].video == "validation/405/GLd3aX16zBg.mkv"


def test_youcook2_csv(text: Text) -> None:
    path = text(
        "validation_youcook.csv",
        "end,start,task,text,video_id\n102,90,405,spread margarine,GLd3aX16zBg\n1,2,405,stir,x\n",
    )
    listing = youcook2.listing(path)
    (clip,) = clips(listing)
    assert (clip.id, clip.start, clip.end) == ("GLd3aX16zBg:90-102", 90.0, 102.0)
    assert clip.names[0] == "validation/405/GLd3aX16zBg"
    assert refused(listing) == {"line 3": "end is not after start"}
    assert (listing.split, listing.published) == ("val", None)
    with pytest.raises(PrepareError, match="hidden"):
        youcook2.listing(text("test_youcook.csv", "x\n"))


@pytest.mark.parametrize("content", ["[]", '{"database": []}', '{"x": 1}'])
def test_youcook2_of_another_form(text: Text, content: str) -> None:
    with pytest.raises(PrepareError, match=r"youcook\.json: no database"):
        youcook2.listing(text("youcook.json", content))
