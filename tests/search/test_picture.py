"""Pictures to search with are read as somebody sees them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from svilm.search.picture import PictureError, TooLargeError, read_picture


def encoded(picture, kind="png", **options):
    out = io.BytesIO()
    picture.save(out, format=kind, **options)
    out.seek(0)
    return out


def halves(left, right):
    """A picture of 20x10 pixels, in two colours."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:] = left, right
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_the_camera_was_held(orientation, tmp_path):
    picture = halves((250, 10, 10), (10, 10, 250))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photo.jpg", quality=95, subsampling=0, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "photo.jpg")))
    assert wanted.shape == ((10, 20, 3) if orientation < 5 else (20, 10, 3))
    for source in (tmp_path / "photo.jpg", io.BytesIO((tmp_path / "photo.jpg").read_bytes())):
        np.testing.assert_array_equal(read_picture(source), wanted)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_are_scaled_to_eight(kind):
    levels = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    read = read_picture(encoded(Image.fromarray(levels), kind))
    assert read[0].tolist() == [[level] * 3 for level in (0, 1, 128, 255)]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_white_are_refused(mode):
    with pytest.raises(PictureError, match=f"mode {mode}.*save it with 8 bits"):
        read_picture(encoded(Image.new(mode, (4, 4), 3), "tiff"))


def test_what_is_transparent_is_white():
    clear = halves((250, 0, 0), (0, 0, 0)).convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 10, 0).repeat(10, 1)))
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 250, 0, 0])
    palette.putpixel((1, 0), 0)
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((0, 0), (40, 255))
    for source, shown in [
        (encoded(clear), (250, 0, 0)),
        (encoded(palette, transparency=0), (250, 0, 0)),
        (encoded(grey), (40, 40, 40)),
    ]:
        read = read_picture(source)
        assert tuple(read[0, 0]) == shown and tuple(read[0, -1]) == (255, 255, 255)


def test_the_shorter_side_is_scaled_down():
    assert read_picture(encoded(Image.new("RGB", (300, 90))), short_side=30).shape == (30, 100, 3)
    assert read_picture(encoded(Image.new("RGB", (300, 90)), "jpeg"), short_side=30).shape == (30, 100, 3)
    assert read_picture(encoded(Image.new("RGB", (300, 9))), short_side=30).shape == (9, 300, 3)


def test_what_is_too_large_is_not_decoded():
    with pytest.raises(TooLargeError, match="9000x9000 pixels; at most 40 million"):
        read_picture(encoded(Image.new("1", (9000, 9000))))
    with pytest.raises(TooLargeError, match="too many pixels; at most 40 million"):
        read_picture(encoded(Image.new("1", (20_000, 20_000))))


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(PictureError, match="not a picture; give a JPEG"):
        read_picture(io.BytesIO(b"text"))
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(encoded(Image.new("RGB", (4, 4)), "tiff"), formats=("PNG",))
    cut = io.BytesIO(encoded(Image.effect_noise((64, 64), 50)).getvalue()[:900])
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(cut)
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(tmp_path / "none.png")
