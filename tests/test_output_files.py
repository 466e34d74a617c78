"""Each result has a file of its own, and nobody's file is lost for one."""

from __future__ import annotations

import pytest
from PIL import Image

from weft.errors import WeftError
from weft.output_files import MARK, check_free, file_names, save_sheet


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["cat.jpg", "dog.jpg"], ["cat.png", "dog.png"]),
        (["cat.jpg", "cat.png"], ["cat.jpg.png", "cat.png.png"]),
        (["a/cat.jpg", "b/cat.jpg", "dog.jpg"], ["a-cat.jpg.png", "b-cat.jpg.png", "dog.png"]),
        (["x/a/cat.jpg", "y/a/cat.jpg"], ["x-a-cat.jpg.png", "y-a-cat.jpg.png"]),
        (["Cat.jpg", "cat.jpg"], ["Cat.jpg.png", "cat.jpg-2.png"]),
        (["cat.jpg", "cat.jpg"], ["cat.jpg.png", "cat.jpg-2.png"]),
        (["cat.jpg-2", "cat.jpg", "cat.jpg"], ["cat.jpg-2.png", "cat.jpg.png", "cat.jpg-3.png"]),
        (["-"], ["-.png"]),
    ],
)
def test_results_of_several_files_have_names_that_differ(sources, names):
    assert file_names(sources, ".png") == names
    assert len({name.lower() for name in names}) == len(names)


def test_own_results_are_written_anew_and_others_files_kept(tmp_path):
    sheet = Image.new("RGB", (3, 2))
    for name in ("a.png", "a.jpg", "a.webp"):
        check_free(tmp_path / name)
        save_sheet(sheet, tmp_path / name)
        check_free(tmp_path / name)
    (tmp_path / "a.html").write_text(f"<!doctype html>{MARK}")
    check_free(tmp_path / "a.html")
    sheet.save(tmp_path / "photo.png")
    (tmp_path / "page.html").write_text("<p>Mine.</p>")
    for name in ("photo.png", "page.html"):
        with pytest.raises(WeftError, match=f"{name} is there already"):
            check_free(tmp_path / name)
    with pytest.raises(WeftError, match="is one of the files that are read"):
        check_free(tmp_path / "a.png", [str(tmp_path / ".." / tmp_path.name / "a.png")])
    with pytest.raises(WeftError, match="is a folder"):
        check_free(tmp_path)


def test_answers_are_written_over_answers_alone(tmp_path):
    (tmp_path / "said.jsonl").write_text('{"image": "a.jpg", "prediction": "A cat."}\n')
    (tmp_path / "new.jsonl").touch()
    (tmp_path / "data.jsonl").write_text('{"messages": []}\n')
    for name in ("said.jsonl", "new.jsonl", "gone.jsonl"):
        check_free(tmp_path / name, [str(tmp_path / "data.jsonl")], b'"prediction"')
    with pytest.raises(WeftError, match="is there already"):
        check_free(tmp_path / "data.jsonl", [], b'"prediction"')
