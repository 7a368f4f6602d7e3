"""The readers of ActivityNet v1.3 and THUMOS14, on small files of their forms."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.data.manifest import Manifest, Segment
from svilm.data.prepare import activitynet, thumos14
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare
from svilm.data.prepare.segments import cut, cut_notes, video_list

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


def video(subset: str, duration: Any, *pieces: tuple[Any, Any, Any]) -> dict[str, Any]:
    annotations = [{"segment": [start, end], "label": label} for start, end, label in pieces]
    return {"subset": subset, "duration": duration, "annotations": annotations, "url": "x", "resolution": "1x1"}


TAXONOMY = [
    {"nodeName": name, "parentName": parent, "nodeId": 0, "parentId": 0}
    for name, parent in (("Root", None), ("Sports", "Root"), ("Skiing", "Sports"), ("Bowling", "Sports"))
]
DATABASE = {
    "aaaaaaaaaaa": video("training", 10.0, (1, 2.5, "Skiing"), (4, 12, "Bowling"), (5, 6, "Skiing")),
    "v_bbbbbbbbb": video("validation", 20, (-1.0, 20.5, "Bowling"), (20, 25, "Bowling"), (3, 3, "Bowling")),
    "ccccccccccc": video("validation", 5.0, (0, 5, "Skiing")),
    "ddddddddddd": video("testing", 5.0),
}


@pytest.fixture
def official(text: Text) -> Path:
    return text("anet.json", json.dumps({"database": DATABASE, "taxonomy": TAXONOMY, "version": "VERSION 1.3"}))


# ActivityNet


def test_activitynet_has_one_clip_per_video_with_its_segments(official: Path, names: Names, tmp_path: Path) -> None:
    listing = activitynet.listing(official)
    assert (listing.classes, listing.split, listing.nouns) == (("Bowling", "Skiing"), "train", False)
    videos = names("v_aaaaaaaaaaa.mp4")
    (entry,) = Manifest(prepare(listing, to=tmp_path / "m.jsonl", videos=videos, check="none").manifest)
    assert (entry.id, entry.video, entry.duration) == ("aaaaaaaaaaa", "v_aaaaaaaaaaa.mp4", 10.0)
    assert entry.segments == (Segment(1.0, 2.5, "Skiing"), Segment(4.0, 10.0, "Bowling"), Segment(5.0, 6.0, "Skiing"))
    assert (entry.labels, entry.captions) == (("Skiing", "Bowling"), ("skiing, bowling",))
    assert (entry.start, entry.end) == (None, None)
    assert listing.notes == ("1 of 3 segments reached beyond their video and were cut, 0 were empty and were struck",)


def test_activitynet_validation_is_for_testing_and_counts_what_it_mends(official: Path) -> None:
    listing = activitynet.listing(official, subset="validation")
    first, second = clips(listing)
    assert first.id == "v_bbbbbbbbb" and first.names == ("v_v_bbbbbbbbb", "v_bbbbbbbbb")
    assert first.segments == (Segment(0.0, 20.0, "Bowling"),) and second.segments == (Segment(0.0, 5.0, "Skiing"),)
    assert (listing.split, listing.published) == ("test", 4926)
    assert listing.protocol == "activitynet-1.3 validation, 2 videos"
    assert listing.notes == ("1 of 4 segments reached beyond their video and were cut, 2 were empty and were struck",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("blocked.json", '["ccccccccccc", "aaaaaaaaaaa"]'),
        ("blocked.json", '{"v_ccccccccccc": "gone"}'),
        ("blocked.txt", "v_ccccccccccc\n\n"),
    ],
)
def test_activitynet_leaves_blocked_videos_out_and_says_so(text: Text, official: Path, name: str, content: str) -> None:
    listing = activitynet.listing(official, subset="validation", blocked=text(name, content))
    assert [clip.id for clip in clips(listing)] == ["v_bbbbbbbbb"]
    assert listing.protocol == "activitynet-1.3 validation, 1 videos (1 blocked)" and listing.published is None


@pytest.mark.parametrize("content", ["5", "[]", "[1]", '[""]'])
def test_a_list_of_blocked_videos_is_a_list(text: Text, content: str) -> None:
    with pytest.raises(PrepareError, match="not a list of video ids"):
        video_list(text("blocked.json", content))


def test_activitynet_ids_lose_their_prefix_where_all_have_it(text: Text) -> None:
    database = {f"v_{name}": about for name, about in DATABASE.items()}
    path = text("a.json", json.dumps({"database": database}))
    listing = activitynet.listing(path, subset="validation")
    assert [clip.id for clip in clips(listing)] == ["v_bbbbbbbbb", "ccccccccccc"]
    assert listing.classes == ("Bowling", "Skiing")  # from the labels: there is no taxonomy


def test_activitynet_in_the_form_of_gtad(text: Text) -> None:
    about = {"duration_second": 10.0, "duration_frame": 300, "feature_frame": 288, "annotations": []}
    pieces = [{"segment": [1.0, 2.0], "label": "Skiing"}]
    path = text("anet_anno_action.json", json.dumps({"v_a": {**about, "annotations": pieces}, "v_b": about}))
    with pytest.raises(PrepareError, match=r"video_info_new.csv with the subsets is not beside it"):
        activitynet.listing(path)
    text("video_info_new.csv", "video,numFrame,seconds,subset\nv_a,300,10,training\nv_b,300,10,validation\n")
    (clip,) = clips(activitynet.listing(path))
    assert (clip.id, clip.duration, clip.segments) == ("a", 10.0, (Segment(1.0, 2.0, "Skiing"),))
    listing = activitynet.listing(path, subset="validation")
    assert refused(listing) == {"b": "no segment that can be used"}


def test_activitynet_videos_that_are_refused(text: Text) -> None:
    wrong = {
        "a": video("training", 10, (0, 1, "Curling")),
        "b": video("training", "10", (0, 1, "Skiing")),
        "c": video("training", 10, (0, None, "Skiing")),
        "d": video("training", 10, (0, 10**400, "Skiing")),
        "e": video("training", 10, (0, 1, ["Skiing"])),
        "f": video("training", 10, (11, 12, "Skiing")),
        "g": {"subset": "training", "duration": 10, "annotations": [[0, 1]]},
        "h": {"subset": "training", "duration": 0, "annotations": []},
        "i": {"subset": "training", "duration": True},
    }
    listing = activitynet.listing(text("a.json", json.dumps({"database": wrong, "taxonomy": TAXONOMY})))
    assert not clips(listing)
    assert refused(listing) == {
        "a": "label is no leaf of the taxonomy",
        "b": "duration is not a number of seconds above 0",
        "c": "a segment is not start, end and label",
        "d": "a segment is not start, end and label",
        "e": "a segment is not start, end and label",
        "f": "no segment that can be used",
        "g": "annotations are not segments with labels",
        "h": "duration is not a number of seconds above 0",
        "i": "annotations are not segments with labels",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "needs database"),
        ('{"database": []}', "needs database"),
        ('{"database": {"a": 1}}', "needs database"),
        ('{"database": {}}', "no video of subset 'training'; it has no videos"),
        ('{"database": {"a": {"subset": "testing"}}}', "no video of subset 'training'; it has testing"),
        ('{"database": {"a": {"subset": "training"}}, "taxonomy": [1]}', "taxonomy must be a list"),
    ],
)
def test_activitynet_files_of_another_form(text: Text, content: str, message: str) -> None:
    with pytest.raises(PrepareError, match=message):
        activitynet.listing(text("a.json", content))


TIME = st.floats(-5, 15)


@given(st.lists(st.tuples(TIME, TIME, st.sampled_from("ab")), max_size=6), st.floats(0.1, 12))
def test_cut_segments_lie_inside_and_are_all_accounted_for(pieces: list[tuple[float, float, str]], duration: float):
    found = list(cut(pieces, duration))
    kept = [piece for piece in found if isinstance(piece, Segment)]
    assert all(0 <= piece.start < piece.end <= duration for piece in kept)
    assert len(kept) + found.count("struck") == len(pieces)
    inside = sum(0 <= start < end <= duration for start, end, _ in pieces)
    assert inside == len(kept) - found.count("cut")
    assert (cut_notes([(pieces, duration)]) == ()) == (inside == len(pieces))


# THUMOS14


def test_thumos14_goes_by_the_names_of_the_videos(text: Text) -> None:
    database = {
        "video_validation_0000051": video("training", 169.79, (67.5, 75.9, "Billiards"), (80, 90, "Ambiguous")),
        "video_test_0000004": video("validation", 33.7, (0.2, 1.1, "CricketShot")),
        "video_test_0000006": video("validation", 33.7, (0.2, 1.1, "Ambiguous")),
        "video_test_0000270": video("test", 33.7, (0.2, 1.1, "CricketShot")),
    }
    path = text("thumos_14_anno.json", json.dumps({"database": database}))
    (clip,) = clips(thumos14.listing(path))
    assert clip.id == "video_validation_0000051" and clip.segments == (Segment(67.5, 75.9, "Billiards"),)
    listing = thumos14.listing(path, split="test", blocked=text("blocked.txt", "video_test_0000270\n"))
    assert [(clip.id, clip.captions) for clip in clips(listing)] == [("video_test_0000004", ("cricket shot",))]
    assert listing.classes == ("Billiards", "CricketShot") and listing.split == "test"
    assert listing.protocol == "thumos14 test, 1 videos (1 blocked)"


def test_thumos14_from_a_file_for_each_class(text: Text, tmp_path: Path) -> None:
    text("Diving_val.txt", "video_validation_0000053  67.5 75.9\r\nvideo_validation_0000053  85.9 90.6\r\n")
    text("CliffDiving_val.txt", "video_validation_0000053  67.5 75.9\n")
    text("Ambiguous_val.txt", "video_validation_0000054  1.0 2.0\n")
    text("Diving_test.txt", "video_test_0000004  1.0 2.0\n")
    (clip,) = clips(thumos14.listing(tmp_path))
    assert clip.labels == ("CliffDiving", "Diving") and clip.duration is None
    assert [(piece.start, piece.label) for piece in clip.segments] == [
        (67.5, "CliffDiving"),
        (67.5, "Diving"),
        (85.9, "Diving"),
    ]
    (test,) = clips(thumos14.listing(tmp_path, split="test"))
    assert (test.id, test.segments) == ("video_test_0000004", (Segment(1.0, 2.0, "Diving"),))
    assert thumos14.listing(tmp_path, split="test").classes == ("CliffDiving", "Diving")


def test_thumos14_files_of_another_form(text: Text, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepareError, match=r"no \{Class\}_val.txt"):
        thumos14.listing(tmp_path / "empty")
    with pytest.raises(PrepareError, match="needs database with duration"):
        thumos14.listing(text("a.json", '{"database": {"a": {}}}'))
    with pytest.raises(PrepareError, match="no annotated video called video_test_"):
        thumos14.listing(text("a.json", '{"database": {}}'), split="test")
    text("Diving_val.txt", "video_validation_0000053 67.5\n")
    with pytest.raises(PrepareError, match=r"Diving_val.txt: line 1 must be video, start and end"):
        thumos14.listing(tmp_path)
