"""Knowledge bases: what is indexed, what it costs to index again, and what readers see meanwhile."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TimedOut

import pytest
from filelock import FileLock
from weft_documents import docx, pdf

import weft.knowledge as knowledge
from weft.documents import read_data, read_documents
from weft.errors import DataError, WeftError
from weft.index import WIDTH
from weft.knowledge import KnowledgeBase
from weft.parts import locate

TRAVEL = "Travel is approved by the director. Tickets are booked by the office. Nobody flies first class."


@pytest.fixture
def folder(tmp_path):
    """A folder with a document of every kind."""
    (tmp_path / "guide").mkdir()
    (tmp_path / ".hidden").mkdir()
    files = {
        "travel.md": TRAVEL,
        "guide/lunch.txt": "Lunch is served at noon in the yellow room.",
        "guide/page.html": "<html><head><title>Garden</title><script>x()</script></head>"
        "<body><p>Tulips bloom in <b>April</b>.</p><p>Roses &amp; lilies in June.</p></body></html>",
        "questions.csv": 'question,answer,topic\nWho feeds the cat?,"Anna, at eight.",animals\n'
        "Where is the key?,Under the mat.,house\n",
        "sizes.tsv": "thing\theight\nthe tower\t90 metres\n",
        "notes.jsonl": '{"id": "n1", "text": "The boiler was repaired in 2019.", "lang": "en"}\n\n'
        '{"text": "Der Kessel ist neu.", "lang": "de", "year": 2020}\n',
        ".hidden/secret.txt": "The boiler password.",
        "picture.jpg": "no document",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    pdf(tmp_path / "boat.pdf", "The boat leaves the harbour on Monday")
    docx(tmp_path / "bees.docx", ["Bees make honey.", "They sleep in winter."], [["hive", "north"], ["queen", "Maja"]])
    return tmp_path


@pytest.mark.parametrize(
    ("question", "source", "part", "text"),
    [
        ("who approves travel?", "travel.md", "", TRAVEL),
        ("when is lunch", "guide/lunch.txt", "", "Lunch is served at noon in the yellow room."),
        ("tulip blooming", "guide/page.html", "", "Garden\n\nTulips bloom in April.\n\nRoses & lilies in June."),
        ("feeding the cat", "questions.csv", "row 2", "Who feeds the cat?\nAnna, at eight."),
        ("tower", "sizes.tsv", "row 2", "thing: the tower\nheight: 90 metres"),
        ("boiler repair", "notes.jsonl", "n1", "The boiler was repaired in 2019."),
        ("harbour", "boat.pdf", "", "The boat leaves the harbour on Monday"),
        ("queen", "bees.docx", "", "Bees make honey.\n\nThey sleep in winter.\n\nhive\tnorth\n\nqueen\tMaja"),
    ],
)
def test_every_kind_of_document_is_found_with_its_place(folder, question, source, part, text):
    base = KnowledgeBase(folder)
    assert base.update().failed == []
    best = base.search(question)[0]
    assert (best.source, best.part) == (source, part)
    assert " ".join(best.text.split()) == " ".join(text.split())
    document = next(one for one in read_documents(folder / source) if one.part == part)
    begin, end = best.span
    assert document.text[begin:end] == best.text
    assert "secret" not in {found.source for found in base.search("boiler password")}


def test_search_is_narrowed_to_files_and_to_metadata(folder):
    base = KnowledgeBase(folder)
    base.update()
    both = base.search("the boiler Kessel key cat", limit=10)
    assert {"notes.jsonl", "questions.csv"} <= {found.source for found in both}
    assert {found.source for found in base.search("the boiler key lunch", source="guide/*")} == {"guide/lunch.txt"}
    assert [found.text for found in base.search("boiler Kessel", where={"lang": "de"})] == ["Der Kessel ist neu."]
    assert base.search("boiler Kessel", where={"lang": "it's"}) == []
    assert base.search("boiler", source="*.pptx") == []
    assert base.search("key", where={"topic": "house"})[0].metadata == {"topic": "house"}
    assert base.search('  ? " AND (') == []
    assert base.search("") == []


def test_scores_fall_from_best_to_worst(folder):
    base = KnowledgeBase(folder)
    base.update()
    scores = [found.score for found in base.search("boiler repair in June or on Monday at noon", limit=10)]
    assert len(scores) > 2 and scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_unchanged_files_are_not_read_again(folder, monkeypatch):
    base = KnowledgeBase(folder)
    first = base.update()
    assert (first.added, first.changed, first.removed, first.unchanged) == (8, 0, 0, 0)
    monkeypatch.setattr(knowledge, "read_data", lambda content, name: pytest.fail(f"{name} was read again"))
    second = KnowledgeBase(folder).update()
    assert (second.added, second.changed, second.removed, second.unchanged) == (0, 0, 0, 8)
    assert second.passages == first.passages


def test_changed_files_are_replaced_and_vanished_ones_removed(folder):
    base = KnowledgeBase(folder)
    base.update()
    (folder / "travel.md").write_text("Travel is approved by the cook.")
    (folder / "guide" / "lunch.txt").unlink()
    (folder / "it's new.txt").write_text("A lunch of mushrooms.")
    result = base.update()
    assert (result.added, result.changed, result.removed) == (1, 1, 1)
    assert [found.text for found in base.search("travel approved")] == ["Travel is approved by the cook."]
    assert [found.source for found in base.search("lunch")] == ["it's new.txt"]
    (folder / "travel.md").write_text("")
    base.update()
    assert base.search("travel") == []


def test_file_that_can_not_be_read_is_reported_and_the_rest_is_indexed(folder):
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    (folder / "broken.docx").write_bytes(b"PK nothing")
    (folder / "broken.jsonl").write_text('{"text": "fine"\n"text": "no more"}\n')
    (folder / "binary.txt").write_bytes(b"\0\1\2\3")
    (folder / "empty.pdf").unlink(missing_ok=True)
    pdf(folder / "empty.pdf", "")
    result = KnowledgeBase(folder).update()
    assert result.added == 8
    assert len(result.failed) == 5
    for name, reason in {"broken.jsonl": "line 1 is not JSON", "binary.txt": "zero bytes", "empty.pdf": "OCR"}.items():
        assert any(name in failed and reason in failed for failed in result.failed)


def test_other_encodings_are_told_by_their_bytes(tmp_path):
    text = "Der Fluß fließt über die Brücke nach Köln. Die Straße führt an schönen Häusern vorbei."
    (tmp_path / "old.txt").write_bytes(text.encode("cp1252"))
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert read_documents(tmp_path / "old.txt")[0].text == text
    assert read_documents(tmp_path / "windows.txt")[0].text == "one\ntwo"


def test_readers_see_the_last_complete_update_while_one_is_interrupted_and_it_goes_on(folder, monkeypatch):
    base = KnowledgeBase(folder)
    base.update()
    monkeypatch.setattr(knowledge, "BATCH", 1)
    for number in range(4):
        (folder / f"new{number}.txt").write_text(f"Walrus number {number}.")
    (folder / "travel.md").write_text("Travel by walrus.")
    read = []

    def reads_three(content, name):
        read.append(name)
        if len(read) > 3:
            raise KeyboardInterrupt
        return read_data(content, name)

    monkeypatch.setattr(knowledge, "read_data", reads_three)
    with pytest.raises(KeyboardInterrupt):
        base.update()
    assert KnowledgeBase(folder).search("walrus") == []
    assert base.search("who approves travel")[0].text == TRAVEL
    monkeypatch.setattr(knowledge, "read_data", lambda *given: read.append(given[1]) or read_data(*given))
    result = base.update()
    assert (result.added + result.changed, len(read)) == (2, 6)  # one file was begun twice
    assert len(base.search("walrus", limit=10)) == 5


def test_update_waits_for_another_one(folder):
    base = KnowledgeBase(folder)
    base.path.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(base.path / "update.lock"):
            waiting = pool.submit(base.update)
            with pytest.raises(TimedOut):
                waiting.result(timeout=0.5)
            assert not (base.path / "passages.lance").exists()
        assert waiting.result(timeout=60).added == 8


def test_folder_that_is_not_indexed_says_which_command_helps(tmp_path):
    with pytest.raises(WeftError, match="weft index"):
        KnowledgeBase(tmp_path).search("anything")
    with pytest.raises(DataError, match="is no folder"):
        KnowledgeBase(tmp_path / "nowhere")
    KnowledgeBase(tmp_path).update()
    assert KnowledgeBase(tmp_path).search("anything") == []


def test_search_by_meaning_needs_vectors(folder):
    base = KnowledgeBase(folder)
    base.update()
    with pytest.raises(WeftError, match="--semantic"):
        base.search("anything", mode="semantic")


@pytest.fixture
def meanings(monkeypatch):
    """Vectors that know two meanings, in place of the sentence encoder's."""
    drinks, animals = ("tea", "coffee", "beverage"), ("cat", "dog", "pet")

    def vectors(texts):
        rows = []
        for text in texts:
            row = [0.0] * WIDTH
            row[0] = float(any(word in text.lower() for word in drinks))
            row[1] = float(any(word in text.lower() for word in animals))
            row[2] = 0.1
            rows.append(row)
        return rows

    monkeypatch.setattr(KnowledgeBase, "_vectors", staticmethod(vectors))


def test_search_by_meaning_and_by_both(tmp_path, meanings):
    (tmp_path / "a.txt").write_text("Tea is ready.")
    (tmp_path / "b.txt").write_text("The dog sleeps.")
    (tmp_path / "c.txt").write_text("Ready for the beverage of the day.")
    base = KnowledgeBase(tmp_path, semantic=True)
    base.update()
    assert {found.source for found in base.search("coffee", mode="semantic", limit=2)} == {"a.txt", "c.txt"}
    assert base.search("coffee") == []
    assert base.search("beverage", mode="hybrid")[0].source == "c.txt"
    assert base.search("pet", mode="semantic", source="a*")[0].source == "a.txt"


def test_index_without_vectors_is_made_anew_when_they_are_asked_for(tmp_path, meanings):
    (tmp_path / "a.txt").write_text("Tea is ready.")
    KnowledgeBase(tmp_path).update()
    assert KnowledgeBase(tmp_path, semantic=True).update().changed == 1
    assert KnowledgeBase(tmp_path).search("coffee", mode="semantic")[0].source == "a.txt"


def test_sentence_encoder_tells_what_is_near_in_meaning():
    if locate("all-minilm-l6-v2") is None:
        pytest.skip("the sentence encoder is not here; run `weft pull all-minilm-l6-v2`")
    from weft.sentences import sentence_vectors

    question, near, far = sentence_vectors(
        ["Who feeds the kitten?", "Anna gives the cat its breakfast.", "The boiler was repaired."]
    )
    assert sum(value * value for value in question) == pytest.approx(1, abs=1e-4)

    def likeness(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert likeness(question, near) > likeness(question, far) + 0.1


def test_index_command_tells_what_it_did(folder, monkeypatch, capsys):
    from weft.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["weft", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    assert run("index", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["added"] == 8
    (folder / "broken.pdf").write_bytes(b"%PDF")
    assert run("index", folder) == 1
    shown = capsys.readouterr()
    assert "8 unchanged" in shown.out and "broken.pdf" in shown.err
    assert run("index", folder / "nowhere") == 1


@pytest.mark.parametrize("kind", ["data", "_versions", "published", "_indices"])
def test_damaged_index_is_named_and_made_anew(folder, kind):
    base = KnowledgeBase(folder)
    base.update()
    files = [file for file in (folder / ".weft").rglob("*") if file.is_file() and kind in file.parts]
    assert files
    for file in files:
        file.write_bytes(b"garbage")
    with pytest.raises(WeftError, match=r"is damaged, or .*; run `weft index"):
        base.search("boiler repair")
    assert not base.indexed
    assert base.update().added == 8
    assert base.indexed
    assert base.search("boiler repair")[0].source == "notes.jsonl"
