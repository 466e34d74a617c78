"""The commands about documents, as people call them."""

from __future__ import annotations

import json
import sys
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from weft.cli import app, main
from weft.errors import DataError
from weft.instructions import NOT_SAID
from weft.reading import Answer, Citation, Summary, document

runner = CliRunner()
TRAVEL = "Nobody flies first class. Travel is approved by the director."


class Model:
    """Answers with the first passage that is found, or says that there is none."""

    asked: ClassVar[dict] = {}

    def answer(self, question, base, *, beams, keep, passages, mode, source, where, top_memory, reading):
        Model.asked = {"passages": passages, "mode": mode, "source": source, "where": where, "keep": keep}
        found = base.search(question, limit=passages, mode=mode, source=source, where=where)
        if not found:
            return Answer(NOT_SAID, question, False, 0.0, (), 0.0)
        one = found[0]
        quote = (one.span[0] + 26, one.span[1])
        citation = Citation(one.text, one.source, one.part, one.span, 0.75, one.text[26:], quote)
        return Answer("The director.", question, True, 0.9, (citation,), -1.0)

    def summarize(self, text, *, beams, bound, length, explain, top_memory, reading):
        name, words = document(text)
        return Summary(f"{length} of {len(words)}", name, -2.0, words, (min(bound, 3), 3))

    def title_text(self, text, *, beams, bound, explain, reading):
        name, words = document(text)
        return Summary("A title", name, -2.0, words, (1, 1))


@pytest.fixture(autouse=True)
def model(monkeypatch):
    for where in ("weft.cli_reading.load", "weft.cli._load"):
        monkeypatch.setattr(where, lambda name: Model())


@pytest.fixture
def folder(tmp_path):
    base = tmp_path / "handbook"
    base.mkdir()
    (base / "travel.md").write_text(TRAVEL)
    (base / "empty").mkdir()
    (base / "faq.csv").write_text("question,answer,topic\nWho feeds the cat?,Anna does.,animals\n")
    return base


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["weft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


def test_answer_and_where_it_stands(folder):
    result = runner.invoke(app, ["answer", "Who approves travel?", "--knowledge", str(folder)])
    assert result.exit_code == 0, result.output
    assert "The director.\n  [1]  75%  travel.md:26-61  Travel is approved by the director.\n" in result.output


def test_answer_for_programs(folder):
    runner.invoke(app, ["index", str(folder)])
    result = runner.invoke(app, ["answer", "Who approves travel?", "--knowledge", str(folder), "--json"])
    said = json.loads(result.output)
    (cited,) = said["citations"]
    assert said["text"] == "The director." and said["confident"]
    assert TRAVEL[slice(*cited["span"])] == cited["text"]


def test_nothing_found_is_an_answer(folder):
    result = runner.invoke(app, ["answer", "xylophone", "--knowledge", str(folder)])
    assert result.exit_code == 0 and result.output.endswith(f"{NOT_SAID}\n")


def test_options_of_the_search_reach_it(folder):
    options = ["--passages", "2", "--source", "*.csv", "--where", "topic=animals", "--keep"]
    result = runner.invoke(app, ["answer", "Who feeds the cat?", "--knowledge", str(folder), *options])
    assert result.exit_code == 0, result.output
    expected = {"passages": 2, "mode": "text", "source": "*.csv", "where": {"topic": "animals"}, "keep": True}
    assert Model.asked == expected
    assert "faq.csv row 2" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["answer", "Who?", "--knowledge", "nowhere"], 1, "nowhere is no folder"),
        (["answer", "Who?", "--knowledge", "{folder}", "--where", "animals"], 2, "NAME=VALUE"),
        (["answer", "cat", "--knowledge", "{folder}", "--mode", "semantic"], 1, "--semantic"),
        (["answer", "Who?"], 2, "--knowledge"),
        (["answer", "Who?", "--knowledge", "{folder}/empty"], 1, "holds no documents"),
        (["summarize", "gone.txt"], 1, "gone.txt"),
        (["summarize", "{folder}/travel.md", "--length", "endless"], 2, "endless"),
        (["title", "{folder}/travel.md", "a.png"], 2, "not both"),
    ],
)
def test_wrong_use_is_one_sentence(monkeypatch, capsys, folder, arguments, code, words):
    assert run(monkeypatch, *(one.format(folder=folder) for one in arguments)) == code
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words in told and "Traceback" not in told


def test_summary_says_how_much_was_read(folder):
    result = runner.invoke(app, ["summarize", str(folder / "travel.md"), "--length", "short", "--bound", "2"])
    assert f"short of {len(TRAVEL)}" in result.output and "2 of 3 passages were read" in result.output
    result = runner.invoke(app, ["summarize", str(folder / "travel.md"), "--json"])
    assert json.loads(result.output.splitlines()[-1])["summarize"] == f"medium of {len(TRAVEL)}"


def test_document_that_cannot_be_read_does_not_stop_the_others(folder, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    result = runner.invoke(app, ["summarize", str(tmp_path / "empty.txt"), str(folder / "travel.md")])
    assert result.exit_code == 1
    assert "empty.txt" in result.output and f"medium of {len(TRAVEL)}" in result.output


def test_text_on_standard_input(folder):
    result = runner.invoke(app, ["summarize", "-"], input="A text of some words.")
    assert "medium of 21" in result.output


def test_title_of_a_document(folder):
    assert runner.invoke(app, ["title", str(folder / "travel.md")]).output == "A title\n"


def test_refused_document_is_named(monkeypatch, folder):
    monkeypatch.setattr(Model, "summarize", lambda *a, **k: (_ for _ in ()).throw(DataError("it holds no text.")))
    result = runner.invoke(app, ["summarize", str(folder / "travel.md")])
    assert result.exit_code == 1 and "weft: it holds no text." in result.output
