"""What of a folder is a picture."""

from __future__ import annotations

import pytest
from PIL import Image

from weft.errors import PictureError
from weft.picture_folders import pictures_in


def test_pictures_are_known_by_how_they_begin_and_hidden_files_passed_over(photo):
    data, folder = photo.read_bytes(), photo.with_name("photos")
    folder.mkdir()
    for name in ("IMG_1", "b.dat", "c.JPG", "d.jpe", ".hidden.jpg", "._c.JPG", "Thumbs.db"):
        (folder / name).write_bytes(data)
    Image.new("RGB", (4, 4)).save(folder / "e.avif")
    for name, text in {"notes.txt": "P1 is a note", "data.json": "{}", "f.svg": "<svg/>", "g.jpg": "broken"}.items():
        (folder / name).write_text(text)
    (folder / "h.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "i.bin").write_bytes(bytes(range(256)))
    (folder / "clip.mov").write_bytes(b"\0\0\0\x18ftypqt  ")
    (folder / "j.png").symlink_to(photo)
    (folder / "k.png").symlink_to(folder / "gone.png")
    names = ["IMG_1", "b.dat", "c.JPG", "d.jpe", "e.avif", "f.svg", "g.jpg", "h.heic", "j.png", "k.png"]
    assert [file.name for file in pictures_in(folder).files] == names


def test_folders_that_may_hold_further_ones_are_told_of(photo):
    folder = photo.with_name("photos")
    for name in ("2024", "empty", "texts", ".git"):
        (folder / name).mkdir(parents=True)
    (folder / "2024" / "a.jpg").write_bytes(photo.read_bytes())
    (folder / "texts" / "a.txt").write_text("words")
    (folder / ".git" / "a.jpg").write_bytes(photo.read_bytes())
    found = pictures_in(folder)
    assert (found.files, found.folders) == ((), (folder / "2024",))


def test_folder_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(PictureError, match="gone can't be read"):
        pictures_in(tmp_path / "gone")
