"""The readers of VideoCC, WebVid, HowTo100M and ActivityNet Captions, on small files of their forms."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from svilm.data.prepare import activitynet_captions, howto100m, videocc, webvid
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.howto100m import Narration, grown

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


# VideoCC


@pytest.mark.parametrize("header", ["", "video_url,start,end,caption\n", "a,b,c,d\n"])
def test_videocc_with_and_without_header(text: Text, header: str) -> None:
    listing = videocc.listing(text("cc.csv", header + "dQw4w9WgXcQ,1500000,4000000,a man sings\n"))
    (clip,) = clips(listing)
    assert (clip.id, clip.names) == ("dQw4w9WgXcQ:1500000-4000000", ("dQw4w9WgXcQ",))
    assert (clip.start, clip.end, clip.captions) == (1.5, 4.0, ("a man sings",))
    assert (listing.source, listing.split) == ("videocc", "train")
    assert bool(listing.notes) == bool(header)
    assert not refused(listing)
    assert clip.place == ("line 2" if header else "line 1")


@pytest.mark.parametrize(
    "address",
    [
        "dQw4w9WgXcQ",
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
        "http://m.youtube.com/watch?t=3s&v=dQw4w9WgXcQ",
        "https://youtu.be/dQw4w9WgXcQ?t=3",
        "youtu.be/dQw4w9WgXcQ",
        "www.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://www.youtube.com/embed/dQw4w9WgXcQ",
        "https://www.youtube.com/shorts/dQw4w9WgXcQ",
    ],
)
def test_videocc_addresses(text: Text, address: str) -> None:
    (clip,) = clips(videocc.listing(text("cc.csv", f"{address},0,5000000,a man sings\n")))
    assert clip.names == ("dQw4w9WgXcQ",)


def test_videocc_rows_that_are_refused(text: Text) -> None:
    rows = [
        "a.mp4,0,5000000,one",
        "a.mp4,0,5000000,one",
        "a.mp4,0,5000000,two",
        "https://example.com/a.mp4,0,5000000,c",
        "https://youtu.be/short,0,5000000,c",
        "https://[,0,5000000,c",
        "a.mp4,5000000,5000000,c",
        "a.mp4,-5,5000000,c",
        "a.mp4,0.5,5000000,c",
        "a.mp4,,5000000,c",
        "a.mp4,0,nan,c",
        f"a.mp4,0,{'9' * 5000},c",
        "a.mp4,0,5000000,",
        ",0,5000000,c",
        "a.mp4,0,5000000,a, b",
        "-_x.y.z,0,5000000,c",
    ]
    listing = videocc.listing(text("cc.csv", "\n".join(rows)))
    assert [clip.id for clip in clips(listing)] == [
        "a.mp4:0-5000000",
        "a.mp4:0-5000000#2",
        "-_x.y.z:0-5000000",
    ]
    assert refused(listing) == {
        "line 2": "repeats an earlier row",
        "line 4": "not the address of a YouTube video",
        "line 5": "not the address of a YouTube video",
        "line 6": "not an address",
        "line 7": "end is not after start",
        "line 8": "not a number of microseconds",
        "line 9": "not a number of microseconds",
        "line 10": "start or end is not given",
        "line 11": "not a number of microseconds",
        "line 12": "not a number of microseconds",
        "line 13": "empty caption",
        "line 14": "no video named",
        "line 15": "too many columns",
    }
    assert len(rows) == len(clips(listing)) + len(refused(listing))


def test_videocc_with_semicolons_and_a_damaged_first_row(text: Text) -> None:
    listing = videocc.listing(text("cc.csv", "a;-1;5000000;x, y\nb;0;5000000;x, y\n"))
    assert [clip.names for clip in clips(listing)] == [("b",)]
    assert refused(listing) == {"line 1": "not a number of microseconds"}


def test_videocc_in_seconds_is_refused(text: Text) -> None:
    with pytest.raises(PrepareError, match=r"counts in microseconds.*svilm prepare folder"):
        videocc.listing(text("cc.csv", "a.mp4,0,5,a man sings\na.mp4,5,10,a man runs\n"))


@pytest.mark.parametrize("content", ["", "video\n", "only text\nin lines\n"])
def test_videocc_of_another_form(text: Text, content: str) -> None:
    with pytest.raises(PrepareError, match=r"cc\.csv: (empty file|line 1 must be video, start, end, caption)"):
        videocc.listing(text("cc.csv", content))


def test_videocc_filled_by_video2dataset(names: Names) -> None:
    root = names("00000/000000000_00001.mp4", "00000/000000001.mp4", "00001/000010000.mp4")
    meta = {
        "url": "https://youtu.be/dQw4w9WgXcQ",
        "caption": "a man sings",
        "key": "000000000_00001",
        "clips": [[1, 2]],
    }
    (root / "00000" / "000000000_00001.json").write_text(json.dumps(meta))
    (root / "00000" / "000000001.txt").write_text("a dog runs")
    (root / "00000_stats.json").write_text("{}")
    listing = videocc.listing(root)
    assert [(clip.names, clip.captions, clip.start) for clip in clips(listing)] == [
        (("00000/000000000_00001.mp4",), ("a man sings",), None),
        (("00000/000000001.mp4",), ("a dog runs",), None),
    ]
    assert refused(listing) == {"00001/000010000.mp4": "no caption beside the video"}
    assert listing.source == "videocc"


# WebVid


def test_webvid(text: Text) -> None:
    content = (
        "videoid,contentUrl,duration,page_dir,name\n"
        '1001,https://example.com/1001.mp4,PT00H00M12S,000001_000050,"A dog, running"\n'
        "1002,,,,A cat\n"
        "1003,,,000001_000050,\n"
        "1001,,,000001_000050,Again\n"
    )
    listing = webvid.listing(text("results_2M_train.csv", content))
    assert [(clip.id, clip.names, clip.captions) for clip in clips(listing)] == [
        ("1001", ("000001_000050/1001", "1001"), ("A dog, running",)),
        ("1002", ("1002",), ("A cat",)),
        ("1001", ("000001_000050/1001", "1001"), ("Again",)),  # refused later, as any id that is used twice
    ]
    assert refused(listing) == {"line 4": "empty caption"}


# HowTo100M


def test_narrations_grow_by_the_nearest_neighbour() -> None:
    told = [
        Narration(0, 2, ("a",)),
        Narration(5, 7, ("b",)),
        Narration(7.5, 9, ("c",)),
        Narration(20, 22, ("d",)),
    ]
    assert grown(told, 1, 0.0) == (1, 1)
    assert grown(told, 1, 3.0) == (1, 2)
    assert grown(told, 1, 8.0) == (0, 2)
    assert grown(told, 3, 8.0) == (2, 3)
    assert grown(told, 0, 1000.0) == (0, 3)
    assert grown([Narration(0, 9, ("a",)), Narration(1, 2, ("b",))], 1, 8.0) == (0, 1)


def test_howto100m(text: Text) -> None:
    data = {
        "vid1": {
            "start": [10, 0, 4.5],
            "end": [19, 4, 9],
            "text": ["then we stir", "take a pan", "add the oil"],
        },
        "vid2": {"start": [0], "end": [10], "text": ["unwanted"]},
        "vid3": {"start": [0, 5], "end": [0, 15], "text": ["bad time", ["one wording", "another wording"]]},
        "vid4": {"start": [0], "end": [1, 2], "text": ["x"]},
    }
    path = text("caption.json", json.dumps(data))
    only = text("HowTo100M_v1.csv", "video_id,category_1,path\nvid1,Food,food/vid1.webm\nvid3,,\nvid4,,\nvid5,,\n")
    listing = howto100m.listing(path, only=only)
    assert [(clip.id, clip.names, clip.captions, clip.start, clip.end) for clip in clips(listing)] == [
        ("vid1:0-1", ("food/vid1.webm", "vid1"), ("take a pan add the oil",), 0, 9),
        ("vid1:2-2", ("food/vid1.webm", "vid1"), ("then we stir",), 10, 19),
        ("vid3:0-0", ("vid3",), ("one wording", "another wording"), 5, 15),
    ]
    assert refused(listing) == {
        "vid3, narration 1": "end is not after start",
        "vid4": "start, end and text are not lists of one length",
        "vid5": "no narration of this video",
    }
    ungrown = clips(howto100m.listing(path, min_seconds=0.0))
    assert [clip.id for clip in ungrown] == ["vid1:0-0", "vid1:1-1", "vid1:2-2", "vid2:0-0", "vid3:0-0"]


# ActivityNet Captions

ANET = {
    "v_abc": {
        "duration": 9.0,
        "timestamps": [[0, 4.5], [4, 9.01]],
        "sentences": [" A man runs.", "  He falls."],
    },
    "v_-x.y": {"duration": 5, "timestamps": [[3, 2]], "sentences": ["A cat."]},
    "v_odd": {"duration": 5, "timestamps": [[0, 1]], "sentences": []},
    "v_nan": {
        "duration": 5,
        "timestamps": [[0, "x"], [1, None], 5, [-1, 2]],
        "sentences": ["a", "b", "c", "d"],
    },
}


def test_activitynet_sentences(text: Text) -> None:
    listing = activitynet_captions.listing(text("train.json", json.dumps(ANET)))
    assert (listing.split, listing.notes, listing.published) == ("train", (), None)
    assert [(clip.id, clip.names, clip.captions, clip.start, clip.end) for clip in clips(listing)] == [
        ("v_abc:0", ("v_abc", "abc"), ("A man runs.",), 0.0, 4.5),
        ("v_abc:1", ("v_abc", "abc"), ("He falls.",), 4.0, 9.01),
    ]
    assert refused(listing) == {
        "v_-x.y, sentence 1": "end is not after start",
        "v_odd": "not one timestamp for each sentence",
        "v_nan, sentence 1": "not a time",
        "v_nan, sentence 2": "not a time",
        "v_nan, sentence 3": "not a start and an end",
        "v_nan, sentence 4": "not a time",
    }


def test_activitynet_paragraphs(text: Text) -> None:
    listing = activitynet_captions.listing(text("val_1.json", json.dumps(ANET)), paragraph=True)
    assert (listing.split, listing.published) == ("test", 4917)
    assert [(clip.id, clip.captions, clip.start) for clip in clips(listing)] == [
        ("v_abc", ("A man runs. He falls.",), None),
        ("v_-x.y", ("A cat.",), None),
        ("v_nan", ("a b c d",), None),
    ]


def test_activitynet_training_on_validation_is_told(text: Text) -> None:
    path = text("val_1.json", json.dumps(ANET))
    assert "spoils" in activitynet_captions.listing(path, split="train").notes[0]
    assert not activitynet_captions.listing(path).notes


@pytest.mark.parametrize("content", ["[]", '{"v_a": 1}', '{"v_a": {"timestamps": [[0, 1]], "sentences": [3]}}'])
def test_activitynet_of_another_form(text: Text, content: str) -> None:
    listing = activitynet_captions.listing(text("train.json", content))
    try:
        assert not clips(listing) and refused(listing)
    except PrepareError as error:
        assert "train.json" in str(error)
