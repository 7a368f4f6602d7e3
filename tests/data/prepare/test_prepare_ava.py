"""The reader of AVA: keyframes, boxes of people and of detectors, exclusions, lists of actions."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svilm.data.manifest import LabelledBox, Manifest
from svilm.data.prepare import ava, common
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare
from svilm.data.prepare.keyframes import Keyframe, read_person_boxes
from svilm.data.prepare.videos import Verdict

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]

ACTIONS = 'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nitem {\n  name: "stand"\n  id: 12\n}\n'
ROWS = """\
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,12,1
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,1,1
-5KQ66BBWC4,902.0,0.332,0.194,0.481,0.891,12,2
-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,12,1
1j20qq1JyX4,1798,0,0,1,1,80
1j20qq1JyX4,1700
1j20qq1JyX4,1701,0,0,1,1,1,0
"""


@pytest.fixture
def val(text: Text) -> Path:
    text("ava_action_list_v2.2.pbtxt", "label { name: 'x' }")
    text("ava_action_list_v2.2_for_activitynet_2019.pbtxt", ACTIONS)
    text("ava_val_excluded_timestamps_v2.2.csv", "1j20qq1JyX4,1701\n1j20qq1JyX4,0903\n")
    return text("ava_val_v2.2.csv", ROWS)


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


# Keyframes


def test_each_keyframe_is_a_clip_around_it_with_its_boxes(val: Path, names: Names, tmp_path: Path) -> None:
    listing = ava.listing(val)
    videos = names("-5KQ66BBWC4.mkv", "1j20qq1JyX4.mp4")
    manifest = Manifest(prepare(listing, to=tmp_path / "m.jsonl", videos=videos, check="none").manifest)
    first, second, third = manifest
    assert (first.id, first.video) == ("-5KQ66BBWC4,0902", "-5KQ66BBWC4.mkv")
    assert (first.start, first.end) == pytest.approx((2 - 32 / 30, 2 + 32 / 30))
    assert first.boxes == (
        LabelledBox((0.077, 0.151, 0.283, 0.811), ("12", "1")),
        LabelledBox((0.332, 0.194, 0.481, 0.891), ("12",)),
    )
    assert first.captions == ("stand, bend/bow (at the waist)",)
    assert (second.id, [box.labels for box in second.boxes]) == ("1j20qq1JyX4,1798", [("80",)])
    assert (third.id, third.boxes, third.captions) == ("1j20qq1JyX4,1700", (), ("no action",))
    assert manifest.header.classes == ("1 bend/bow (at the waist)", "12 stand")
    assert manifest.header.split == "test" and "3 keyframes" in manifest.header.protocol


def test_whole_movies_are_not_taken_for_files_cut_to_the_annotated_part(
    val: Path, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"-5KQ66BBWC4.mkv": 901.0, "1j20qq1JyX4.mp4": 5400.0}
    monkeypatch.setattr(common, "check_videos", lambda *_: {file: Verdict(each) for file, each in seconds.items()})
    videos = names(*seconds)
    with pytest.raises(PrepareError, match=r"1 of 2 videos are longer than 1000 s, 1j20qq1JyX4\.mp4 .*--starts-at 0"):
        prepare(ava.listing(val), to=tmp_path / "m.jsonl", videos=videos)
    seconds["-5KQ66BBWC4.mkv"] = 5400.0
    prepare(ava.listing(val, starts_at=0.0), to=tmp_path / "m.jsonl", videos=videos)
    assert Manifest(tmp_path / "m.jsonl")[0].start == pytest.approx(902 - 32 / 30)
    seconds.update({"-5KQ66BBWC4.mkv": 900.0, "1j20qq1JyX4.mp4": 903.0})
    assert prepare(ava.listing(val), to=tmp_path / "m.jsonl", videos=videos).written == 3


def test_what_is_excluded_and_what_is_not_evaluated_is_counted(val: Path, text: Text) -> None:
    excluded = "ava_val_excluded_timestamps_v2.2.csv"
    assert ava.listing(val).notes == (
        f"{excluded} names 2 keyframes; 1 of them were annotated and left out",
        "1 labels are of actions that the list of 2 does not have; they are not evaluated",
    )
    other = text("other.csv", "-5KQ66BBWC4,902\n")
    assert [clip.id[-4:] for clip in clips(ava.listing(val, excluded=other))] == ["1798", "1700", "1701"]
    assert ava.listing(val, excluded=text("empty.csv", "")).notes[0].startswith("empty.csv names 0 keyframes")
    (val.parent / excluded).unlink()
    listing = ava.listing(val)
    assert len(clips(listing)) == 4 and listing.notes[0].startswith(f"no {excluded} beside the annotations")
    with pytest.raises(PrepareError, match="no such file"):
        ava.listing(val, excluded=val.parent / excluded)
    with pytest.raises(PrepareError, match=r"other.csv: line 2: not 2 columns"):
        ava.listing(val, excluded=text("other.csv", "a,902\na\n"))


@pytest.mark.parametrize(("starts_at", "length", "times"), [(0, 1.0, (901.5, 902.5)), (901.5, 2.0, (0.0, 1.0))])
def test_the_keyframe_is_in_the_middle_whatever_is_cut_off(
    val: Path, starts_at: float, length: float, times: tuple[float, float]
) -> None:
    first = clips(ava.listing(val, starts_at=float(starts_at), window_seconds=length))[0]
    assert (first.start, first.end) == times


@pytest.mark.parametrize(("length", "times"), [(4.0, (1.0, 3.0)), (1.0, (1.5, 2.5)), (2.5, (1.0, 3.0))])
def test_the_keyframe_stays_in_the_middle_where_the_video_ends_early(
    length: float, times: tuple[float, float], val: Path, video: Callable[..., Path], tmp_path: Path
) -> None:
    videos = video("-5KQ66BBWC4.mp4", seconds=3.0).parent
    video("1j20qq1JyX4.mp4", seconds=1.0)
    summary = prepare(
        ava.listing(val, window_seconds=length), to=tmp_path / "m.jsonl", videos=videos, allow_missing=True
    )
    first = Manifest(tmp_path / "m.jsonl")[0]
    assert (first.start, first.end) == pytest.approx(times) and len(first.boxes) == 2
    assert summary.count("undecodable") == 2


def test_a_keyframe_after_the_end_of_its_video_is_refused(
    val: Path, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = names("-5KQ66BBWC4.mp4", "1j20qq1JyX4.mp4")  # of the first, the window begins in time, the keyframe late
    verdicts = {"-5KQ66BBWC4.mp4": Verdict(1.9), "1j20qq1JyX4.mp4": Verdict(900.0)}
    monkeypatch.setattr(common, "check_videos", lambda *_: verdicts)
    with pytest.raises(PrepareError, match=r"1 of 3 test clips(?s:.*)line 1 .*boxes after the end of its video"):
        prepare(ava.listing(val), to=tmp_path / "m.jsonl", videos=videos)


def test_a_keyframe_before_its_video_is_refused(val: Path) -> None:
    listing = ava.listing(val, starts_at=902.0)
    assert refused(listing) == {"line 1": "keyframe is not after the beginning of its video"}
    with pytest.raises(PrepareError, match="window_seconds is 0"):
        ava.listing(val, window_seconds=0.0)


def test_rows_that_are_refused(val: Path, text: Text) -> None:
    rows = [
        "a,0902,0.1,0.1,0.1,0.2,1,0",
        "a,0902,0.1,0.1,0.2,1.1,1,0",
        "a,0902,0.1,0.1,0.2,nan,1,0",
        "a,0902,0.1,0.1,x,0.2,1,0",
        "a,0902,0.1,0.1,0.2,0.2,,0",
        "a,0902,0.1,0.1,0.2,0.2,1.5,0",
        "a,now,0.1,0.1,0.2,0.2,1,0",
        ",0902,0.1,0.1,0.2,0.2,1,0",
        "a,0902,0.1",
    ]
    listing = ava.listing(text("ava_val_v2.2.csv", "\n".join(rows)))
    assert not clips(listing)
    assert list(refused(listing).values()) == [
        "box is not x1 < x2, y1 < y2 within [0, 1]",
        "box is not x1 < x2, y1 < y2 within [0, 1]",
        "not numbers",
        "not numbers",
        "action is not a number from 1",
        "action is not a number from 1",
        "not a time",
        "no video named",
        "not 2 or 7 or 8 columns",
    ]


def test_the_training_list_is_for_training_and_has_its_own_exclusions(val: Path, text: Text) -> None:
    text("ava_train_excluded_timestamps_v2.2.csv", "-5KQ66BBWC4,0902\n")
    listing = ava.listing(text("ava_train_v2.2.csv", ROWS))
    assert listing.split == "train" and len(clips(listing)) == 3


# Actions


@pytest.mark.parametrize(
    "content",
    [
        'item {\n  name: "bend (a, b)"\n  id: 3\n}\nitem {\n  name: "id: 4"\n  id: 7\n}\n',
        'label {\n\tname: "bend (a, b)"\r\n\tlabel_id: 3\n\tlabel_type: PERSON_MOVEMENT\n}\n'
        'label {\nname:"id: 4"\nlabel_id:7\n}',
        'item{name:"bend (a, b)" id:3} item{id:7 name:"id: 4"}',
    ],
)
def test_lists_of_actions_in_all_their_forms(text: Text, content: str) -> None:
    assert ava.read_actions(text("list.pbtxt", content)) == {"3": "bend (a, b)", "7": "id: 4"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: 1", "no item"),
        ('item { name: "a" }', "needs a name and an id of its own"),
        ("item { id: 1 }", "needs a name and an id of its own"),
        ('item { name: "a" id: 1 } item { name: "b" id: 1 }', "needs a name and an id of its own"),
    ],
)
def test_lists_of_actions_of_another_form(text: Text, content: str, message: str) -> None:
    with pytest.raises(PrepareError, match=message):
        ava.read_actions(text("list.pbtxt", content))


def test_a_list_of_actions_is_needed(text: Text) -> None:
    with pytest.raises(PrepareError, match=r"no ava_action_list\*.pbtxt beside it"):
        ava.listing(text("ava_val_v2.2.csv", ROWS))


# Boxes of detectors


def test_detected_boxes_stand_beside_the_true_ones(val: Path, text: Text) -> None:
    rows = [
        "-5KQ66BBWC4,0902,0.08,0.15,0.28,0.8,,0.995",
        "-5KQ66BBWC4,0902,-0.1,0.5,0.5,1.2,12,0.5",
        "-5KQ66BBWC4,0902,0.5,0.5,0.4,0.6,,0.5",
        "-5KQ66BBWC4,0902,0.5,0.5,0.6,0.6,,1.5",
        "-5KQ66BBWC4,0902,0.5,0.5,0.6,0.6,,",
        "-5KQ66BBWC4,0950,0.5,0.5,0.6,0.6,,0.9",
    ]
    listing = ava.listing(val, boxes=text("ava_val_predicted_boxes.csv", "\n".join(rows)))
    boxes = clips(listing)[0].boxes
    assert [box.origin for box in boxes] == ["truth", "truth", "detector", "detector"]
    assert boxes[2:] == (
        LabelledBox((0.08, 0.15, 0.28, 0.8), (), 0.995, "detector"),
        LabelledBox((0.0, 0.5, 0.5, 1.0), ("12",), 0.5, "detector"),
    )
    assert "ava_val_predicted_boxes.csv: 2 boxes in 1 of 3 keyframes" in listing.notes
    assert listing.notes[-1].endswith("1 empty or outside the picture, 1 score not from 0 to 1, 1 not numbers")


WANTED = {Keyframe("vid", 902.0)}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    array = np.array([[0.1, 0.2, 0.3, 0.4, 0.9], [0.1, 0.2, np.nan, 0.4, 0.9]])
    data = {"vid,0902": array, "vid,0903": array, "other,0902": array.astype(np.float32)}
    path = tmp_path / "boxes.pkl"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    boxes = read_person_boxes(path, WANTED)
    assert boxes.found == {Keyframe("vid", 902.0): [LabelledBox((0.1, 0.2, 0.3, 0.4), (), 0.9, "detector")]}
    assert boxes.left_out == {"not numbers": 3}


def test_a_pickle_without_scores_is_sure(tmp_path: Path) -> None:
    (tmp_path / "boxes.pkl").write_bytes(pickle.dumps({"vid,0902": np.array([[0.0, 0.0, 0.5, 0.5]])}))
    ((box,),) = read_person_boxes(tmp_path / "boxes.pkl", WANTED).found.values()
    assert box.score == 1.0


class Program:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_a_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boxes.pkl").write_bytes(pickle.dumps({"vid,0902": Program(tmp_path / "owned")}))
    with pytest.raises(PrepareError, match=r"it asks for (posix|nt).mkdir; save the boxes as a csv"):
        read_person_boxes(tmp_path / "boxes.pkl", WANTED)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "data",
    [[1], {"vid": np.zeros((1, 5))}, {"vid,x": np.zeros((1, 5))}, {"vid,0902": np.zeros((1, 3))}, {"vid,0902": 1}],
)
def test_pickles_of_another_form(tmp_path: Path, data: object) -> None:
    (tmp_path / "boxes.pkl").write_bytes(pickle.dumps(data))
    with pytest.raises(PrepareError, match=r"boxes.pkl: (needs|must hold)"):
        read_person_boxes(tmp_path / "boxes.pkl", WANTED)


def test_files_of_boxes_that_are_none(text: Text, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="no such file"):
        read_person_boxes(tmp_path / "none.csv", WANTED)
    with pytest.raises(PrepareError, match="not a pickle of arrays only"):
        read_person_boxes(text("broken.pkl", b"\x80\x04nothing"), WANTED)
    with pytest.raises(PrepareError, match=r"no row of video.*2 x not 8 columns"):
        read_person_boxes(text("boxes.csv", "vid,0902,0.1,0.2,0.3,0.4\nvid,0902\n"), WANTED)
