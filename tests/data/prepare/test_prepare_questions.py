"""MSRVTT-QA and MSVD-QA: all forms become the same questions, and no question is lost or counted twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svilm.data.manifest import Manifest
from svilm.data.prepare import msrvtt_qa, msvd_qa
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]

ORIGINAL: list[dict[str, Any]] = [
    {"id": 158581, "video_id": 6513, "question": "what do three  people hold?", "answer": "couch", "category_id": 1},
    {"id": 158582, "video_id": 6513, "question": "Who sings?", "answer": "girl", "category_id": 1},
    {"id": 158583, "video_id": 6514, "question": "is it raining?", "answer": "no", "category_id": 2},
]
CLIPBERT: list[dict[str, Any]] = [
    {"answer": "couch", "question": "what do three people hold?", "video_id": "video6513", "answer_type": "what"},
    {"answer": "girl", "question": "Who sings?", "video_id": "video6513", "answer_type": "who"},
    {"answer": "no", "question": "is it raining?", "video_id": "video6514", "answer_type": "other"},
]
LAVIS: list[dict[str, Any]] = [
    {
        "video": f"video{row['video_id']}.mp4",
        "question": row["question"],
        "answer": row["answer"],
        "question_id": row["id"],
    }
    for row in ORIGINAL
]


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


def json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("test_qa.json", json.dumps(ORIGINAL), ["158581", "158582", "158583"]),
        ("test_qa.json", json.dumps(ORIGINAL, indent=1), ["158581", "158582", "158583"]),
        ("test.jsonl", json_lines(CLIPBERT), ["video6513:1", "video6513:2", "video6514:1"]),
        ("qa_test.json", json.dumps(LAVIS), ["158581", "158582", "158583"]),
    ],
)
def test_three_forms_give_one_manifest(
    text: Text, names: Names, tmp_path: Path, name: str, content: str, ids: list[str]
) -> None:
    listing = msrvtt_qa.listing(text(name, content))
    summary = prepare(listing, to=tmp_path / "m.jsonl", videos=names("video6513.mp4", "video6514.mp4"), check="none")
    manifest = Manifest(tmp_path / "m.jsonl")
    assert [entry.id for entry in manifest] == ids
    assert [(e.video, e.captions, e.labels, e.category, e.nouns) for e in manifest] == [
        ("video6513.mp4", ("what do three people hold?",), ("couch",), "what", ((),)),
        ("video6513.mp4", ("Who sings?",), ("girl",), "who", ((),)),
        ("video6514.mp4", ("is it raining?",), ("no",), "other", ((),)),
    ]
    assert (manifest.header.split, manifest.header.source, manifest.header.nouns) == ("test", "msrvtt-qa", "")
    assert any("published list has 72821 clips and this one 3" in note for note in summary.notes)
    assert "nouns" not in str(summary)


def test_a_question_asked_twice_is_two_questions(text: Text) -> None:
    """Files without ids ask "what is a man doing?" of one video with several answers."""
    row: dict[str, Any] = {"question": "what is a man doing?", "video_id": "video1", "answer_type": "what"}
    listing = msrvtt_qa.listing(text("val.jsonl", json_lines([row | {"answer": "run"}, row | {"answer": "sing"}])))
    assert [(clip.id, clip.labels) for clip in clips(listing)] == [("video1:1", ("run",)), ("video1:2", ("sing",))]
    assert clips(listing) == clips(listing)  # read again, numbered again from the first


def test_a_question_counts_once(text: Text, names: Names, tmp_path: Path) -> None:
    """A file padded with copies of its first rows, as distributed evaluation does, is no test split."""
    listing = msrvtt_qa.listing(text("test_qa.json", json.dumps([*ORIGINAL, *ORIGINAL[:2]])))
    with pytest.raises(PrepareError, match=r"2 of 5 test clips.*\n.*item 4 \(158581\): id of an earlier row"):
        prepare(listing, to=tmp_path / "m.jsonl", videos=names("video6513.mp4", "video6514.mp4"), check="none")


def test_bad_rows_are_told_by_their_place(text: Text) -> None:
    good = CLIPBERT[0]
    rows = [good | {"answer": " "}, good | {"answer": ["a", "b"]}, good | {"question": ""}, good | {"video_id": None}]
    listing = msrvtt_qa.listing(text("val.jsonl", json_lines([*rows, good]) + "[1]\n{\n"))
    assert refused(listing) == {
        "line 1": "no answer",
        "line 2": "answer is not text",
        "line 3": "empty caption",
        "line 4": "no video named",
        "line 6": "not an object",
        "line 7": "not JSON",
    }
    assert [clip.id for clip in clips(listing)] == ["video6513:1"]
    assert refused(msrvtt_qa.listing(text("val.json", "[1, {}]"))) == {
        "item 1": "not an object",
        "item 2": "no video named",
    }


def test_the_split_is_in_the_name_or_given(text: Text) -> None:
    for name, split in [("train_qa.json", "train"), ("qa_val.json", "val"), ("test.jsonl", "test")]:
        assert msrvtt_qa.listing(text(name, "[]")).split == split
    path = text("questions.json", "[]")
    with pytest.raises(PrepareError, match=r"questions\.json: its name does not say which split.*--split"):
        msrvtt_qa.listing(path)
    assert msrvtt_qa.listing(path, split="val").published == 12_278
    with pytest.raises(PrepareError, match="its name does not say"):
        msrvtt_qa.listing(text("train_val.json", "[]"))


def test_answers_are_texts_even_where_they_look_like_nothing(text: Text) -> None:
    rows = [CLIPBERT[0] | {"answer": answer} for answer in ("none", 2, "#")]
    assert [clip.labels for clip in clips(msrvtt_qa.listing(text("val.jsonl", json_lines(rows))))] == [
        ("none",),
        ("2",),
        ("#",),
    ]


MSVD: list[dict[str, Any]] = [{"id": 0, "video_id": 1, "question": "what is chewing on a nut?", "answer": "squirrel"}]
MAPPING = "-4wsuPCjDBc_5_15 vid1\n-7KMZQEsJW4_205_208 vid2\n"


def test_numbered_videos_of_msvd_are_mapped(text: Text, names: Names, tmp_path: Path) -> None:
    questions = text("test_qa.json", json.dumps(MSVD))
    assert clips(msvd_qa.listing(questions))[0].names == ("vid1",)
    with pytest.raises(PrepareError, match=r"video not found: item 1 \(vid1\).*note: no youtube_mapping\.txt beside"):
        prepare(msvd_qa.listing(questions), to=tmp_path / "m.jsonl", videos=names("-4wsuPCjDBc_5_15.avi"))
    beside = text("youtube_mapping.txt", MAPPING)
    for listing in (msvd_qa.listing(questions), msvd_qa.listing(questions, mapping=beside)):
        assert clips(listing)[0].names == ("-4wsuPCjDBc_5_15", "vid1")
        assert not listing.notes
    prepare(msvd_qa.listing(questions), to=tmp_path / "m.jsonl", videos=names(), check="none")
    assert Manifest(tmp_path / "m.jsonl")[0].video == "-4wsuPCjDBc_5_15.avi"


def test_msvd_by_name_needs_no_mapping(text: Text) -> None:
    row = {"answer": "nut", "question": "what is it?", "video_id": "-4wsuPCjDBc_5_15.avi", "answer_type": "what"}
    (clip,) = clips(msvd_qa.listing(text("test.jsonl", json.dumps(row))))
    assert clip.names == ("-4wsuPCjDBc_5_15.avi",)
    assert msvd_qa.listing(text("test.jsonl", json.dumps(row))).published == 13_157


@pytest.mark.parametrize("content", ["a b c\n", "vid1\n", "a vid1\nb vid1\n", b"\xff vid1\n"])
def test_a_mapping_of_another_form(text: Text, content: str | bytes) -> None:
    text("youtube_mapping.txt", content)
    with pytest.raises(PrepareError, match=r"youtube_mapping\.txt: line \d must be the name of a video and vid<N>"):
        msvd_qa.listing(text("test_qa.json", json.dumps(MSVD)))
    with pytest.raises(PrepareError, match="no such file"):
        msvd_qa.listing(text("test_qa.json", json.dumps(MSVD)), mapping="nowhere.txt")
