"""A name of a file is never taken for a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.errors import DataError
from weft.text_sources import check_words, names_file, text_or_file


@pytest.mark.parametrize(
    "name",
    [
        "report.pdf",
        "My Documents/annual report 2024.PDF",
        "./notes",
        "../a b",
        "~/x",
        "C:\\Users\\me\\a.txt",
        "/etc/hosts",
        *("a/b", "sheet.xlsx", "caf\udce9.txt", "photo.HEIC", "file:///tmp/a.txt"),
    ],
)
def test_name_of_a_file_that_is_not_there_is_none_of_a_text(name):
    assert names_file(name) and text_or_file(name) == Path(name)
    with pytest.raises(DataError, match="the name of a file"):
        check_words(name, "A text")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "word",
        "The cat sat on the mat.",
        "A line.\nnotes.txt",
        "x" * 256,
        "long " * 190,
        "今天天气很好。",
        "nul\0.txt",
        *("Everything of interest is written down in the file report.pdf", "/ is the root of all", "a" * 300 + ".txt"),
    ],
)
def test_text_is_a_text_of_whatever_length(text):
    assert not names_file(text) and text_or_file(text) == text
    check_words(text, "A text")


def test_file_that_is_there_is_one_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a very long name of a file that reads like a sentence of some kind").touch()
    assert names_file("a very long name of a file that reads like a sentence of some kind")


@pytest.mark.parametrize("given", [None, 5, b"bytes", ["a"]])
def test_what_is_neither_is_refused(given):
    with pytest.raises(DataError, match="give a string"):
        text_or_file(given)
