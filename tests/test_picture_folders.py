"""What of a folder is a picture."""

from __future__ import annotations

import pytest
from PIL import Image

from weft.errors import PictureError
from weft.picture_folders import pictures_in


def test_pictures_are_known_by_how_they_begin_and_hidden_files_passed_over(tmp_path, photo):
    data = photo.read_bytes()
    for name in ("IMG_1", "b.dat", "c.JPG", "d.jpe", ".hidden.jpg", "._c.JPG", "Thumbs.db"):
        (tmp_path / name).write_bytes(data)
    Image.new("RGB", (4, 4)).save(tmp_path / "e.avif")
    for name, text in {"notes.txt": "P1 is a note", "data.json": "{}", "f.svg": "<svg/>", "g.jpg": "broken"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "h.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "i.bin").write_bytes(bytes(range(256)))
    (tmp_path / "clip.mov").write_bytes(b"\0\0\0\x18ftypqt  ")
    (tmp_path / "j.png").symlink_to(photo)
    (tmp_path / "k.png").symlink_to(tmp_path / "gone.png")
    names = ["IMG_1", "b.dat", "c.JPG", "d.jpe", "e.avif", "f.svg", "g.jpg", "h.heic", "j.png", "k.png"]
    assert [file.name for file in pictures_in(tmp_path).files] == names


def test_folders_that_may_hold_further_ones_are_told_of(tmp_path, photo):
    for name in ("2024", "empty", "texts", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "2024" / "a.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "texts" / "a.txt").write_text("words")
    (tmp_path / ".git" / "a.jpg").write_bytes(photo.read_bytes())
    found = pictures_in(tmp_path)
    assert (found.files, found.folders) == ((), (tmp_path / "2024",))


def test_folder_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(PictureError, match="gone can't be read"):
        pictures_in(tmp_path / "gone")
