"""A packed dataset is the same dataset: the same entries, the same frames at the same times, in other files."""

import json
import os
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_videos import read_numbers, set_display_matrix, write_video

from svilm.data import cut, pack
from svilm.data.container import OpenVideo
from svilm.data.cut import H264, Job, Mjpeg, Packing, Piece, cut_out, even_size, frames_between
from svilm.data.decode import VideoIndex, index_video, read_frames, stream_frames
from svilm.data.manifest import Entry, Header, LabelledBox, Manifest, ManifestError, Segment, hold_out, write_manifest
from svilm.data.pack import in_order, moved
from svilm.data.sample import Sampling, choose_frames, clip_bounds

IRREGULAR = [0, 10, 11, 500, 505, 510, 2000, 2001, 2002, 9000, 9001, 60000]
SMALL = Packing(short_side=16, codec=H264(key_frames=4), shard_size=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", 40, rate=30, gop=10)
    write_video(folder / "b.mkv", 30, rate=10, gop=250)
    write_video(folder / "irregular.mkv", milliseconds=IRREGULAR)
    write_video(folder / "old.avi", 30, codec="mpeg4", rate=25)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def piece_of(
    path: Path, start: float | None, end: float | None, tmp_path: Path, **how: Any
) -> tuple[Piece, VideoIndex]:
    piece = cut_out(Job(str(path), start, end, Packing(**how)))
    assert not piece.reason
    (tmp_path / "piece.mp4").write_bytes(piece.data)
    return piece, index_video(tmp_path / "piece.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "irregular.mkv", "old.avi"])
@pytest.mark.parametrize(("start", "end"), [(None, None), (0.31, 1.0), (None, 0.7), (0.5, None)])
@pytest.mark.parametrize("strategy", ["uniform", "dense"])
@pytest.mark.parametrize("codec", [Mjpeg(), H264()], ids=str)
def test_a_sampler_gets_the_same_frames(
    name: str,
    start: float | None,
    end: float | None,
    strategy: Any,
    codec: Mjpeg | H264,
    videos: Path,
    tmp_path: Path,
) -> None:
    old = index_video(videos / name)
    piece, new = piece_of(videos / name, start, end, tmp_path, codec=codec)
    entry = moved(Entry("x", name, (), (), start, end), piece, "v.mp4")
    assert isinstance(entry, Entry)
    assert new.duration == pytest.approx(piece.duration, abs=1e-6)
    assert (entry.start is None, entry.end is None) == (start is None, end is None)
    sampling = Sampling(num_frames=5, strategy=strategy)
    for seed in [None, *range(3)]:
        picks = [
            choose_frames(
                index.seconds,
                *clip_bounds(index, *times),
                sampling,
                None if seed is None else np.random.default_rng(seed),
            )
            for index, times in ((old, (start, end)), (new, (entry.start, entry.end)))
        ]
        assert new.seconds[picks[1]] + piece.shift == pytest.approx(old.seconds[picks[0]], abs=1e-6)
        assert read_numbers(read_frames(new, picks[1])) == picks[0].tolist()


@given(
    steps=st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    begin=st.floats(0, 0.99),
    share=st.floats(0.01, 1.0),
    codec=st.sampled_from([Mjpeg(), H264()]),
)
@settings(max_examples=24, deadline=None)
def test_times_survive_whatever_they_are(
    steps: list[int], begin: float, share: float, codec: Mjpeg | H264, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("times")
    path = write_video(folder / "v.mkv", len(steps) + 1, milliseconds=np.cumsum([0, *steps]).tolist())
    old = index_video(path)
    start = begin * old.duration
    end = start + share * (old.duration - start)
    if not end > start:
        return
    cut._index.cache_clear()
    piece, new = piece_of(path, start, end, folder, codec=codec)
    numbers, _ = frames_between(old, start, end, 0.0)
    assert new.seconds + piece.shift == pytest.approx(old.seconds[numbers], abs=1e-6)
    assert piece.shift + piece.start == pytest.approx(start) and piece.shift + piece.end == pytest.approx(end)
    assert new.duration >= piece.end - 1e-6
    assert read_numbers(read_frames(new, range(len(new)))) == numbers.tolist()


@pytest.mark.parametrize(
    ("codec", "best", "apart", "off"),
    [(Mjpeg(), Mjpeg(qscale=1), 1, 20), (H264(key_frames=7), H264(crf=0), 7, 3)],
    ids=["mjpeg", "h264"],
)
def test_pictures(codec: Mjpeg | H264, best: Mjpeg | H264, apart: int, off: int, videos: Path, tmp_path: Path) -> None:
    piece, new = piece_of(videos / "a.mp4", None, None, tmp_path, short_side=24, codec=codec)
    assert (new.width, new.height) == (piece.width, piece.height) == (32, 24)
    assert np.diff(np.flatnonzero(new.key_frames)).max() <= apart
    with av.open(str(tmp_path / "piece.mp4")) as video:
        assert video.streams.video[0].codec_context.name == codec.codec
    assert piece_of(videos / "a.mp4", None, None, tmp_path)[1].height == 48  # never enlarged
    assert piece.data.index(b"moov") < piece.data.index(b"mdat")
    _, exact = piece_of(videos / "a.mp4", 0.2, 0.5, tmp_path, codec=best)
    wanted = read_frames(index_video(videos / "a.mp4"), range(6, 15)).astype(int)
    assert np.abs(read_frames(exact, range(9)) - wanted).max() <= off


@pytest.mark.parametrize("codec", [Mjpeg(qscale=1), H264(crf=0)], ids=str)
def test_colours_stay_where_they_are(codec: Mjpeg | H264, tmp_path: Path) -> None:
    """Unless H.264 says that its colours lie between the pixels, decoders shift them by half a pixel."""
    across = 128 + 100 * np.sin(np.arange(96) / 5)
    picture = np.stack(np.broadcast_arrays(across, 128.0, 255 - across), axis=-1).astype(np.uint8)[None]
    path = tmp_path / "colours.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "bgr0"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.repeat(picture, 64, axis=0), format="rgb24")
            file.mux(stream.encode(frame.reformat(format="bgr0")))
        file.mux(stream.encode(None))
    _, new = piece_of(path, None, None, tmp_path, codec=codec)
    row = read_frames(new, [1])[0, 32].astype(float)
    assert np.abs((row[:, 0] - row[:, 2]) - (2 * across - 255))[8:-8].mean() < 4


def test_turned_and_odd_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", 4, width=96, height=64, turn=lambda p: np.rot90(p, 1))
    index = index_video(set_display_matrix(path, 0, 1, -1, 0))
    _, new = piece_of(path, None, None, tmp_path)
    assert (index.width, index.height) == (new.width, new.height) == (96, 64)
    assert read_numbers(read_frames(new, range(4))) == [0, 1, 2, 3]
    odd = index_video(write_video(tmp_path / "odd.mkv", 2, width=65, height=49, codec="ffv1", pixels="bgr0"))
    assert even_size(odd, 256) == (64, 48) and even_size(odd, 31) == (40, 30)


def test_a_clip_with_boxes_keeps_its_middle(videos: Path, tmp_path: Path) -> None:
    end = index_video(videos / "b.mkv").duration
    box = (LabelledBox((0.1, 0.2, 0.3, 0.4), ("q",)),)
    entries = [
        Entry("late", "b.mkv", (), (), end - 1.5, end + 0.3, boxes=box),
        Entry("without", "b.mkv", (), (), end - 1.5, end + 0.3),
    ]
    packed = pack.pack(dataset(tmp_path, entries, videos), tmp_path / "packed", workers=0)
    late, without = new = Manifest(packed.manifest)
    middles = []
    for entry in (late, without):
        index = index_video(new.path_of(entry))
        pick = choose_frames(index.seconds, *clip_bounds(index, entry.start, entry.end), Sampling(num_frames=1), None)
        middles += read_numbers(read_frames(index, pick))
    assert middles == [24, 22]  # 0.6 and 0.75 s before the end of 30 frames at 10 a second


def test_fewer_frames_keep_their_times_and_the_middle(videos: Path, tmp_path: Path) -> None:
    old = index_video(videos / "a.mp4")
    piece, new = piece_of(videos / "a.mp4", None, None, tmp_path, fps=6)
    numbers = read_numbers(read_frames(new, range(len(new))))
    assert numbers == [0, 5, 10, 15, 20, 25, 30, 35]
    assert new.seconds == pytest.approx(old.seconds[numbers], abs=1e-6) and piece.duration == pytest.approx(
        old.duration
    )
    assert 21 in frames_between(old, 0.1, 1.3, 4.0)[0]


def test_streams_are_what_is_read(videos: Path) -> None:
    for name in ("a.mp4", "b.mkv", "old.avi"):
        index = index_video(videos / name)
        numbers = np.array([12, 13, 20, 29])
        streamed = np.stack([picture.copy() for picture in stream_frames(index, numbers, resize=24)])
        assert np.array_equal(streamed, read_frames(index, numbers, resize=24))


def dataset(folder: Path, entries: list[Entry], videos: Path, **header: Any) -> Path:
    path = folder / "old.jsonl"
    write_manifest(path, Header("test", str(videos), len(entries), **header), entries)
    return path


def some_entries() -> list[Entry]:
    return [
        Entry("one", "a.mp4", ("first", "second"), (("x",), ()), 0.31, 1.0, scene_changes=(0.1, 0.5, 2.0)),
        Entry("two", "b.mkv", ("déjà vu",), (("y", "z"),), labels=("l",), category="what"),
        Entry("one again", "a.mp4", ("third",), ((),), 0.31, 1.0),
        Entry("lost", "broken.mp4", ("x",), ((),)),
        Entry("long", "b.mkv", (), (), segments=(Segment(0.5, 1.5, "s"),), duration=3.1),
        Entry("part", "b.mkv", (), (), 1.05, 2.5, segments=(Segment(1.25, 2.0, "s"),), duration=3.1),
        Entry("outside", "b.mkv", (), (), 1.0, 2.0, segments=(Segment(0.5, 1.5, "s"),)),
        Entry("boxed", "a.mp4", ("b",), ((),), 0.0, 1.0, boxes=(LabelledBox((0.1, 0.2, 0.3, 0.4), ("q",)),)),
    ]


def test_the_whole_way(videos: Path, tmp_path: Path) -> None:
    old = dataset(tmp_path, some_entries(), videos, protocol="p", classes=("s",), nouns="n")
    packed = pack.pack(old, tmp_path / "packed", SMALL, workers=0)
    assert packed.entries == 8 and packed.written == 6 and packed.clips == 4 and packed.shards == 2
    assert {id: why.partition(":")[0] for id, why in packed.lost.items()} == {
        "lost": "not_a_video", "outside": "segments_outside",
    }  # fmt: skip
    assert "1 x not_a_video: lost (not_a_video: " in str(packed)
    new = Manifest(packed.manifest)
    assert new.header == replace(
        Manifest(old).header, root=".", protocol="p, packed at 16, h264 crf 23", official=8, struck=()
    )
    entries = {entry.id: entry for entry in new}
    assert list(entries) == ["one", "one again", "two", "long", "part", "boxed"]
    one = entries["one"]
    shift = 9 / 30
    assert one.video == entries["one again"].video == "00000.tar/000000.mp4"
    assert (one.start, one.end) == pytest.approx((0.31 - shift, 1.0 - shift))
    assert one.scene_changes == pytest.approx((0.5 - shift,))
    assert replace(one, video="a.mp4", start=0.31, end=1.0, scene_changes=(0.1, 0.5, 2.0)) == some_entries()[0]
    assert replace(entries["two"], video="b.mkv") == some_entries()[1]
    assert replace(entries["long"], video="b.mkv") == some_entries()[4] and entries["long"].duration == 3.1
    assert entries["part"].segments[0].start == pytest.approx(0.25)
    assert entries["boxed"].boxes == some_entries()[7].boxes
    for entry in new:
        index = index_video(new.path_of(entry))
        assert clip_bounds(index, entry.start, entry.end)
    with tarfile.open(tmp_path / "packed" / "00000.tar") as tar:
        assert tar.getnames() == [f"00000{n}.{kind}" for n in (0, 1) for kind in ("mp4", "txt", "json")]
        assert tar.extractfile("000001.txt").read().decode() == "déjà vu"  # type: ignore[union-attr]
        about = json.load(tar.extractfile("000000.json"))  # type: ignore[arg-type]
    assert about["captions"] == ["first", "second", "third"] and about["caption"] == "first" and about["url"] == "a.mp4"
    assert about["key"] == "000000" and about["status"] == "success" and about["clips"][0] == pytest.approx([0.31, 1.0])
    stats = json.loads((tmp_path / "packed" / "00000_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["status_dict"]) == (3, 2, {"not_a_video": 1, "success": 2})


def digests(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_clip_in_a_shard_is_listed_from_its_header(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack.pack(dataset(tmp_path, some_entries()[1:2], videos), tmp_path / "packed", workers=0)
    [entry] = new = Manifest(packed.manifest)
    shown = index_video(videos / "b.mkv").seconds
    read: list[Any] = []
    packets = OpenVideo.packets
    monkeypatch.setattr(OpenVideo, "packets", lambda self: (read.append(p) or p for p in packets(self)))
    assert index_video(new.path_of(entry)).seconds == pytest.approx(shown, abs=1e-6)
    assert len(read) == 1 < len(shown)


@pytest.mark.parametrize("codec", [Mjpeg(), SMALL.codec], ids=str)
def test_workers_and_interruptions_change_nothing(
    codec: Mjpeg | H264, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, packing = dataset(tmp_path, some_entries(), videos), SMALL.model_copy(update={"codec": codec})
    pack.pack(old, tmp_path / "whole", packing, workers=0)
    made: list[str] = []
    real = pack.os.replace

    def stop(source: Any, target: Any) -> None:
        if str(target).endswith("00001.tar"):
            raise KeyboardInterrupt
        made.append(str(target))
        real(source, target)

    monkeypatch.setattr(pack.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        pack.pack(old, tmp_path / "halves", packing, workers=0)
    assert (tmp_path / "halves" / "00000.tar").is_file() and not (tmp_path / "halves" / "00001.tar").exists()
    monkeypatch.undo()
    before = os.stat(tmp_path / "halves" / "00000.tar").st_mtime_ns
    again = pack.pack(old, tmp_path / "halves", packing, workers=2)
    assert again.new_shards == 1 and os.stat(tmp_path / "halves" / "00000.tar").st_mtime_ns == before
    assert digests(tmp_path / "halves") == digests(tmp_path / "whole")
    assert pack.pack(old, tmp_path / "halves", packing, workers=0).new_shards == 0


def test_a_folder_is_for_one_dataset(videos: Path, tmp_path: Path) -> None:
    old = dataset(tmp_path, some_entries()[:2], videos)
    pack.pack(old, tmp_path / "packed", SMALL, workers=0)
    with pytest.raises(ValueError, match="other settings"):
        pack.pack(old, tmp_path / "packed", SMALL.model_copy(update={"codec": H264(crf=30)}), workers=0)
    with pytest.raises(ValueError, match="holds the videos"):
        pack.pack(old, videos, SMALL, workers=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.tar").touch()
    with pytest.raises(ValueError, match="other origin"):
        pack.pack(old, tmp_path / "other", SMALL, workers=0)
    with pytest.raises(ValueError, match="divide before packing"):
        hold_out(tmp_path / "packed" / "manifest.jsonl", 1, rest=tmp_path / "r", held=tmp_path / "h")


def test_no_manifest_is_replaced(videos: Path, tmp_path: Path) -> None:
    old = dataset(tmp_path, some_entries()[:1], videos)
    source = old.rename(tmp_path / "manifest.jsonl")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.jsonl").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder, message in (
        (tmp_path, "would be replaced by the packed set's"),
        (tmp_path / "link", "would be replaced by the packed set's"),
        (tmp_path / "other", r"other/manifest\.jsonl is of other origin"),
    ):
        before = (folder / "manifest.jsonl").read_bytes()
        with pytest.raises(ValueError, match=message):
            pack.pack(source, folder, SMALL, workers=0)
        assert (folder / "manifest.jsonl").read_bytes() == before and not (folder / "pack.json").exists()


def test_a_test_split_shrinks_in_the_open_only(videos: Path, tmp_path: Path) -> None:
    old = dataset(tmp_path, some_entries()[:4], videos, split="test")
    with pytest.raises(ManifestError, match="1 of 4 test clips cannot be packed: lost: not_a_video"):
        pack.pack(old, tmp_path / "packed", SMALL, workers=0)
    packed = pack.pack(old, tmp_path / "packed", SMALL, workers=0, allow_missing=True)
    header = Manifest(packed.manifest).header
    assert packed.new_shards == 0 and header.official == 4 and header.struck[0].startswith("lost: not_a_video: ")
    with pytest.raises(ManifestError, match="none of its 1 clips"):
        pack.pack(dataset(tmp_path, some_entries()[3:4], videos), tmp_path / "nothing", SMALL, workers=0)


def test_a_full_disk_is_noticed(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = dataset(tmp_path, some_entries(), videos)
    usage = pack.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="make room"):
        pack.pack(old, tmp_path / "packed", SMALL, workers=0)
    assert sorted(path.name for path in (tmp_path / "packed").glob("*.tar*")) == ["00000.tar"]


def test_a_job_that_kills_its_process_costs_no_other() -> None:
    jobs = ["1 + 1", "__import__('os')._exit(1)", "3 + 3", "4 + 4"]
    assert list(in_order(eval, jobs, 1)) == [2, None, 6, 8]


def _dies_of_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_dies_while_a_result_is_used_costs_no_job() -> None:
    found = []
    for result in in_order(_dies_of_three, range(9), 1):
        found.append(result)
        time.sleep(0.5 if result == 0 else 0)  # a shard is written, and meanwhile the process dies
    assert found == [0, 1, 2, None, *range(4, 9)]
