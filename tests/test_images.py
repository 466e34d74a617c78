"""Pictures as people have them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from weft.errors import PictureError
from weft.images import load_image


def saved(image, path, **options):
    image.save(path, **options)
    return path


def test_exif_orientation_is_honoured(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    upright = load_image(saved(image, tmp_path / "turned.png", exif=exif))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 255, 255)
    assert upright.getpixel((10, 35)) == (0, 0, 0)


def test_transparency_is_laid_on_white(tmp_path):
    for mode in ("RGBA", "LA"):
        image = Image.new(mode, (4, 4), (0,) * len(mode))
        assert load_image(saved(image, tmp_path / f"{mode}.png")).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] * 256)
    path = saved(palette, tmp_path / "palette.png", transparency=0)
    assert load_image(path).getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 16384, 32768, 65535]], np.uint16)
    grey = load_image(saved(Image.fromarray(values), tmp_path / "deep.png"))
    assert [grey.getpixel((x, 0))[0] for x in range(4)] == [0, 64, 128, 255]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert load_image(path).getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "P", "F"])
def test_any_mode_becomes_rgb(mode):
    assert load_image(Image.new(mode, (3, 2))).mode == "RGB"


def test_one_pixel_and_bytes_and_file_objects():
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (9, 8, 7)).save(buffer, "PNG")
    assert load_image(buffer.getvalue()).getpixel((0, 0)) == (9, 8, 7)
    buffer.seek(0)
    assert load_image(buffer).size == (1, 1)


def test_hundred_megapixels_are_read(tmp_path, recwarn):
    path = saved(Image.new("1", (10_000, 10_000)), tmp_path / "large.png")
    assert load_image(path).size == (10_000, 10_000)
    assert not recwarn.list


def bomb(side):
    """A PNG of a few bytes that claims to be a square of ``side`` pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [14_000, 60_000])
def test_decompression_bomb_is_refused(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    with pytest.raises(PictureError, match=r"bomb\.png.*pixels"):
        load_image(path)


def test_what_is_no_picture_is_refused_by_name(tmp_path, photo):
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    with pytest.raises(PictureError, match=r"notes\.jpg is not a picture"):
        load_image(text)
    short = tmp_path / "short.png"
    short.write_bytes(photo.read_bytes()[:-60])
    with pytest.raises(PictureError, match=r"short\.png can't be read .*truncated"):
        load_image(short)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(PictureError, match=r"empty\.png"):
        load_image(empty)
    with pytest.raises(PictureError, match="doesn't exist"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(PictureError, match="is a folder"):
        load_image(tmp_path)
