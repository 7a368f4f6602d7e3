"""Pictures for the page: a still of a video, a moment as a row of stills, a noun's heat as a row of overlays."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from svilm.app.refusal import Refusal

if TYPE_CHECKING:
    from svilm.model import HeatMap

POSTER_SIDE = 560
FILM_SIDE = 400
FILM_FRAMES = (6, 20)
"""Fewest and most stills of a moment."""
HEAT_SIDE = 64
QUERY_SIDE = 640
"""Shorter side of a picture that is searched with; larger ones are scaled down."""
PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Formats of pictures that can be searched with; Pillow tries no other."""


@dataclass(frozen=True)
class Film:
    """Frames beside each other in one picture (WebP), with what the page needs to show them in place and time."""

    row: bytes
    seconds: list[float]
    """When each frame is shown in the video."""
    box: tuple[float, float, float, float]
    """The part of the upright picture that the frames cover: x0, y0, x1, y1 in [0, 1]."""

    def as_json(self) -> dict[str, Any]:
        """For the page; the picture as a data address."""
        return {
            "row": "data:image/webp;base64," + base64.b64encode(self.row).decode("ascii"),
            "seconds": [round(second, 3) for second in self.seconds],
            "box": list(self.box),
        }


def poster(path: Path, second: float) -> bytes:
    """The frame on screen at ``second``, its longer side at most POSTER_SIDE pixels, as WebP.

    Raises DecodeError for a video that cannot be read (any more).
    """
    frame = _frame_at(path, second)
    picture = Image.fromarray(frame if frame is not None else _exact_frames(path, [second], POSTER_SIDE)[0])
    picture.thumbnail((POSTER_SIDE, POSTER_SIDE))
    return _webp(picture)


def moment_film(path: Path, start: float, end: float) -> Film:
    """Stills spread evenly over [start, end) seconds of a video, for browsers that cannot play it."""
    fewest, most = FILM_FRAMES
    count = int(np.clip(round(4 * (end - start)), fewest, most))
    seconds = [start + (end - start) * (number + 0.5) / count for number in range(count)]
    return Film(_webp(_in_a_row(_exact_frames(path, seconds, FILM_SIDE))), seconds, (0.0, 0.0, 1.0, 1.0))


def heat_film(heat: "HeatMap") -> Film:
    """A noun's heat as overlays: hot places coloured, cold ones transparent."""
    from matplotlib import colormaps

    high, wide = heat.heat.shape[1:]
    scale = min(1.0, HEAT_SIDE / max(high, wide))
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    warm = heat.heat.astype(np.float32)
    small = np.stack([np.asarray(Image.fromarray(warm[k]).resize(size)) for k in range(len(warm))])
    small = np.clip(small, 0.0, 1.0)
    colours = colormaps["inferno"](0.25 + 0.75 * small)  # its lowest quarter is black and would only darken
    colours[..., 3] = 0.66 * small
    overlays = np.rint(255 * colours).astype(np.uint8)
    return Film(_webp(_in_a_row(overlays)), heat.seconds.astype(float).tolist(), heat.box)


def query_picture(data: bytes) -> UInt8[np.ndarray, "one high wide 3"]:
    """A picture that somebody searches with, as a video of one frame, its shorter side at most QUERY_SIDE pixels.

    Raises a Refusal for what is no picture, or a very large one.
    """
    from svilm.search.picture import PictureError, TooLargeError, read_picture

    try:
        return read_picture(io.BytesIO(data), formats=PICTURES, short_side=QUERY_SIDE)[None]
    except TooLargeError as error:
        raise Refusal(413, f"the picture is too large: {error}", "give a smaller one") from None
    except PictureError:
        raise Refusal(415, "this is not a picture that can be read", f"give {', '.join(PICTURES)}") from None


def _frame_at(path: Path, second: float) -> UInt8[np.ndarray, "high wide 3"] | None:
    """The upright frame on screen at ``second``, found by seeking; None where the file does not allow that.

    Listing the frames first, as everywhere else, would read a long file whole for each still.
    """
    from svilm.data.container import open_video
    from svilm.data.decode import orientation_of

    with open_video(str(path)) as video:
        if video.kind not in ("mov", "matroska"):
            return None
        # a frame's own second, in floats, may be a hair before its tick
        wanted = math.floor(second / video.time_base + 1e-6) + (video.stream.start_time or 0)
        video.seek(wanted)
        best = None
        for frame, intact in video.decode(after_seek=True):
            if frame.pts is None:
                return None
            if best is not None and frame.pts > wanted:
                break
            best = frame if intact else best
        return None if best is None else orientation_of(best).upright(best.to_ndarray(format="rgb24"))


def _exact_frames(path: Path, seconds: Sequence[float], side: int) -> UInt8[np.ndarray, "frames high wide 3"]:
    """The frames on screen at these seconds, their longer side ``side`` pixels or less."""
    from svilm.data.decode import index_video, read_frames

    index = index_video(path)
    scale = min(1.0, side / max(index.width, index.height))
    size = max(1, round(index.width * scale)), max(1, round(index.height * scale))
    numbers = np.searchsorted(index.seconds, seconds, side="right") - 1
    return read_frames(index, np.clip(numbers, 0, len(index) - 1), resize=size)


def _in_a_row(
    frames: Float[np.ndarray, "frames high wide channels"] | UInt8[np.ndarray, "frames high wide channels"],
) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.concatenate(list(frames), axis=1)))


def _webp(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="webp", quality=80, method=3)
    return out.getvalue()
