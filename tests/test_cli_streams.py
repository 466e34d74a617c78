"""Standard input and output of the command line, in whatever locale it runs."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image
from typer.testing import CliRunner

from weft.cli import app, main
from weft.cli_streams import echo_json, input_bytes, set_up_streams, text_of
from weft.errors import DataError
from weft.images import load_image, picture_name

BROKEN = os.fsdecode(b"caf\xe9.png")
"""The name of a file that is no UTF-8."""


class Model:
    """Says of a text what it is, and of a picture how wide."""

    def caption(self, source, **_):
        text = f"é 猫 {load_image(source).size[0]}"
        sheet = Image.new("RGB", (2, 2))
        return SimpleNamespace(
            text=text, name=picture_name(source), log_probability=-1.0, words=(), matters=(), sheet=lambda: sheet
        )

    title = caption

    def ask(self, source, question, **_):
        return self.caption(source)

    def title_text(self, source, **_):
        text = source if isinstance(source, str) else source.read_text()
        return SimpleNamespace(text=f"title of {text}", log_probability=-1.0, read=(1, 1), passages=1)

    summarize = title_text


@pytest.fixture(autouse=True)
def model(monkeypatch):
    monkeypatch.setattr("weft.quick.quick", lambda folder: None)
    monkeypatch.setattr("weft.cli._load", lambda name: Model())
    monkeypatch.setattr("weft.cli_reading.load", lambda name: Model())


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def streams(monkeypatch):
    """Standard output and error of another encoding; what has been written to them."""

    def of(encoding):
        written = io.BytesIO(), io.BytesIO()
        for name, buffer in zip(("stdout", "stderr"), written, strict=True):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding, write_through=True))
        return written

    return of


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["weft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


@pytest.mark.parametrize(
    ("encoding", "said"), [("ascii", "é 猫 3".encode()), ("latin-1", b"\xe9 ? 3"), ("utf-8", "é 猫 3".encode())]
)
def test_what_people_read_is_in_their_encoding_and_json_is_utf_8(encoding, said, picture, streams, monkeypatch):
    out, _ = streams(encoding)
    assert run(monkeypatch, "caption", picture) == 0
    assert out.getvalue() == said + b"\n"
    out, _ = streams(encoding)
    assert run(monkeypatch, "caption", picture, "--json") == 0
    assert json.loads(out.getvalue().decode())["caption"] == "é 猫 3"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_name_that_is_no_utf_8_leads_to_its_file_in_json_too(picture, streams, monkeypatch):
    picture.rename(picture.with_name(BROKEN))
    out, err = streams("utf-8")
    assert run(monkeypatch, "caption", picture.parent, picture.with_name("gone.png"), "--json") == 1
    told = json.loads(out.getvalue().decode())
    assert told["picture"].endswith("caf\ufffd.png")
    assert Path(os.fsdecode(unquote_to_bytes(told["uri"].removeprefix("file://")))).name == BROKEN
    out, err = streams("utf-8")
    assert run(monkeypatch, "caption", picture.with_name(BROKEN), picture.with_name(f"un{BROKEN}")) == 1
    assert b"caf\xe9.png\t" in out.getvalue() and b"uncaf\xe9.png doesn't exist" in err.getvalue()


def test_warnings_of_the_library_are_told_once_and_as_weft_tells_things(streams, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("weft"), "handlers", [])
    _, err = streams("latin-1")
    set_up_streams()
    set_up_streams()
    logging.getLogger("weft").warning("%s holds several pictures", BROKEN)
    assert err.getvalue() == b"weft: caf\xe9.png holds several pictures\n"


def test_text_on_standard_input_may_have_any_encoding():
    runner, text = CliRunner(), "Café Müller approves travel. The office pays the costs.\n"
    for encoding in ("utf-8", "utf-8-sig", "latin-1", "utf-16"):
        result = runner.invoke(app, ["summarize", "-"], input=text.encode(encoding))
        assert (result.exit_code, result.stdout) == (0, f"title of {text}\n"), encoding


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"", "is empty"), (b"%PDF-1.7", "holds a PDF"), (b"PK\x03\x04", "archive"), (b"a\0b", "zero bytes")],
)
def test_standard_input_that_is_no_text_is_named(data, what, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with pytest.raises(DataError, match=f"Standard input .*{what}"):
        text_of(input_bytes())


def test_closed_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="closed"):
        input_bytes()


def test_title_of_standard_input_is_that_of_a_picture_or_of_a_text(picture):
    runner = CliRunner()
    assert runner.invoke(app, ["title", "-"], input=picture.read_bytes()).stdout == "é 猫 3\n"
    text = "The travel desk has moved to the second floor. " * 12
    assert runner.invoke(app, ["title", "-"], input=text.encode()).stdout == f"title of {text}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption"],
        ["title"],
        ["ask", "PATH", "What?"],
        ["summarize"],
        ["index"],
        ["train"],
        ["answer", "What?", "--knowledge"],
        ["caption", "x.png", "--explain"],
    ],
)
def test_name_that_is_too_long_for_a_file_is_said_in_a_sentence(arguments, monkeypatch, capsys):
    long = "long " * 100 + ("x.png" if "--explain" in arguments else "")
    given = [long if one == "PATH" else one for one in arguments]
    assert run(monkeypatch, *(given if long in given else [*given, long])) == 1
    err = capsys.readouterr().err
    assert err.startswith("weft: ") and err.count("\n") == 1


def test_sheets_of_files_of_one_name_are_all_there_and_others_files_are_kept(tmp_path, picture, monkeypatch, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pic.png").write_bytes(picture.read_bytes())
    sources, sheets = [tmp_path / "a" / "pic.png", tmp_path / "b" / "pic.png"], tmp_path / "sheets"
    for _ in range(2):  # Weft's own may be written anew
        assert run(monkeypatch, "caption", *sources, "--explain", sheets) == 0
        assert sorted(file.name for file in sheets.iterdir()) == ["a-pic.png.png", "b-pic.png.png"]
    before = picture.read_bytes()
    assert run(monkeypatch, "caption", picture, "--explain", picture) == 1
    assert run(monkeypatch, "caption", sources[0], "--explain", picture) == 1
    assert picture.read_bytes() == before
    assert "is one of the files that are read" in (err := capsys.readouterr().err) and "is there already" in err


def test_hidden_files_are_passed_over_and_folders_in_a_folder_told_of(picture, monkeypatch, capsys):
    folder = picture.parent
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / "2024").mkdir()
    (folder / "2024" / "b.png").write_bytes(picture.read_bytes())
    assert run(monkeypatch, "caption", folder) == 0
    out, err = capsys.readouterr()
    assert out == "é 猫 3\n" and err == f"weft: {folder}/2024 is a folder in {folder}, and left out; name it as well\n"


def test_json_of_texts_holds_no_half_characters(capsysbinary):
    echo_json({"text": "a \ud83d b"})
    assert json.loads(capsysbinary.readouterr().out) == {"text": "a \ufffd b"}
