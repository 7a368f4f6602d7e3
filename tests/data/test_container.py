"""What is not a readable video is refused with a typed reason, and nothing but the named file is opened."""

import errno
import os
import pickle
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from make_videos import read_numbers, write_video

from svilm.data import container
from svilm.data.container import DecodeError, open_video
from svilm.data.decode import index_video, read_frames


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("good") / "good.mp4", 4)


def refusal(path: Path | str) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        index_video(path)
    assert "\n" not in str(caught.value)
    return caught.value


CONTENTS = {
    "text": (b"hello, this is not a video\n" * 50, "not_a_video"),
    "zeros": (bytes(1 << 16), "not_a_video"),
    "one byte": (b"\0", "not_a_video"),
    "web page": (b"<!DOCTYPE html><html><title>403 Forbidden</title></html>" * 20, "not_a_video"),
    "json": (b'{"error": {"code": 410}}' * 10, "not_a_video"),
    "zip": (b"PK\x03\x04" + bytes(3000), "not_a_video"),
    "hls playlist": (b"#EXTM3U\n#EXTINF:10,\ngood.mp4\n#EXT-X-ENDLIST\n", "forbidden_format"),
    "concat script": (b"ffconcat version 1.0\nfile good.mp4\n", "forbidden_format"),
    "sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 18998 RTP/AVP 96\n", "forbidden_format"),
    "nothing": (b"", "empty"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_that_is_no_video(name: str, good: Path, tmp_path: Path) -> None:
    data, reason = CONTENTS[name]
    shutil.copy(good, tmp_path / "good.mp4")  # what the playlists would play
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    assert refusal(path).reason == reason


def test_things_that_are_not_regular_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.mp4").reason == "not_found"
    assert refusal(str(tmp_path / "good.mp4\0.jpg")).reason == "not_found"
    assert refusal(tmp_path).reason == "not_regular_file"
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert refusal(tmp_path / "loop.mp4").reason == "not_found"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refusal(tmp_path / "pipe.mp4").reason == "not_regular_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(good: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(good, tmp_path / "secret.mp4"))
    path.chmod(0)
    assert refusal(path).reason == "no_permission"


def test_still_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.mp4"
    with av.open(str(path), "w", format="image2") as file:
        stream = file.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb24"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8))))
    assert refusal(path).reason == "still_image"


def write_audio(path: Path, cover: bool) -> Path:
    with av.open(str(path), "w", format="mp4") as file:
        audio = file.add_stream("aac", rate=48000)
        if cover:
            picture = file.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            file.mux(picture.encode(av.VideoFrame(16, 16, "yuvj420p")))
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 48000, 1024 * number
            file.mux(audio.encode(frame))
        file.mux(audio.encode())
    return path


def test_audio(tmp_path: Path) -> None:
    assert refusal(write_audio(tmp_path / "sound.mp4", cover=False)).reason == "no_video_stream"
    assert refusal(write_audio(tmp_path / "cover.mp4", cover=True)).reason == "still_image"


def test_mp4_without_its_index(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    data = good.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])
    error = refusal(path)
    assert error.reason == "damaged" and "cut short" in error.message


def test_what_a_file_cut_short_lacks_is_said(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    data = good.read_bytes()
    for place in (data.index(b"tkhd"), data.index(b"stts")):
        path.write_bytes(data[:place])
        error = refusal(path)
        assert error.reason == "damaged" and f"cut short: {place} of {len(data)} bytes are there" in error.message


def test_content_that_ffmpeg_calls_not_permitted(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("av.open", forbid)
    path = tmp_path / "odd"
    path.write_bytes(b"odd")
    assert refusal(path).reason == "not_a_video"


def test_want_of_memory(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object, **__: object) -> None:
        raise av.error.FFmpegError(errno.ENOMEM, "Cannot allocate memory")

    with open_video(str(good)) as video, pytest.raises(DecodeError, match="too_large"):
        video.codec = SimpleNamespace(decode=starve)
        list(video.decode())
    monkeypatch.setattr("av.open", starve)
    assert refusal(good).reason == "too_large"


def test_unknown_codec(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    path.write_bytes(good.read_bytes().replace(b"avc1", b"xyzw"))
    assert refusal(path).reason == "unsupported"


def test_nothing_to_decode(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "zeroed.mp4"
    data = bytearray(good.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    assert refusal(path).reason == "no_frames"


def test_limits(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 48)
    assert len(index_video(good)) == 4
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 48 - 1)
    assert refusal(good).reason == "too_large"


def test_a_lying_header_does_not_get_round_the_pixel_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "bomb.mov", 1, width=128, height=96, codec="png", pixels="rgb24")
    data = path.read_bytes()
    assert data.count(bytes.fromhex("00800060")) == 1  # width and height in the sample description
    path.write_bytes(data.replace(bytes.fromhex("00800060"), bytes.fromhex("00400030")))
    assert index_video(path).width == 128
    monkeypatch.setattr(container, "MAX_PIXELS", 64 * 48)
    assert refusal(path).reason in {"too_large", "no_frames"}


def test_too_many_streams(tmp_path: Path) -> None:
    path = tmp_path / "streams.mkv"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("rawvideo", rate=1) for _ in range(container.MAX_STREAMS + 6)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 8, 8, "yuv420p"
        for stream in streams:
            frame = av.VideoFrame(8, 8, "yuv420p")
            frame.pts, frame.time_base = 0, Fraction(1)
            file.mux(stream.encode(frame))
    assert refusal(path).reason in {"too_large", "damaged"}


NAMES = ["Trip: day 1.mp4", "http:evil.mp4", "concat:a|b.mp4", "percent%03d.mp4", "new\nline.mp4", "-i.mp4"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"latin1_\xe9.mp4")])
def test_a_path_is_never_a_url_or_a_pattern(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(good, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    index = index_video(name)
    assert read_numbers(read_frames(index, range(4))) == [0, 1, 2, 3]


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "title.mkv"
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "TITLE"
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height = 8, 8
        file.mux(stream.encode(av.VideoFrame(8, 8, "yuv420p")))
        file.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xff\xfeLE"))
    assert len(index_video(path)) == 1


def test_errors_cross_processes_and_fit_on_a_line(tmp_path: Path) -> None:
    error = DecodeError(str(tmp_path / "new\nline.mp4"), 3.25, "damaged", "frame 7 cannot be decoded")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.seconds, copy.reason, copy.message) == (
        error.path,
        3.25,
        "damaged",
        "frame 7 cannot be decoded",
    )
    assert str(copy) == str(error)
    assert "\n" not in str(error) and "at 3.25 s: frame 7" in str(error) and "(damaged)" in str(error)


def test_decoding_is_single_threaded(good: Path) -> None:
    with open_video(str(good)) as video:
        assert video.codec.thread_count == 1
        assert video.codec.thread_type == av.codec.context.ThreadType.SLICE


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
def test_files_are_closed(good: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes().replace(b"avc1", b"xyzw"))
    before = len(os.listdir("/proc/self/fd"))
    index = index_video(good)
    for _ in range(5):
        read_frames(index, [0, 3])
        refusal(broken)
    assert len(os.listdir("/proc/self/fd")) == before
