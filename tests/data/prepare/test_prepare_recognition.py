"""The readers of UCF101, HMDB51, Kinetics and plain lists, on small files of their forms."""

from collections.abc import Callable
from pathlib import Path

import pytest

from svilm.data.manifest import Manifest
from svilm.data.prepare import hmdb51, kinetics, labelled_list, ucf101
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


# UCF101


def ucf(text: Text, folder: Path, fold: int = 1) -> Path:
    text("classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 YoYo\r\n")
    text(
        f"trainlist0{fold}.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nHandstandPushups/v_HandStandPushups_g08_c01.avi 2\n",
    )
    text(f"testlist0{fold}.txt", "HandstandPushups/v_HandStandPushups_g01_c01.avi\nYoYo/v_YoYo_g01_c01.avi\n")
    return folder


def test_ucf101_takes_the_class_from_the_folder(text: Text, tmp_path: Path) -> None:
    listing = ucf101.listing(ucf(text, tmp_path, 2), fold=2, split="train")
    assert [(clip.labels, clip.captions) for clip in clips(listing)] == [
        (("ApplyEyeMakeup",), ("apply eye makeup",)),
        (("HandstandPushups",), ("handstand pushups",)),
    ]
    assert (listing.classes, listing.nouns) == (("ApplyEyeMakeup", "HandstandPushups", "YoYo"), False)
    assert (listing.split, listing.protocol, listing.published) == ("train", "ucf101 fold 2 train", 9586)


def test_ucf101_videos_are_found_in_folders_by_class_in_one_folder_and_as_mp4(
    text: Text, names: Names, tmp_path: Path
) -> None:
    videos = names("UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi", "v_YoYo_g01_c01.mp4")
    listing = ucf101.listing(ucf(text, tmp_path))
    summary = prepare(listing, to=tmp_path / "test.jsonl", videos=videos, check="none")
    manifest = Manifest(summary.manifest)
    assert [entry.video for entry in manifest] == [
        "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "v_YoYo_g01_c01.mp4",
    ]
    assert manifest.header.classes == listing.classes and manifest.header.split == "test"
    assert [entry.labels for entry in manifest] == [("HandstandPushups",), ("YoYo",)]
    assert any("3783" in note for note in summary.notes)


def test_ucf101_refuses_what_contradicts_itself(text: Text, tmp_path: Path) -> None:
    folder = ucf(text, tmp_path)
    text("trainlist01.txt", "YoYo/v_YoYo_g08_c01.avi 2\nJump/v_Jump_g08_c01.avi 1\nv_YoYo_g08_c02.avi 3\nYoYo/ 3\n")
    listing = ucf101.listing(folder, split="train")
    assert not clips(listing)
    assert refused(listing) == {
        "line 1": "folder and number are two classes",
        "line 2": "its folder is no class of classInd.txt",
        "line 3": "its folder is no class of classInd.txt",
        "line 4": "its folder is no class of classInd.txt",
    }


def test_ucf101_files_that_are_missing_or_wrong_are_named(text: Text, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"neither classInd.txt nor val1.txt or test1.txt"):
        ucf101.listing(tmp_path)
    with pytest.raises(PrepareError, match="folds 1, 2 and 3, no 4"):
        ucf101.listing(ucf(text, tmp_path), fold=4)
    with pytest.raises(PrepareError, match=r"testlist03.txt: no such file"):
        ucf101.listing(tmp_path, fold=3)
    for wrong in ("1 A\n3 B\n", "1 A\n2 A\n", "0 A\n", "A\n"):
        text("classInd.txt", wrong)
        with pytest.raises(PrepareError, match=r"classInd.txt: line \d must be \d and a new class"):
            ucf101.listing(tmp_path)


# Lists of "path label"


def test_lists_of_path_and_label_are_read_as_folds(text: Text, tmp_path: Path) -> None:
    text("ucf_101_labels.csv", "id,name\r\n1,YoYo\r\n0,TaiChi\r\n")
    text("val2.txt", "v_YoYo_g01_c01.avi 1\nv_TaiChi_g01_c01.avi 0\n")
    listing = ucf101.listing(tmp_path, fold=2)
    assert [(clip.id, clip.labels) for clip in clips(listing)] == [
        ("v_YoYo_g01_c01.avi", ("YoYo",)),
        ("v_TaiChi_g01_c01.avi", ("TaiChi",)),
    ]
    assert (listing.classes, listing.published, listing.split) == (("TaiChi", "YoYo"), 3734, "test")


@pytest.mark.parametrize(
    "name",
    [
        "a video (1) [part] #2!.avi",
        "Fellowship_5_shoot_bow_u_cm_np1_fr_med_5.avi",
        "x, y; z.mp4",
        "folder with blanks/a.mp4",
        "été.mp4",
        "12 13.avi",
    ],
)
@pytest.mark.parametrize("mark", [" ", "\t", ",", ";", ", "])
def test_odd_names_survive(text: Text, names: Names, tmp_path: Path, name: str, mark: str) -> None:
    text("labels.csv", "id,name\n0,one\n1,two\n")
    listing = labelled_list.listing(text("train.txt", f"{name}{mark}1\n"))
    videos = names(name)
    (entry,) = Manifest(prepare(listing, to=tmp_path / "m.jsonl", videos=videos, check="none").manifest)
    assert (entry.id, entry.video, entry.labels) == (name, name, ("two",))
    assert listing.split == "train"


def test_labels_may_be_names_and_must_be_known(text: Text) -> None:
    labels = text("names.csv", "id,name\n0,one\n1,two\n")
    path = text("val.txt", "a.mp4 two\nb.mp4 2\nc.mp4\nd.mp4 -1\ne.mp4 0\n")
    listing = labelled_list.listing(path, labels=labels)
    assert [clip.labels for clip in clips(listing)] == [("two",), ("one",)]
    assert refused(listing) == {
        "line 2": "no class of the 2 in the csv",
        "line 3": "not a path and a label",
        "line 4": "no class of the 2 in the csv",
    }
    assert listing.split == "test"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,name\n0,one\n2,two\n", "ids must count from 0 to 1"),
        ("id,name\n0,one\n0,two\n", "line 3: id 0 or name 'two' occurs twice"),
        ("id,name\n0,one\n1,one\n", "line 3: id 1 or name 'one' occurs twice"),
        ("id,name\nx,one\n", "line 2: needs an id and a name"),
        ("id,name\n0\n", "line 2: too few columns"),
        ("0,one\n", "must name the columns"),
    ],
)
def test_a_csv_of_names_leaves_no_doubt(text: Text, content: str, message: str) -> None:
    path = text("train.txt", "a.mp4 0\n")
    with pytest.raises(PrepareError, match=message):
        labelled_list.listing(path, labels=text("n.csv", content))


def test_which_csv_holds_the_names_must_be_clear(text: Text) -> None:
    path = text("train.txt", "a.mp4 0\n")
    with pytest.raises(PrepareError, match="beside it: none; give one by --labels"):
        labelled_list.listing(path)
    text("labels.csv", "id,name\n0,one\n")
    text("my_labels.csv", "id,name\n0,one\n")
    with pytest.raises(PrepareError, match=r"labels.csv, my_labels.csv; give one"):
        labelled_list.listing(path)


# HMDB51


def test_hmdb51_reads_the_split_of_each_class(text: Text, names: Names, tmp_path: Path) -> None:
    (tmp_path / "testTrainMulti_7030_splits").mkdir()
    odd = "(HQ)_Rock_[x]_!#_clap_u_nm_np1_fr_goo_0.avi"
    text("testTrainMulti_7030_splits/wave_test_split1.txt", "a_wave.avi 1 \nb_wave.avi 2 \nc_wave.avi 0 \n")
    text("testTrainMulti_7030_splits/brush_hair_test_split1.txt", f"{odd} 2\n")
    text("testTrainMulti_7030_splits/wave_test_split2.txt", "c_wave.avi 2 \n")
    listing = hmdb51.listing(tmp_path)
    assert listing.classes == ("brush_hair", "wave")
    assert [(clip.id, clip.labels, clip.captions) for clip in clips(listing)] == [
        (f"brush_hair/{odd}", ("brush_hair",), ("brush hair",)),
        ("wave/b_wave.avi", ("wave",), ("wave",)),
    ]
    videos = names(f"hmdb51/brush_hair/{odd}", "b_wave.avi")
    manifest = Manifest(prepare(listing, to=tmp_path / "m.jsonl", videos=videos, check="none").manifest)
    assert [entry.video for entry in manifest] == [f"hmdb51/brush_hair/{odd}", "b_wave.avi"]
    assert [clip.names[-1] for clip in clips(hmdb51.listing(tmp_path, split="train"))] == ["a_wave.avi"]


def test_hmdb51_refuses_other_uses_and_names_the_list(text: Text, tmp_path: Path) -> None:
    text("wave_test_split3.txt", "a.avi 3\nb.avi\nc.avi 2\n")
    listing = hmdb51.listing(tmp_path, fold=3)
    assert refused(listing) == {
        "wave_test_split3.txt, line 1": "not a file and 0, 1 or 2",
        "wave_test_split3.txt, line 2": "not a path and a label",
    }
    with pytest.raises(PrepareError, match="folds 1, 2 and 3, no 0"):
        hmdb51.listing(tmp_path, fold=0)
    with pytest.raises(PrepareError, match=r"neither \*_test_split1.txt nor train1.txt or train.txt"):
        hmdb51.listing(tmp_path, split="train")


# Kinetics

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_kinetics_names_files_by_id_and_seconds(text: Text, names: Names, tmp_path: Path) -> None:
    path = text("val.csv", KINETICS + "tai chi,-abcdefghij,9,19,val,0\nabseiling,bbcdefghijk,100.0,110.0,val,1\n")
    listing = kinetics.listing(path)
    assert (listing.classes, listing.protocol, listing.split) == (("abseiling", "tai chi"), "kinetics-2 val", "test")
    videos = names("tai_chi/-abcdefghij_000009_000019.mp4", "bbcdefghijk_000100_000110.mp4")
    manifest = Manifest(prepare(listing, to=tmp_path / "m.jsonl", videos=videos, check="none").manifest)
    assert [(entry.id, entry.labels) for entry in manifest] == [
        ("-abcdefghij_000009_000019", ("tai chi",)),
        ("bbcdefghijk_000100_000110", ("abseiling",)),
    ]


def test_kinetics_rows_that_are_refused_and_classes_from_another_list(text: Text) -> None:
    train = text("train.csv", KINETICS + "a,x,1,11,train,0\nb,y,1,11,train,0\n")
    rows = ["a,x,0,10", "c,x,0,10", ",x,0,10", "a,,0,10", "a,x,0.5,10", "a,x,10,10", "a,x,,10"]
    path = text("validate.csv", "label,youtube_id,time_start,time_end\n" + "\n".join(rows) + "\n")
    listing = kinetics.listing(path, classes_from=train)
    assert listing.classes == ("a", "b") and len(clips(listing)) == 1
    assert refused(listing) == {
        "line 3": "label is none of the classes",
        "line 4": "no label",
        "line 5": "no video named",
        "line 6": "time_start is not whole seconds",
        "line 7": "end is not after start",
        "line 8": "time_start is not whole seconds",
    }
    assert kinetics.listing(train).split == "train"
    with pytest.raises(PrepareError, match="no labels"):
        kinetics.listing(text("test.csv", "label,youtube_id,time_start,time_end\n,x,0,10\n"))
