"""Pictures as people have them."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageCms

from weft.errors import PictureError
from weft.images import decode, load_image


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


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = exif.tobytes()
    return data if data.startswith(b"Exif") else b"Exif\0\0" + data


ODD_EXIF = {
    "cut off": exif_of(6)[:15],
    "cut off in its head": exif_of(6)[:9],
    "garbage": b"Exif\0\0" + bytes(range(7, 99)),
    "empty": b"Exif\0\0",
    "another orientation": exif_of(250),
    "no orientation": exif_of(0),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", ODD_EXIF.values(), ids=ODD_EXIF)
def test_sound_picture_with_odd_exif_opens_as_it_lies(kind, exif):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 20)).convert("RGB").save(buffer, kind, exif=exif)
    assert load_image(buffer.getvalue()).size == (40, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_shows_the_same_picture(kind):
    shown = Image.linear_gradient("L").resize((40, 20)).convert("RGB")
    shown.paste("teal", (0, 0, 20, 10))
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what makes a picture lie so, as Pillow numbers it
    for orientation, turn in turns.items():
        lies = shown if turn is None else shown.transpose(Image.Transpose(turn))
        buffer, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        lies.save(buffer, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
        upright = load_image(buffer.getvalue())
        assert upright.size == (40, 20)
        assert np.abs(np.asarray(upright).astype(int) - np.asarray(shown)).mean() < 12, orientation


def test_upright_picture_is_not_turned_again():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif_of(6))
    once = load_image(buffer.getvalue())
    assert (once.size, load_image(once).size, decode(once).size) == ((20, 40), (20, 40), (20, 40))


def test_photo_with_another_behind_it_whose_list_is_broken_opens():
    buffer = io.BytesIO()
    photo = Image.new("RGB", (40, 20), "teal")
    photo.save(buffer, "MPO", save_all=True, append_images=[photo])
    data = bytearray(buffer.getvalue())
    at = data.index(b"MPF\0")
    assert load_image(bytes(data)).size == (40, 20)
    for place in range(at + 4, at + 70):
        assert load_image(bytes(data[:place] + b"\xff" + data[place + 1 :])).size == (40, 20)


GREY = np.linspace(3, 250, 60 * 40).round().reshape(40, 60)
"""What a picture of greys shows, as bytes."""


def tiff(values, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.float32) / 255,
        GREY.astype(np.float32) / 127.5 - 1,
        GREY.astype(np.float32),
        (GREY * 257).astype(np.float32),
        (GREY * 257).astype(np.uint16),
        (GREY * 16).astype(np.uint16),  # 12 bits, as cameras of microscopes have
        GREY.astype(np.uint16),
        (GREY * 2**23).astype(np.int32),
    ],
    ids=["0 to 1", "-1 to 1", "0 to 255", "0 to 65535", "16 bits", "12 of 16 bits", "8 of 16 bits", "32 bits"],
)
def test_greys_of_many_bits_and_of_floats_look_as_they_would_in_eight(values):
    shown = np.asarray(load_image(tiff(values)))[..., 0].astype(int)
    assert np.abs(shown - GREY).max() <= 2


@pytest.mark.parametrize(
    "values",
    [GREY * 0.0001, GREY * 40.5 + 100.5, GREY / 4 - 20.25, GREY * 1e6 + 0.5],
    ids=["faint", "heights", "degrees", "large"],
)
def test_values_of_no_known_scale_are_stretched(values):
    shown = np.asarray(load_image(tiff(values.astype(np.float32))))[..., 0].astype(int)
    assert np.abs(shown - (GREY - 3) / 247 * 255).max() <= 2


def test_hot_pixel_makes_nothing_else_black():
    values = (GREY * 0.5).astype(np.float32) + 0.25
    values[0, 0] = 1e9
    assert 100 < np.asarray(load_image(tiff(values))).mean() < 150


def test_what_is_no_number_is_black_and_the_rest_is_shown():
    values = (GREY / 255).astype(np.float32)
    values[:5] = np.nan
    values[5, 0], values[5, 1] = np.inf, -np.inf
    shown = np.asarray(load_image(tiff(values)))[..., 0].astype(int)
    assert not shown[:5].any() and (shown[5, 0], shown[5, 1]) == (255, 0)
    assert np.abs(shown[6:] - GREY[6:]).max() <= 1
    with pytest.raises(PictureError, match="no pixel of it is a number"):
        load_image(tiff(np.full((2, 2), np.nan, np.float32)))


def test_black_stays_black_and_white_that_is_least_is_turned_round():
    assert not np.asarray(load_image(tiff(np.zeros((4, 4), np.uint16)))).any()
    shown = np.asarray(load_image(tiff((GREY * 257).astype(np.uint16), tiffinfo={262: 0})))[..., 0].astype(int)
    assert np.abs(shown - (255 - GREY)).max() <= 1


def test_deep_colours_that_are_black_in_the_upper_bits_are_refused():
    values = (np.repeat(GREY[..., None], 3, 2) * 8).astype(">u2")  # 11 bits of 16; of each Pillow reads the upper 8

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    with pytest.raises(PictureError, match="16 bits a channel"):
        load_image(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_colours_of_lab_are_those_of_the_picture(photo):
    rgb = Image.open(photo).convert("RGB").resize((40, 30))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    buffer = io.BytesIO()
    ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB").save(buffer, "TIFF")
    assert np.abs(np.asarray(load_image(buffer.getvalue())).astype(int) - np.asarray(rgb)).mean() < 2


def test_transparency_that_is_written_wrongly_hides_nothing():
    image = Image.new("RGB", (4, 4), "teal")
    image.info["transparency"] = b"abc"
    assert load_image(image).getpixel((0, 0)) == (0, 128, 128)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "a drawing"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", "a drawing"),
        ("a.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "a camera's raw picture"),
        ("a.nef", b"MM\0*" + bytes(99), "a camera's raw picture"),
        ("a.mp4", b"\0\0\0\x18ftypmp42" + bytes(99), "a video"),
        ("a.jpg", b"%PDF-1.7\n", "a document"),
        ("a.jxl", b"\xff\x0a" + bytes(99), "a format that Pillow does not read"),
        ("a.tif", b"II*\0\x08\0\0\0\0\0", "a TIFF of a kind"),
        ("a.png", b"", "is empty"),
    ],
)
def test_what_is_not_read_is_told_by_name(tmp_path, name, data, what):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(PictureError, match=rf"{name} is .*{what.removeprefix('is ')}"):
        load_image(path)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)


def test_heic_needs_a_package_which_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("weft.picture_kinds.HEIF_READERS", ())
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(PictureError, match="pip install pi-heif"):
        load_image(HEIC)


def test_heic_is_read_where_a_package_for_it_is_installed(monkeypatch):
    def register():
        factory = lambda file, name: Image.new("RGB", (6, 4))  # noqa: E731
        Image.register_open("HEIF", factory, lambda head: head[4:12] == b"ftypheic")

    package = SimpleNamespace(register_heif_opener=register, __spec__=ModuleSpec("some_heif", None))
    monkeypatch.setitem(sys.modules, "some_heif", package)
    monkeypatch.setattr("weft.picture_kinds.HEIF_READERS", ("some_heif",))
    monkeypatch.setitem(Image.OPEN, "HEIF", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    assert load_image(HEIC).size == (6, 4)


def test_wrong_ending_of_a_sound_picture_does_not_matter(tmp_path, photo):
    for name in ("photo.txt", "photo", "photo.heic", "photo.dng"):
        (tmp_path / name).write_bytes(photo.read_bytes())
        assert load_image(tmp_path / name).size == load_image(photo).size


def test_further_pages_are_told_of(tmp_path, caplog):
    pages = [Image.new("RGB", (5, 5), (shade,) * 3) for shade in (200, 10)]
    path = saved(pages[0], tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    once = load_image(path)
    assert once.getpixel((0, 0)) == load_image(once).getpixel((0, 0)) == (200, 200, 200)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} holds several pictures (frames or pages); the first is looked at."
    ]


def test_link_that_leads_nowhere_is_told_of(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(PictureError, match=r"a\.jpg is a link to .*gone\.jpg"):
        load_image(tmp_path / "a.jpg")


def test_name_too_long_for_any_file_is_told_shortened():
    with pytest.raises(PictureError, match="doesn't exist") as refused:
        load_image("long " * 400)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_picture_is_decoded_reduced_and_keeps_its_size(kind):
    image = Image.new("RGB", (4200, 4100), "teal")
    image.paste("white", (0, 0, 2100, 4100))
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif_of(6))
    decoded = decode(buffer.getvalue())
    assert decoded.size == load_image(buffer.getvalue()).size == (4100, 4200)
    assert min(decoded.image.size) in range(2048, 2200)
    assert decoded.image.getpixel((1000, 500))[0] > 250 and decoded.image.getpixel((1000, 2000))[0] < 5


def test_large_strip_is_not_reduced_to_nothing():
    assert decode(Image.new("L", (17_000_000, 1))).image.size == (17_000_000, 1)
