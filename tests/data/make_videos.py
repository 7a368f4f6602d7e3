"""Small, odd videos whose pictures show their own frame number.

The number stands in twelve squares that fill the picture (four columns, three rows, lowest bit first), so it
can be read back after any resizing; pictures too small for that are flat grey, eight levels in turn.
"""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

_COLUMNS, _ROWS = 4, 3
_DARK, _BRIGHT = 32, 224
GREY_LEVELS = 8
"""Pictures too small for squares repeat after this many frames."""


def paint(number: int, width: int, height: int) -> np.ndarray:
    """An RGB picture that shows ``number`` (below 4096)."""
    if not _has_squares(width, height):
        return np.full((height, width, 3), 40 + 20 * (number % GREY_LEVELS), np.uint8)
    column = np.arange(width) * _COLUMNS // width
    row = np.arange(height) * _ROWS // height
    bit = (number >> (row[:, None] * _COLUMNS + column[None, :])) & 1
    return np.repeat(np.where(bit, _BRIGHT, _DARK).astype(np.uint8)[:, :, None], 3, axis=2)


def read_number(picture: np.ndarray) -> int:
    """The number that an upright RGB picture shows, from the middle of each square."""
    height, width = picture.shape[:2]
    if not _has_squares(width, height):
        return round((float(picture.mean()) - 40) / 20)
    number = 0
    for bit in range(_COLUMNS * _ROWS):
        row, column = divmod(bit, _COLUMNS)
        y, x = int((row + 0.5) * height / _ROWS), int((column + 0.5) * width / _COLUMNS)
        number |= int(picture[y - 1 : y + 2, x - 1 : x + 2].mean() > 128) << bit
    return number


def read_numbers(pictures: np.ndarray) -> list[int]:
    """``read_number`` of each picture."""
    return [read_number(picture) for picture in pictures]


def write_video(
    path: Path,
    frames: int = 12,
    *,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 10,
    gop: int = 12,
    b_frames: int = 0,
    milliseconds: Sequence[int] | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    turn: Callable[[np.ndarray], np.ndarray] = lambda picture: picture,
    change_packet: Callable[[int, bytes], bytes | None] | None = None,
    claim_keys: bool = False,
) -> Path:
    """Write a video whose frame i shows i; ``turn`` is how the picture lies in the file.

    ``milliseconds`` gives each frame's time, otherwise ``rate`` does.  ``change_packet`` may rewrite the
    packets, by their number in the file, or drop them (None); ``claim_keys`` marks all as key frames.
    """
    options = dict(options or {})
    if codec == "libx264":
        threads = f"threads=1:lookahead-threads=1:keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}"
        options = {"preset": "ultrafast", "x264-params": threads} | options
    if codec == "libx265":
        options = {"preset": "ultrafast", "x265-params": f"log-level=none:pools=1:keyint={gop}"} | options
    time_base = Fraction(1, rate) if milliseconds is None else Fraction(1, 1000)
    with av.open(str(path), "w", format=container, options=container_options or {}) as file:
        stream: Any = file.add_stream(codec, rate=rate if milliseconds is None else 1000, options=options)
        stream.height, stream.width = turn(paint(0, width, height)).shape[:2]
        stream.pix_fmt = pixels
        coder = stream.codec_context
        coder.time_base, coder.thread_count = time_base, 1
        coder.gop_size, coder.max_b_frames = gop, b_frames
        count = 0
        for number in [*range(frames), None]:
            frame = None
            if number is not None:
                picture = np.ascontiguousarray(turn(paint(number, width, height)))
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
                frame.pts = number if milliseconds is None else milliseconds[number]
                frame.time_base = time_base
            for packet in stream.encode(frame):
                data = bytes(packet) if change_packet is None else change_packet(count, bytes(packet))
                count += 1
                if change_packet is not None and data is not None:
                    packet = _replace(packet, data)
                packet.is_keyframe = packet.is_keyframe or claim_keys
                if data is not None:
                    file.mux(packet)
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the track header of an mp4: (x, y) is shown at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 52 if data[at] == 1 else 40  # version, flags, times, track, duration, layer, volume
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def _has_squares(width: int, height: int) -> bool:
    return width >= 8 * _COLUMNS and height >= 8 * _ROWS


def _replace(packet: Any, data: bytes) -> Any:
    new: Any = Packet(data)
    new.stream, new.time_base = packet.stream, packet.time_base
    new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
    new.is_keyframe = packet.is_keyframe
    return new
