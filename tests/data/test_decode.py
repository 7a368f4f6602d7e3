"""The frames that are read are the right ones, at the right times, whatever the file is like."""

import hashlib
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_videos import GREY_LEVELS, read_numbers, set_display_matrix, write_video

from svilm.data import container
from svilm.data.container import OpenVideo, open_video
from svilm.data.decode import DecodeError, VideoIndex, _Reader, index_video, read_frames, scaled_size

B_FRAMES = {"preset": "medium", "x264-params": "threads=1:bframes=3:b-pyramid=normal:b-adapt=0:keyint=12"}
OPEN_GOP = {
    "preset": "medium",
    "x264-params": "threads=1:bframes=3:open-gop=1:keyint=10:min-keyint=10:b-adapt=0",
}


def grainy(picture: np.ndarray) -> np.ndarray:
    """With noise, so that most of the file is picture data, where damage does harm."""
    noise = np.random.default_rng(int(picture.sum())).integers(-24, 25, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264 gop 1": ("mp4", {"gop": 1}),
    "h264 gop 12": ("mp4", {"gop": 12}),
    "h264 gop 250": ("mp4", {"gop": 250}),
    "h264 b-frames": ("mp4", {"options": B_FRAMES}),
    "h264 open gop": ("mp4", {"options": OPEN_GOP}),
    "h264 fragments": ("mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "h264 mkv": ("mkv", {"options": B_FRAMES}),
    "h264 live mkv": ("mkv", {"container_options": {"live": "1"}}),
    "h264 mpegts": ("ts", {"options": B_FRAMES}),
    "h264 flv": ("flv", {}),
    "h264 raw": ("h264", {"options": B_FRAMES}),
    "hevc": ("mp4", {"codec": "libx265"}),
    "hevc mkv": ("mkv", {"codec": "libx265"}),
    "vp9": ("webm", {"codec": "libvpx-vp9"}),
    "vp8": ("webm", {"codec": "libvpx"}),
    "mpeg4 avi": ("avi", {"codec": "mpeg4"}),
    "mpeg4 mp4": ("mp4", {"codec": "mpeg4", "b_frames": 2}),
    "mpeg2": ("mpg", {"codec": "mpeg2video", "rate": 25, "b_frames": 2}),
    "mjpeg": ("mov", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "wmv": ("wmv", {"codec": "wmv2"}),
    "gif": ("gif", {"codec": "gif", "pixels": "rgb8"}),
}
SEEKABLE = [kind for kind, (suffix, _) in KINDS.items() if suffix in {"mp4", "mkv", "webm"}]


@pytest.fixture(scope="module")
def video_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VideoIndex]:
    """Index of a video of 40 frames, written once."""
    folder, made = tmp_path_factory.mktemp("kinds"), {}

    def get(kind: str) -> VideoIndex:
        if kind not in made:
            suffix, arguments = KINDS[kind]
            path = write_video(folder / f"{kind}.{suffix}".replace(" ", "_"), 40, **arguments)
            made[kind] = index_video(path)
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(kind: str, video_of: Callable[[str], VideoIndex]) -> None:
    index = video_of(kind)
    rate = KINDS[kind][1].get("rate", 10)
    assert len(index) == 40 and (index.width, index.height) == (64, 48)
    assert np.abs(index.seconds - np.arange(40) / rate).max() < 0.01
    assert index.duration == pytest.approx(40 / rate, abs=0.01)
    assert index.damage is None
    frames = read_frames(index, range(40))
    assert frames.shape == (40, 48, 64, 3) and frames.dtype == np.uint8
    assert read_numbers(frames) == list(range(40))


def test_key_frames(video_of: Callable[[str], VideoIndex]) -> None:
    assert np.flatnonzero(video_of("h264 gop 12").key_frames).tolist() == [0, 12, 24, 36]
    assert video_of("h264 gop 1").key_frames.all()
    assert np.flatnonzero(video_of("h264 gop 250").key_frames).tolist() == [0]
    assert not video_of("mpeg4 avi").key_frames.any()


@pytest.mark.parametrize("kind", SEEKABLE)
@given(numbers=st.lists(st.integers(0, 39), min_size=1, max_size=8))
@settings(max_examples=8, deadline=None)
def test_seeking_gives_the_frames_of_sequential_decoding(
    kind: str, numbers: list[int], video_of: Callable[[str], VideoIndex]
) -> None:
    index = video_of(kind)
    frames = read_frames(index, numbers, resize=32)
    assert np.array_equal(frames, read_frames(index, numbers, resize=32, seek=False))
    assert read_numbers(frames) == numbers


@pytest.mark.parametrize(
    ("kind", "numbers", "expected"),
    [
        ("h264 gop 12", [0, 5, 11], []),
        ("h264 gop 12", [30, 35, 5], [24]),
        ("h264 gop 12", [0, 39], [36]),
        ("h264 gop 12", [11, 12, 24], [24]),
        ("h264 gop 1", [3, 4, 5, 6, 8], []),
        ("h264 gop 1", [20, 21, 35], [20, 35]),
        ("h264 gop 250", [39], []),
        ("h264 mpegts", [39], []),
        ("h264 b-frames", [1, 2, 3, 6], []),
    ],
)
def test_seeks_only_when_that_skips_decoding(
    kind: str,
    numbers: list[int],
    expected: list[int],
    video_of: Callable[[str], VideoIndex],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, seeks = video_of(kind), []
    seek = OpenVideo.seek

    def watched(self: OpenVideo, pts: int) -> None:
        assert index.pts is not None
        seeks.append(index.pts.tolist().index(pts))
        seek(self, pts)

    monkeypatch.setattr(OpenVideo, "seek", watched)
    monkeypatch.setattr("svilm.data.decode._Reader.read_all", None)  # the second attempt would hide a bad seek
    assert read_numbers(read_frames(index, numbers)) == numbers
    assert seeks == expected


def test_only_what_is_wanted_is_decoded_where_frames_stand_alone(video_of: Callable[[str], VideoIndex]) -> None:
    index = video_of("mjpeg")
    assert index.pts is not None
    with open_video(index.path) as video:
        decoded = [(frame.pts, intact) for frame, intact in video.decode(only=index.pts[[3, 20]].tolist())]
    assert decoded == [(index.pts[3], True), (index.pts[20], True)]


def test_a_seek_that_lands_wrong_is_made_good(
    video_of: Callable[[str], VideoIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = video_of("h264 gop 12")
    assert index.pts is not None
    seek, too_far = OpenVideo.seek, int(index.pts[36])
    monkeypatch.setattr(OpenVideo, "seek", lambda self, pts: seek(self, too_far))
    assert read_numbers(read_frames(index, [14, 30])) == [14, 30]


def test_key_frames_that_refresh_the_picture_bit_by_bit(tmp_path: Path) -> None:
    refresh = {"preset": "medium", "x264-params": "threads=1:intra-refresh=1:keyint=12:bframes=0:scenecut=0"}
    index = index_video(write_video(tmp_path / "refresh.mp4", 60, turn=grainy, options=refresh))
    assert index.key_frames.sum() > 3
    right = read_frames(index, range(60), seek=False)
    for number in range(40, 60):
        assert np.array_equal(read_frames(index, [number])[0], right[number])


def test_key_frames_that_are_none(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "lies.mp4", 40, gop=250, codec="libx265", claim_keys=True))
    assert index.key_frames.all()
    frames = read_frames(index, [12, 30])
    assert np.array_equal(frames, read_frames(index, [12, 30], seek=False))
    assert read_numbers(frames) == [12, 30]


IRREGULAR = [0, 10, 11, 500, 505, 510, 2000, 2001, 2002, 9000, 9001, 60000]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_variable_frame_rate(suffix: str, tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / f"irregular.{suffix}", milliseconds=IRREGULAR))
    assert index.seconds == pytest.approx(np.array(IRREGULAR) / 1000)
    assert read_numbers(read_frames(index, range(12))) == list(range(12))


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_files_clock_may_start_anywhere(suffix: str, tmp_path: Path) -> None:
    times = [10_000 + 100 * i for i in range(12)]
    index = index_video(write_video(tmp_path / f"late.{suffix}", milliseconds=times))
    assert index.start_seconds == pytest.approx(10)
    assert index.seconds == pytest.approx(np.arange(12) / 10)
    assert read_numbers(read_frames(index, [11, 0])) == [11, 0]


def test_frames_hidden_by_an_edit_list(tmp_path: Path) -> None:
    path = write_video(tmp_path / "edited.mp4", 30, gop=12)
    data = bytearray(path.read_bytes())
    frame_ticks = data[data.index(b"stts") + 16 :][:4]
    at = data.index(b"elst") + 16  # where the only edit starts
    data[at : at + 4] = (5 * int.from_bytes(frame_ticks, "big")).to_bytes(4, "big")
    path.write_bytes(data)
    index = index_video(path)
    assert index.seconds == pytest.approx(np.arange(25) / 10)
    assert read_numbers(read_frames(index, range(25))) == list(range(5, 30))
    assert read_numbers(read_frames(index, [0, 20])) == [5, 25]


ALONE: dict[str, dict[str, Any]] = {
    "mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "prores": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "irregular": {"codec": "mjpeg", "pixels": "yuvj420p", "milliseconds": IRREGULAR},
    "late": {"codec": "mjpeg", "pixels": "yuvj420p", "milliseconds": [10_000 + 100 * i for i in range(12)]},
}


def edited(data: bytes) -> bytes:
    """An mp4 whose only edit begins five frames later."""
    ticks = int.from_bytes(data[data.index(b"stts") + 16 :][:4], "big")
    at = data.index(b"elst") + 16
    return data[:at] + (5 * ticks).to_bytes(4, "big") + data[at + 4 :]


def cut_short(data: bytes) -> bytes:
    return data[:-200]


def with_an_empty_frame(data: bytes) -> bytes:
    at = data.index(b"stsz") + 16 + 4 * 7
    return data[:at] + bytes(4) + data[at + 4 :]


@pytest.mark.parametrize(
    ("kind", "movflags", "change", "read"),
    [
        ("mjpeg", "faststart", bytes, 1),
        ("prores", "faststart", bytes, 1),
        ("irregular", "faststart", bytes, 1),
        ("late", "faststart", bytes, 12),
        ("mjpeg", "faststart", edited, 7),
        ("mjpeg", "faststart", cut_short, 12),
        ("mjpeg", "faststart", with_an_empty_frame, 12),
        ("mjpeg", "frag_keyframe+empty_moov", bytes, 12),
    ],
)
def test_files_whose_header_lists_the_frames_are_not_read_through(
    kind: str,
    movflags: str,
    change: Callable[[bytes], bytes],
    read: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_video(tmp_path / "alone.mov", **ALONE[kind], container_options={"movflags": movflags})
    path.write_bytes(change(path.read_bytes()))
    packets: list[int | None] = []
    reading = OpenVideo.packets

    def counted(self: OpenVideo) -> Iterator[Any]:
        for packet in reading(self):
            packets.append(packet.pts)
            yield packet

    monkeypatch.setattr(OpenVideo, "packets", counted)
    index = index_video(path)
    assert len(packets) in (read, read - 1)  # one is cut off, or empty
    monkeypatch.setattr("svilm.data.video_index._table", lambda video: [])
    listed = index_video(path)
    for each in fields(VideoIndex):
        assert np.array_equal(getattr(index, each.name), getattr(listed, each.name)), each.name


def test_a_file_cut_before_its_first_key_frame(tmp_path: Path) -> None:
    def drop(number: int, data: bytes) -> bytes | None:
        return None if number < 5 else data

    index = index_video(write_video(tmp_path / "cut.mkv", 30, gop=10, change_packet=drop))
    assert index.seconds[0] == pytest.approx(0.5)  # frames 5 to 9 cannot be decoded, but they took their time
    assert read_numbers(read_frames(index, range(len(index)))) == list(range(10, 30))


def left(picture: np.ndarray) -> np.ndarray:
    return np.rot90(picture, 1)


# How the picture lies in the file, and the matrix (a, b, c, d) that turns it upright.
TURNS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[int, int, int, int]]] = {
    "upright": (lambda picture: picture, (1, 0, 0, 1)),
    "quarter right": (left, (0, 1, -1, 0)),
    "upside down": (lambda picture: np.rot90(picture, 2), (-1, 0, 0, -1)),
    "quarter left": (lambda picture: np.rot90(picture, 3), (0, -1, 1, 0)),
    "mirrored": (np.fliplr, (-1, 0, 0, 1)),
    "flipped": (np.flipud, (1, 0, 0, -1)),
    "transposed": (lambda picture: picture.swapaxes(0, 1), (0, 1, 1, 0)),
    "anti-transposed": (lambda picture: np.rot90(picture, 2).swapaxes(0, 1), (0, -1, -1, 0)),
}
LOSSLESS: dict[str, Any] = {"codec": "ffv1", "pixels": "bgr0"}


@pytest.mark.parametrize("name", TURNS)
def test_display_matrix(name: str, tmp_path: Path) -> None:
    turn, matrix = TURNS[name]
    path = write_video(tmp_path / "turned.mp4", 4, width=96, height=64, turn=turn)
    index = index_video(set_display_matrix(path, *matrix))
    assert (index.width, index.height) == (96, 64)
    assert read_numbers(read_frames(index, range(4))) == [0, 1, 2, 3]
    assert read_numbers(read_frames(index, [3], resize=48)) == [3]
    twin = index_video(write_video(tmp_path / "twin.mp4", 4, width=96, height=64))
    part: dict[str, Any] = {"resize": (60, 50), "crop": (7, 3, 40, 30)}
    frames, expected = read_frames(index, range(4), **part), read_frames(twin, range(4), **part)
    assert np.abs(frames.astype(int) - expected).mean() < 3  # both were compressed, each in its own direction
    part = {"region": (14, 6, 50, 30), "resize": (50, 30)}
    frames, expected = read_frames(index, range(4), **part), read_frames(twin, range(4), **part)
    assert np.abs(frames.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (-1, 1, -1, -1)])
def test_matrices_that_are_no_quarter_turn_are_left_alone(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    index = index_video(set_display_matrix(write_video(tmp_path / "skewed.mp4", 4), *matrix))
    assert (index.width, index.height) == (64, 48)
    assert read_numbers(read_frames(index, range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize(("tag", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_orientation_from_a_cameras_exif(tag: int, turns: int, tmp_path: Path) -> None:
    entry = bytes.fromhex("0112 0003 00000001") + bytes([0, tag, 0, 0])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)

    def insert(number: int, jpeg: bytes) -> bytes:
        return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]

    path = tmp_path / "camera.mov"
    write_video(path, 3, codec="mjpeg", pixels="yuvj420p", turn=lambda p: np.rot90(p, turns), change_packet=insert)
    index = index_video(path)
    assert (index.width, index.height) == (64, 48)
    assert read_numbers(read_frames(index, range(3))) == [0, 1, 2]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 5), (17, 33), (129, 97)])
@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [("mp4", "libx264", "yuv444p"), ("webm", "libvpx-vp9", "yuv420p"), ("mov", "png", "rgb24")],
)
def test_odd_sizes(size: tuple[int, int], suffix: str, codec: str, pixels: str, tmp_path: Path) -> None:
    width, height = size
    path = write_video(tmp_path / f"odd.{suffix}", 4, width=width, height=height, codec=codec, pixels=pixels)
    index = index_video(path)
    assert (index.width, index.height) == size
    assert read_numbers(read_frames(index, range(4))) == [0, 1, 2, 3]
    assert read_frames(index, [3], resize=8).shape[1:3] == scaled_size(index, 8)[::-1]


@pytest.mark.parametrize(
    ("codec", "pixels"), [("libx264", "yuv420p10le"), ("libx265", "yuv420p10le"), ("ffv1", "gray10le")]
)
def test_more_than_eight_bits(codec: str, pixels: str, tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "deep.mkv", 6, codec=codec, pixels=pixels))
    frames = read_frames(index, range(6))
    assert read_numbers(frames) == list(range(6))
    assert np.median(frames[0]) == pytest.approx(32, abs=3)  # the dark grey that was painted


def test_colours_are_not_shifted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "grey.mp4", GREY_LEVELS, width=30, height=20, options={"crf": "1"})
    frames = read_frames(index_video(path), range(GREY_LEVELS))
    assert np.abs(frames.mean(axis=(1, 2, 3)) - (40 + 20 * np.arange(GREY_LEVELS))).mean() < 0.5


def test_resize_and_crop(video_of: Callable[[str], VideoIndex]) -> None:
    index = video_of("h264 gop 12")
    assert read_frames(index, [0], resize=24).shape == (1, 24, 32, 3)
    assert read_frames(index, [0], resize=(20, 30)).shape == (1, 30, 20, 3)
    whole = read_frames(index, [7, 2], resize=(80, 60))
    part = read_frames(index, [7, 2], resize=(80, 60), crop=(11, 5, 30, 40))
    assert np.array_equal(part, whole[:, 5:45, 11:41])
    for crop in [(0, 0, 81, 60), (60, 0, 21, 10), (-1, 0, 4, 4), (0, 0, 0, 4), (0, 55, 4, 6)]:
        with pytest.raises(ValueError, match="does not fit"):
            read_frames(index, [0], resize=(80, 60), crop=crop)


@pytest.mark.parametrize(
    ("codec", "pixels", "options"),
    [
        ("libx264", "yuv420p", {}),
        ("libx264", "yuv420p", {"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709:fullrange=on"}),
        ("libx264", "yuv422p", {}),
        ("libx264", "yuv444p", {}),
        ("libx264", "yuv420p10le", {}),
        ("libx264", "nv12", {}),
        ("mjpeg", "yuvj420p", {}),
        ("ffv1", "yuv410p", {}),
        ("ffv1", "gray10le", {}),
        ("ffv1", "bgr0", {}),
        ("ffv1", "yuva420p", {}),
        ("png", "rgb24", {}),
    ],
)
def test_a_region_is_cut_out_before_scaling(codec: str, pixels: str, options: dict[str, str], tmp_path: Path) -> None:
    def grain(picture: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, picture.shape, dtype=np.uint8)

    path = tmp_path / ("grain.mov" if codec == "png" else "grain.mkv")
    index = index_video(write_video(path, 1, codec=codec, pixels=pixels, turn=grain, options=options))
    whole = read_frames(index, [0])[0].astype(int)
    assert np.array_equal(read_frames(index, [0], region=(0, 0, 64, 48))[0], whole)
    for left, top, width, height in [(8, 4, 32, 24), (4, 0, 60, 20), (0, 12, 32, 36), (40, 20, 24, 28)]:
        part = read_frames(index, [0], region=(left, top, width, height))[0]
        expected = whole[top : top + height, left : left + width]
        assert part.shape == expected.shape
        difference = np.abs(part - expected)
        edge = 0 if pixels in ("yuv444p", "gray10le", "bgr0", "rgb24") else 4  # colours from beyond the border
        inside = difference[edge : height - edge or None, edge : width - edge or None]
        assert inside.max(initial=0) <= 1 and difference.mean() < 8
    scaled = read_frames(index, [0], region=(8, 4, 32, 24), resize=12, crop=(2, 1, 6, 5))
    again = read_frames(index, [0], region=(8, 4, 32, 24), resize=(16, 12))[:, 1:6, 2:8]
    assert np.array_equal(scaled, again)
    for region in [(0, 0, 65, 48), (60, 0, 5, 10), (-1, 0, 4, 4), (0, 0, 0, 4)]:
        with pytest.raises(ValueError, match=r"region .* does not fit into the picture of 64x48"):
            read_frames(index, [0], region=region)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list a process's threads")
def test_a_region_starts_no_threads(video_of: Callable[[str], VideoIndex]) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    reader = _Reader(video_of("h264 gop 12"), np.arange(40), (2, 2, 40, 30), (20, 15), (0, 0, 20, 15))
    reader.read_all()
    assert threads() == before and read_frames(reader.index, [0], region=(2, 2, 40, 30)).shape == (1, 30, 40, 3)


def test_a_region_of_odd_pictures_keeps_its_colours(tmp_path: Path) -> None:
    def halves(picture: np.ndarray) -> np.ndarray:
        picture = np.zeros_like(picture)
        picture[:, :41], picture[:, 41:] = (200, 40, 40), (40, 40, 200)
        return picture

    path = write_video(tmp_path / "odd.webm", 1, width=81, height=49, codec="libvpx-vp9", turn=halves)
    index = index_video(path)
    whole = read_frames(index, [0])[0].astype(int)
    for region in [(2, 2, 76, 44), (20, 10, 42, 38), (40, 0, 41, 49)]:
        left, top, width, height = region
        part = read_frames(index, [0], region=region)[0]
        assert np.abs(part - whole[top : top + height, left : left + width]).mean() < 4


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    def stripes(picture: np.ndarray) -> np.ndarray:
        picture = picture.copy()
        picture[:, ::2], picture[:, 1::2] = 0, 200
        return picture

    index = index_video(write_video(tmp_path / "stripes.mkv", 1, width=256, height=192, turn=stripes, **LOSSLESS))
    small = read_frames(index, [0], resize=48)[0, 4:-4, 4:-4].astype(int)
    assert np.abs(small - 100).max() < 12


def test_long_pictures_stay_in_memory(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "long.mp4", 1, width=2, height=4096))
    assert scaled_size(index, 256) == (256, 4096)


def test_requests(video_of: Callable[[str], VideoIndex]) -> None:
    index = video_of("h264 b-frames")
    assert read_frames(index, []).shape == (0, 48, 64, 3)
    assert read_numbers(read_frames(index, [9, 3, 9, 30, 3])) == [9, 3, 9, 30, 3]
    for numbers in ([40], [0, -1]):
        with pytest.raises(DecodeError) as caught:
            read_frames(index, numbers)
        assert caught.value.reason == "outside_clip"


def test_index_crosses_processes(video_of: Callable[[str], VideoIndex]) -> None:
    index = pickle.loads(pickle.dumps(video_of("h264 gop 12")))
    assert read_numbers(read_frames(index, [5, 25])) == [5, 25]


def test_picture_size_changes_midway(tmp_path: Path) -> None:
    first = write_video(tmp_path / "first.h264", 5, width=64, height=48)
    second = write_video(tmp_path / "second.h264", 5, width=128, height=96)
    path = tmp_path / "both.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    index = index_video(path)
    frames = read_frames(index, range(10))
    assert frames.shape == (10, 48, 64, 3)
    assert read_numbers(frames) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    part = read_frames(index, range(10), region=(16, 16, 32, 16))
    assert np.abs(part - frames[:, 16:32, 16:48].astype(int)).mean() < 4


DAMAGED: dict[str, tuple[str, dict[str, Any]]] = {
    "faststart": ("mp4", {"container_options": {"movflags": "faststart"}}),
    "fragments": ("mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "b-frames": ("mp4", {"options": B_FRAMES, "container_options": {"movflags": "faststart"}}),
    "mkv": ("mkv", {}),
    "mpegts": ("ts", {}),
    "mjpeg": ("mp4", {"codec": "mjpeg", "pixels": "yuvj420p", "container_options": {"movflags": "faststart"}}),
}


def cut(data: bytearray, at: int) -> None:
    del data[at:]


def blank(data: bytearray, at: int) -> None:
    data[at : at + 300] = bytes(len(data[at : at + 300]))


def flip_bits(data: bytearray, at: int) -> None:
    for place in range(at, len(data), 997):
        data[place] ^= 1 << place % 8


def outcome(path: Path) -> list[tuple[float, str]]:
    """Time and digest of each frame that can be read, or the reason why it cannot."""
    try:
        index = index_video(path)
    except DecodeError as error:
        return [(0, error.reason)]
    results = []
    for number, seconds in enumerate(index.seconds.tolist()):
        try:
            result = hashlib.sha256(read_frames(index, [number]).tobytes()).hexdigest()
        except DecodeError as error:
            assert error.reason == "damaged" and error.seconds == seconds
            result = error.reason
        results.append((round(seconds, 2), result))
    return results


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("damage", [cut, blank, flip_bits])
def test_damaged_files_give_right_frames_or_none(
    kind: str, damage: Callable[[bytearray, int], None], tmp_path: Path
) -> None:
    suffix, arguments = DAMAGED[kind]
    whole = write_video(tmp_path / f"whole.{suffix}", 16, gop=8, turn=grainy, **arguments)
    right = set(outcome(whole))
    assert len(right) == 16
    damaged = tmp_path / f"damaged.{suffix}"
    frames, intact, refused = 0, 0, 0
    for tenth in (4, 6, 9):
        data = bytearray(whole.read_bytes())
        damage(data, len(data) * tenth // 10)
        damaged.write_bytes(data)
        results = outcome(damaged)
        assert results == outcome(damaged)
        intact += len(right.intersection(results))
        refused += sum(result == "damaged" for _, result in results)
        frames += len(results)
    wrong = frames - intact - refused
    assert intact >= 8
    if damage is cut:
        assert wrong == 0
    else:
        # Some damage decodes without complaint into other pixels, most of all in JPEG, where few codes are wrong by
        # themselves; only a hash of the file can tell.
        assert refused > wrong * (0.5 if kind == "mjpeg" else 2)


def zero_tail(packet: bytes) -> bytes:
    return packet[:20] + bytes(len(packet) - 20)


def unreadable(packet: bytes) -> bytes:
    return b"\0\0\0\1\x61" + b"\xaa" * 60


@pytest.mark.parametrize("spoil", [zero_tail, unreadable])
@pytest.mark.parametrize("options", [{}, B_FRAMES, OPEN_GOP], ids=["plain", "b-frames", "open gop"])
def test_nothing_between_an_error_and_the_next_key_frame(
    spoil: Callable[[bytes], bytes], options: dict[str, str], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"gop": 12, "turn": grainy, "options": options}
    whole = index_video(write_video(tmp_path / "whole.mp4", 40, **arguments))
    right = read_frames(whole, range(40))
    spoilt = set()
    for place in (13, 15):

        def change(number: int, data: bytes, place: int = place) -> bytes:
            return spoil(data) if number == place else data

        path = write_video(tmp_path / f"spoilt {place}.mp4", 40, **arguments, change_packet=change)
        index = index_video(path)
        assert len(index) == 40
        for wanted in [*([number] for number in range(10, 26)), *([number, 38] for number in range(10, 18))]:
            try:
                frames = read_frames(index, wanted)
            except DecodeError as error:
                assert error.reason == "damaged" and error.seconds == pytest.approx(wanted[0] / 10)
                spoilt.add(wanted[0])
            else:
                assert np.array_equal(frames, right[wanted]), f"packet {place} spoilt: wrong frames {wanted}"
        assert read_numbers(read_frames(index, [0, 5, 38])) == [0, 5, 38]
    assert {14, 16} <= spoilt <= set(range(10, 28))


def test_a_picture_that_is_cut_off(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"codec": "mjpeg", "pixels": "yuvj420p", "turn": grainy}
    path = write_video(tmp_path / "cut.mov", 12, container_options={"movflags": "faststart"}, **arguments)
    path.write_bytes(path.read_bytes()[:-200])
    index = index_video(path)
    assert len(index) == 12 and index.damage is not None
    assert read_numbers(read_frames(index, range(11))) == list(range(11))
    with pytest.raises(DecodeError, match="damaged"):
        read_frames(index, [11])


def without_tables(packet: bytes) -> bytes:
    """A JPEG picture that leaves out its Huffman tables, as those in AVI may."""
    parts, at = [packet[:2]], 2
    while packet[at + 1] != 0xDA:  # start of scan
        end = at + 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
        parts += [packet[at:end]] if packet[at + 1] != 0xC4 else []
        at = end
    return b"".join([*parts, packet[at:]])


@pytest.mark.parametrize(
    "change",
    [
        without_tables,
        lambda packet: packet + bytes(333),
        lambda packet: packet[:-2],  # no end of image
        lambda packet: packet[:2] + b"\xff\xe1\x00\x08Exif\x00\x07" + packet[2:],
    ],
    ids=["no tables", "padding", "no end", "half an Exif header"],
)
@pytest.mark.parametrize("suffix", ["avi", "mov"])
def test_jpeg_pictures_as_cameras_write_them(suffix: str, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_video(
        tmp_path / f"camera.{suffix}", 5, codec="mjpeg", pixels="yuvj420p", options={"huffman": "default"},
        change_packet=lambda _, packet: change(packet),
    )  # fmt: skip
    index = index_video(path)
    assert index.damage is None and read_numbers(read_frames(index, range(5))) == [0, 1, 2, 3, 4]


def test_pictures_that_grow_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = write_video(tmp_path / "small.h264", 200, width=64, height=48)
    large = write_video(tmp_path / "large.h264", 5, width=128, height=96)
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 48)
    index = index_video(path)
    assert len(index) == 200 and index.damage is not None


def test_a_file_that_changed_since_it_was_listed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 24)
    index = index_video(path)
    write_video(path, 12)
    with pytest.raises(DecodeError, match="damaged"):
        read_frames(index, [20])
    with pytest.raises(DecodeError, match="not_found"):
        read_frames(replace(index, path=str(tmp_path / "gone.mp4")), [0])
