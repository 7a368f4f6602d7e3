"""Pictures to search with: a file, or its bytes, to upright RGB of 8 bits."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 40_000_000


class PictureError(ValueError):
    """A picture that cannot be read; the message says why."""


class TooLargeError(PictureError):
    """A picture of more than MAX_PIXELS."""


def read_picture(
    source: Path | io.BytesIO, *, formats: tuple[str, ...] | None = None, short_side: int | None = None
) -> UInt8[np.ndarray, "high wide 3"]:
    """A picture as somebody sees it: turned as its camera was held, what is transparent on white.

    Its shorter side is scaled down to ``short_side`` pixels where it has more.  ``formats`` are Pillow's names of those
    that are tried (None: all).  Raises TooLargeError as soon as the size is known, and PictureError for anything else
    that is no picture, damaged, or of numbers without a known white.
    """
    try:
        with Image.open(source, formats=formats) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise TooLargeError(_too_large(f"{picture.width}x{picture.height}"))
            if short_side:
                picture.draft("RGB", (short_side, short_side))  # a JPEG is decoded no larger than needed
            upright = _in_colour(ImageOps.exif_transpose(picture), picture.format)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(_too_large("too many")) from None
    except UnidentifiedImageError:
        raise PictureError("not a picture; give a JPEG, PNG or WebP") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"cannot be read ({error})") from None
    share = (short_side or MAX_PIXELS) / min(upright.size)
    if share < 1:
        upright.thumbnail((round(upright.width * share), round(upright.height * share)))
    return np.asarray(upright)


def _in_colour(picture: Image.Image, format: str | None) -> Image.Image:
    """RGB of any picture.  Raises PictureError for numbers of which nobody knows what is white."""
    sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and format in ("PNG", "PPM"))
    if sixteen:  # Pillow's own conversion makes all above 255 white
        levels = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise PictureError(f"holds numbers (Pillow's mode {picture.mode}) without a known white; save it with 8 bits")
    if picture.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in picture.info:
        solid = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid).convert("RGB")
    return picture.convert("RGB")


def _too_large(size: str) -> str:
    return f"{size} pixels; at most {MAX_PIXELS // 10**6} million can be read"
