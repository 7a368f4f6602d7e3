"""Videos good and odd, damaged and hostile, each with what must become of it; everything follows from a seed."""

import os
import random
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

sys.path.append(
    str(Path(__file__).parents[1] / "data")
)  # outside pytest the tests' helpers are not found by themselves
from make_videos import set_display_matrix, write_video

Expect = Literal["decode", "reject", "either"]


@dataclass(frozen=True)
class Case:
    """A file of the corpus."""

    path: str
    expect: Expect
    """decode: all frames, the right ones.  reject: for one of ``reasons``.  either: but always the same."""
    frames: int = 0
    """How many it has, numbered from 0; of a damaged one how many it had when it was whole."""
    size: tuple[int, int] = (64, 48)
    """Width and height of the upright picture."""
    reasons: tuple[str, ...] = ()
    tells: bool = False
    """A damaged file of a kind that says how long it is: it must not pass for whole."""


def make_corpus(folder: Path, seed: int, *, few: bool = False, cuts: int = 24, flips: int = 8) -> list[Case]:
    """Write the corpus below ``folder``; ``cuts`` and ``flips`` are how often each kind of file is damaged.

    With ``few`` kinds of files, drawn by chance, it takes a second or two.
    """
    rng = random.Random(f"corpus {seed}")
    makers: dict[str, Callable[[Path], Iterator[Case]]] = {
        "good": lambda place: good(place, rng, few),
        "damaged": lambda place: damaged(place, rng, few, cuts, flips),
        "hostile": lambda place: hostile(place, rng),
        "places": places,
    }
    cases = []
    for name, make in makers.items():
        (folder / name).mkdir(parents=True)
        cases += [replace(case, path=f"{name}/{case.path}") for case in make(folder / name)]
    return cases


def grainy(picture: np.ndarray) -> np.ndarray:
    """With noise, so that most of a file is picture data."""
    noise = np.random.default_rng(int(picture.sum())).integers(-24, 25, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


# Good ones

FASTSTART = {"container_options": {"movflags": "faststart"}}
FRAGMENTS = {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}
B_FRAMES = {"options": {"preset": "medium", "x264-params": "threads=1:bframes=3:b-pyramid=normal:b-adapt=0:keyint=12"}}
OPEN_GOP = {"options": {"preset": "medium", "x264-params": "threads=1:bframes=3:open-gop=1:keyint=10:b-adapt=0"}}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264": ("mp4", {}),
    "h264 faststart": ("mp4", FASTSTART),
    "h264 fragments": ("mp4", FRAGMENTS),
    "h264 b-frames": ("mp4", B_FRAMES),
    "h264 open gop": ("mp4", OPEN_GOP),
    "h264 one key frame": ("mp4", {"gop": 10_000}),
    "h264 all key frames": ("mp4", {"gop": 1}),
    "h264 422": ("mp4", {"pixels": "yuv422p"}),
    "h264 444": ("mp4", {"pixels": "yuv444p"}),
    "h264 grey": ("mp4", {"pixels": "gray"}),
    "h264 full range": ("mp4", {"pixels": "yuvj420p"}),
    "h264 10 bit": ("mp4", {"pixels": "yuv420p10le"}),
    "h264 mkv": ("mkv", B_FRAMES),
    "h264 live mkv": ("mkv", {"container_options": {"live": "1"}}),
    "h264 ts": ("ts", {}),
    "h264 flv": ("flv", {}),
    "h264 raw": ("h264", {}),
    "hevc": ("mp4", {"codec": "libx265"}),
    "hevc 10 bit": ("mkv", {"codec": "libx265", "pixels": "yuv420p10le"}),
    "vp8": ("webm", {"codec": "libvpx"}),
    "vp9": ("webm", {"codec": "libvpx-vp9"}),
    "mpeg4": ("avi", {"codec": "mpeg4"}),
    "mpeg2": ("mpg", {"codec": "mpeg2video", "rate": 25}),
    "mjpeg": ("avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "raw": ("avi", {"codec": "rawvideo", "pixels": "bgr24"}),
    "png alpha": ("mov", {"codec": "png", "pixels": "rgba"}),
    "ffv1": ("mkv", {"codec": "ffv1", "pixels": "gray10le"}),
    "wmv": ("wmv", {"codec": "wmv2"}),
    "gif": ("gif", {"codec": "gif", "pixels": "rgb8"}),
}
ANY_SIZE = ("h264 444", "vp8", "vp9", "mpeg4", "mjpeg", "raw", "png alpha")

TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "turned 90": ((0, 1, -1, 0), lambda picture: np.rot90(picture, 1)),
    "turned 180": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "turned 270": ((0, -1, 1, 0), lambda picture: np.rot90(picture, -1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
}

NAMES = [
    *(b"new\nline.mp4", b"tab\tand\rreturn.mp4", b"-i.mp4", b"--help.mp4", b" .mp4", b"..mp4", b".hidden.mp4"),
    *(b"percent%03d.mp4", b"glob*[a-z]?.mp4", b"$(id).mp4", b"`id`;|&.mp4", b"hash#query?a=1.mp4", b"quote'\".mp4"),
    *(b"Trip: day 1.mp4", b"http:x.mp4", b"concat:a|b.mp4", b"file:x.mp4", b"data:x.mp4", b"pipe:0.mp4", b"null%00"),
    *(b"subfile,,start,0,end,0,,:x.mp4", b"back\\slash.mp4", b"no extension", b"x.mp4.MP4", b"esc\x1b[31m.mp4"),
    *("视频 🎬.mp4".encode(), "rtl\u202egpj.mp4".encode(), "line\u2028end.mp4".encode()),
    *(b"not text \xff\xfe.mp4", b"latin1 \xe9.mp4", b"x" * 240 + b".mp4"),
]


def good(folder: Path, rng: random.Random, few: bool) -> Iterator[Case]:
    """Every kind of file with sizes, lengths and rates by chance; odd times, turned pictures, any name."""

    def write(name: str, frames: int, size: tuple[int, int], **more: Any) -> Case:
        write_video(folder / name, frames, width=size[0], height=size[1], **more)
        return Case(name, "decode", frames, size)

    for kind in rng.sample(list(KINDS), 5 if few else len(KINDS)):
        suffix, arguments = KINDS[kind]
        frames = rng.randint(12, 40)
        size = 2 * rng.randint(24, 80), 2 * rng.randint(20, 60)
        if kind == "gif":  # its frames fill whole hundredths of a second
            size = 64, 48
        yield write(f"{kind}.{suffix}", frames, size, **{"rate": rng.choice([5, 10, 24, 25, 50]), **arguments})
    for kind in rng.sample(ANY_SIZE, 1 if few else len(ANY_SIZE)):
        suffix, arguments = KINDS[kind]
        for width, height in (
            (1, 1),
            (rng.randint(2, 9), rng.randint(2, 9)),
            (rng.randint(33, 99), rng.randint(24, 99)),
        ):
            yield write(f"{kind} {width}x{height}.{suffix}", 5, (width, height), **arguments)
    for size in ((4096, 2), (2, 2048), (1920, 1080))[: 2 if few else 3]:
        yield write(f"{size[0]}x{size[1]}.mp4", 3, size)
    for frames in (1, 2, 40 if few else 600):
        yield write(f"{frames} frames.mp4", frames, (64, 48), gop=frames)
    for name in rng.sample(list(TURNS), 2 if few else len(TURNS)):
        matrix, turn = TURNS[name]
        yield write(f"{name}.mp4", 6, (96, 64), turn=turn)
        set_display_matrix(folder / f"{name}.mp4", *matrix)
    times = sorted(rng.sample(range(60_000), 12))
    for suffix in ("mkv", "mp4"):
        yield write(f"at any time.{suffix}", 12, (64, 48), milliseconds=[time - times[0] for time in times])
        yield write(f"an hour between.{suffix}", 4, (64, 48), milliseconds=[0, 100, 3_600_000, 3_600_100])
    yield write("late.mkv", 5, (64, 48), milliseconds=[10_000 + 100 * number for number in range(5)])
    whole = write_video(folder / "plain.mp4", 12).read_bytes()
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(whole)
        yield Case(os.fsdecode(name), "decode", 12)


# Damaged ones

WHOLE = 40
"""Frames of each before it is damaged."""
DAMAGED = ("h264", "h264 faststart", "h264 fragments", "h264 mkv", "h264 ts", "hevc", "vp9", "mpeg4")
TELLING = ("h264 faststart", "h264 mkv", "vp9", "mpeg4")
"""Those whose headers say where the file ends."""


def damaged(folder: Path, rng: random.Random, few: bool, cuts: int, flips: int) -> Iterator[Case]:
    """Files cut short, with bits flipped, stretches zeroed, headers overwritten, and rubbish behind their end."""
    for kind in rng.sample(DAMAGED, 3 if few else len(DAMAGED)):
        suffix, arguments = KINDS[kind]
        path = write_video(folder / f"whole {kind}.{suffix}", WHOLE, turn=grainy, **arguments)
        yield Case(path.name, "decode", WHOLE)
        whole = path.read_bytes()
        for what, data in _damage(whole, rng, cuts, flips):
            name = f"{kind} {what}.{suffix}"
            (folder / name).write_bytes(data)
            if kind == "h264" and what.startswith("cut") and len(data) < whole.index(b"stbl"):
                reasons = ("damaged", "not_a_video")  # its list of frames stands at the end
                yield Case(name, "reject", reasons=reasons)
            else:
                tells = kind in TELLING and what.startswith("cut")
                yield Case(name, "either", WHOLE, tells=tells)


def _damage(whole: bytes, rng: random.Random, cuts: int, flips: int) -> Iterator[tuple[str, bytes]]:
    for place in sorted({*rng.sample(range(1, len(whole)), cuts), 1, 8, len(whole) - 1}):
        yield f"cut {place}", whole[:place]
    for number in range(flips):
        for count in (1, 30, 1000):
            data = bytearray(whole)
            for _ in range(count):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            yield f"flip {count} {number}", bytes(data)
        data = bytearray(whole)
        header = min(600, len(data)) if whole.find(b"moov") < len(data) // 2 else 900
        for _ in range(16):
            data[rng.randrange(header) - (header if header == 900 else 0)] = rng.randrange(256)
        yield f"header {number}", bytes(data)
    for name, start, length in (("start", 0.0, 0.02), ("middle", 0.4, 0.2), ("end", 0.9, 0.1)):
        data, first = bytearray(whole), int(len(whole) * start)
        count = len(data[first : first + max(16, int(len(data) * length))])
        data[first : first + count] = bytes(count)
        yield f"zeros {name}", bytes(data)
    yield "rubbish", whole + rng.randbytes(50_000)


# Hostile ones

MIB = 1 << 20
NO_VIDEO = ("not_a_video", "no_video_stream", "damaged", "no_frames")
TOO_LARGE = ("too_large", "no_frames")


def hostile(folder: Path, rng: random.Random) -> Iterator[Case]:
    """No videos at all, videos that ask for too much, and files that would open others."""
    plain = write_video(folder / "plain.mp4", 12).read_bytes()
    yield Case("plain.mp4", "decode", 12)
    fragments = write_video(folder / "fragments.mp4", 12, **FRAGMENTS).read_bytes()
    yield Case("fragments.mp4", "decode", 12)
    many = rng.randint(20, 90) * 1_000_000
    side = rng.randint(9_000, 60_000)
    contents: dict[str, tuple[bytes, tuple[str, ...]]] = {
        "empty": (b"", ("empty",)),
        "one byte": (b"\0", ("not_a_video",)),
        "zeros": (bytes(MIB), ("not_a_video",)),
        "random": (rng.randbytes(MIB), ("not_a_video",)),
        "text": (b"hello, this is no video\n" * 50, ("not_a_video",)),
        "page": (b"<!DOCTYPE html><title>403 Forbidden</title>" + b"x" * 4000, ("not_a_video",)),
        "json": (b'{"error": {"code": 410}}', ("not_a_video",)),
        "zip": (b"PK\x03\x04" + rng.randbytes(3000), ("not_a_video",)),
        "subtitles": (b"1\n00:00:01,000 --> 00:00:02,000\nhello\n", NO_VIDEO),
        "picture": (png(64, 48), ("still_image",)),
        "large picture": (png(16384, 16384), ("still_image",)),
        "only a head": (box(b"ftyp", b"isom" + bytes(4)), NO_VIDEO),
        "nested": (box(b"ftyp", b"isom" + bytes(4)) + nested(b"moov", 20_000), NO_VIDEO),
        "endless boxes": (box(b"ftyp", b"isom" + bytes(4)) + (bytes(4) + b"free") * 1000, NO_VIDEO),
        "huge box": (box(b"ftyp", b"isom" + bytes(4)) + struct.pack(">I4sQ", 1, b"moov", (1 << 63) - 1), NO_VIDEO),
        "odd codec": (plain.replace(b"avc1", b"xyzw"), ("unsupported",)),
        "no data": (zeroed(plain), ("no_frames",)),
        "list of samples": (patched(plain, b"stsz", 4, 1, many), ("too_large",)),
        "run of samples": (patched(fragments, b"trun", 0, 1, rng.randint(20, 60) * 1_000_000), ("too_large",)),
        "tracks": (more_tracks(plain, rng.randint(80, 900)), ("too_large",)),
        "h264 size": (h264_of(side // 16, side // 16, 3), (*TOO_LARGE, "not_a_video", "unsupported")),
        "h264 size often": (h264_of(550, 550, 400), (*TOO_LARGE, "not_a_video", "unsupported")),
        "playlist": (b"#EXTM3U\n#EXTINF:10,\nplain.mp4\n#EXT-X-ENDLIST\n", ("forbidden_format",)),
        "playlist of the net": (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n", ("forbidden_format",)),
        "concat": (b"ffconcat version 1.0\nfile plain.mp4\n", ("forbidden_format",)),
        "session": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\n", ("forbidden_format",)),
        "dash": (b'<?xml version="1.0"?><MPD type="static"><Period/></MPD>', ("not_a_video", "forbidden_format")),
    }
    for name, (data, reasons) in contents.items():
        (folder / f"{name}.mp4").write_bytes(data)
        yield Case(f"{name}.mp4", "reject", reasons=reasons)
    bomb = png(16384, 16384)
    write_video(folder / "lying.mov", 3, codec="png", pixels="rgb24", change_packet=lambda _number, _data: bomb)
    yield Case("lying.mov", "reject", reasons=TOO_LARGE)
    write_sound(folder / "sound.m4a", cover=False)
    yield Case("sound.m4a", "reject", reasons=("no_video_stream",))
    write_sound(folder / "cover.m4a", cover=True)
    yield Case("cover.m4a", "reject", reasons=("still_image", "no_video_stream"))


def places(folder: Path) -> Iterator[Case]:
    """What lies in a folder and is no file, and links."""
    target = write_video(folder / "target.mp4", 3)
    yield Case(target.name, "decode", 3)
    links = {
        "link.mp4": ("target.mp4", ()),
        "loop.mp4": ("other loop.mp4", ("not_found",)),
        "other loop.mp4": ("loop.mp4", ("not_found",)),
        "nowhere.mp4": ("gone.mp4", ("not_found",)),
        "zero.mp4": ("/dev/zero", ("outside_folder",)),
        "passwd.mp4": ("/etc/passwd", ("outside_folder",)),
        "above": ("..", ("not_regular_file",)),
    }
    for name, (to, reasons) in links.items():
        (folder / name).symlink_to(to)
        yield Case(name, "reject" if reasons else "decode", 0 if reasons else 3, reasons=reasons)
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as door:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket is at most a hundred bytes long
        try:
            door.bind("socket.mp4")
        finally:
            os.chdir(here)
    for name in ("folder.mp4", "pipe.mp4", "socket.mp4"):
        yield Case(name, "reject", reasons=("not_regular_file",))
    with open(folder / "sparse.mp4", "wb") as file:
        file.truncate(16 << 30)
    yield Case("sparse.mp4", "reject", reasons=("not_a_video",))


# Bytes


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an mp4."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def nested(kind: bytes, depth: int) -> bytes:
    """Boxes in boxes."""
    return b"".join(struct.pack(">I4s", 8 * (depth - level), kind) for level in range(depth))


def patched(data: bytes, kind: bytes, offset: int, *numbers: int) -> bytes:
    """With other numbers in the first box of this kind, ``offset`` bytes behind its name."""
    at = data.index(kind) + 4 + offset
    return data[:at] + b"".join(struct.pack(">I", number) for number in numbers) + data[at + 4 * len(numbers) :]


def zeroed(data: bytes) -> bytes:
    """An mp4 with nothing in its pictures."""
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    return data[:start] + bytes(end - start) + data[end:]


def more_tracks(data: bytes, count: int) -> bytes:
    """An mp4 that has its only track so many times; ``moov`` is its last box."""
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    length = int.from_bytes(data[trak : trak + 4], "big")
    return data[:moov] + box(b"moov", data[moov + 8 :] + data[trak : trak + length] * (count - 1))


def png(width: int, height: int) -> bytes:
    """A black picture, one bit to the pixel: a large one takes little room."""
    line = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def h264_of(wide: int, high: int, pictures: int) -> bytes:
    """An H.264 stream of pictures of so many blocks of 16x16, of which only the headers are there."""

    def number(value: int) -> str:  # Exp-Golomb
        bits = f"{value + 1:b}"
        return "0" * (len(bits) - 1) + bits

    def unit(kind: int, bits: str) -> bytes:
        bits += "1"
        bits += "0" * (-len(bits) % 8)
        data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
        for byte in range(4):  # two zeros and a small byte would begin something else
            data = data.replace(bytes([0, 0, byte]), bytes([0, 0, 3, byte]))
        return b"\0\0\0\1" + bytes([kind]) + data

    profile = f"{66:08b}{0:08b}{62:08b}"
    sequence = profile + "".join(map(number, (0, 0, 2, 1))) + "0" + number(wide - 1) + number(high - 1) + "1100"
    picture = number(0) * 2 + "00" + number(0) * 3 + "000" + number(0) * 3 + "000"
    stream = unit(0x67, sequence) + unit(0x68, picture)
    for count in range(pictures):
        slices = number(0) + number(7) + number(0) + "0000" + number(count % 2) + "00" + number(0) + number(25)
        stream += unit(0x65, slices) + b"\x80" * 64
    return stream


def write_sound(path: Path, cover: bool) -> None:
    """Silence, perhaps with a picture on its cover."""
    with av.open(str(path), "w", format="mp4") as file:
        sound: Any = file.add_stream("aac", rate=48000)
        if cover:
            picture: Any = file.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
            file.mux(picture.encode(av.VideoFrame(16, 16, "rgb24")))
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 48000, 1024 * number
            file.mux(sound.encode(frame))
        file.mux(sound.encode())
