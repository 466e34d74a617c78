"""Folders: every file is read or told of, and none stops the others."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import weft.knowledge as knowledge
from weft.documents import Document, read_documents
from weft.folders import look_through
from weft.knowledge import KnowledgeBase

ENDINGS = {".txt", ".md"}


def touch(path: Path, text: str = "some text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_is_not_read_is_told_with_its_reason(tmp_path):
    for name in ("a.txt", "sub/B.TXT", "c.md", "d.doc", "e.DOC", "f.jpg", "g.webp", "README"):
        touch(tmp_path / name)
    touch(tmp_path / "sub/empty.txt", "")
    found = look_through(tmp_path, ENDINGS)
    assert list(found.files) == ["a.txt", "c.md", "sub/B.TXT"]
    assert found.left_out == {
        "files that end in .doc, which are not read": ["d.doc", "e.DOC"],
        "pictures": ["f.jpg", "g.webp"],
        "files without an ending": ["README"],
        "empty files": ["sub/empty.txt"],
    }


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    names = ("._a.txt", ".DS_Store", "Thumbs.db", "desktop.ini", "~$a.txt", ".git/config.txt", "__MACOSX/._a.txt")
    for name in ("a.txt", *names):
        touch(tmp_path / name)
    found = look_through(tmp_path, ENDINGS)
    assert list(found.files) == ["a.txt"] and found.left_out == {}


def test_links_are_followed_each_folder_and_file_being_read_once(tmp_path):
    docs = tmp_path / "docs"
    touch(docs / "real/a.txt")
    touch(tmp_path / "elsewhere/deep/b.txt")
    touch(tmp_path / "c.txt")
    for link, target in {
        "again": docs / "real",
        "linked": tmp_path / "elsewhere",
        "linked-again": tmp_path / "elsewhere",
        "c.txt": tmp_path / "c.txt",
        "same.txt": docs / "real/a.txt",
        "real/up": docs,
        "out": tmp_path,
        "gone.txt": tmp_path / "nothing.txt",
        "ring": docs / "ring",
    }.items():
        (docs / link).symlink_to(target)
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "elsewhere")
    found = look_through(docs, ENDINGS)
    assert list(found.files) == ["c.txt", "linked/deep/b.txt", "real/a.txt"]
    assert {reason: sorted(names) for reason, names in found.left_out.items()} == {
        "links to what is read already": ["again", "linked-again", "linked/deep/back", "real/up", "same.txt"],
        "links to a folder that holds this one": ["out"],
        "links that lead nowhere": ["gone.txt", "ring"],
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipe_is_left_out_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    assert look_through(tmp_path, ENDINGS).left_out == {"no files but sockets, pipes or devices": ["pipe.txt"]}


def test_file_that_vanishes_or_can_not_be_opened_stops_no_other(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt"):
        touch(tmp_path / name, f"Travel of {name[0]}.")
    KnowledgeBase(tmp_path).update()
    opened = Path.read_bytes

    def read_bytes(path):
        if path.name == "b.txt":
            raise FileNotFoundError(2, "No such file or directory")
        if path.name == "c.txt":
            raise PermissionError(13, "Permission denied")
        if path.name == "d.txt":
            raise OSError(5, "Input/output error")
        return opened(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    touch(tmp_path / "a.txt", "Travel of a, again.")
    base = KnowledgeBase(tmp_path)
    result = base.update()
    assert (result.changed, result.unchanged, result.removed) == (1, 1, 3)
    assert result.left_out == {"files that vanished meanwhile": ["b.txt"]}
    assert result.failed == [
        f"{tmp_path / 'c.txt'} can't be read (Permission denied).",
        f"{tmp_path / 'd.txt'} can't be read (Input/output error).",
    ]
    assert {one.source for one in base.search("travel")} == {"a.txt", "e.txt"}


def test_file_without_text_is_told_and_its_old_text_is_found_no_more(tmp_path):
    touch(tmp_path / "a.txt", "Travel.")
    touch(tmp_path / "rows.csv", "question,answer\n,\n")
    base = KnowledgeBase(tmp_path)
    assert base.update().left_out == {"files without text": ["rows.csv"]}
    touch(tmp_path / "a.txt", " \n ")
    result = base.update()
    assert (result.added, result.removed, result.passages) == (0, 1, 0)
    assert base.search("travel") == []


def test_parts_of_one_name_keep_their_own_texts(tmp_path, monkeypatch):
    touch(tmp_path / "mail.txt")
    parts = [Document("Travel is approved.", "a.txt"), Document("Parking costs ten euros.", "a.txt")]
    monkeypatch.setattr(knowledge, "read_data", lambda content, name: parts)
    base = KnowledgeBase(tmp_path)
    base.update()
    for question, text in {"travel": "Travel is approved.", "parking": "Parking costs ten euros."}.items():
        (found,) = base.search(question)
        assert base.document(found.source, found.part) == found.text == text


def test_reader_that_breaks_stops_no_other_file(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        touch(tmp_path / name, "Travel.")

    def broken(path):
        raise RecursionError("maximum recursion depth exceeded")
        yield

    import weft.documents as documents

    touch(tmp_path / "c.rst", "Travel.")
    monkeypatch.setitem(documents.READERS, ".rst", broken)
    result = KnowledgeBase(tmp_path).update()
    assert result.added == 2 and "c.rst can't be read as .rst (RecursionError" in result.failed[0]


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_name_that_is_no_utf_8_is_indexed_found_and_printed(tmp_path, monkeypatch, capsys):
    def named(name):
        return Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))

    touch(named(b"caf\xe9.txt"), "The office pays.")
    touch(named(b"f\xfc/bad\xff.pdf"), "no PDF")
    touch(named(b"x.d\xf6c"))
    touch(tmp_path / "good.txt", "Travel is approved.")
    from weft.cli import main

    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["weft", "index", str(tmp_path), *options])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 1
        shown = capsys.readouterr()
        (shown.out + shown.err).encode()
        assert "bad\\xff.pdf" in shown.err and ".d\\xf6c" in shown.err
    base = KnowledgeBase(tmp_path)
    assert base.search("who pays")[0].source == "caf\\xe9.txt"
    assert base.document("caf\\xe9.txt") == base.document("caf\udce9.txt") == "The office pays."
    assert base.search("travel")[0].source == "good.txt"
    with pytest.raises(knowledge.WeftError, match=r"no index in .*f\\xfc.*; rename the folder"):
        KnowledgeBase(named(b"f\xfc")).update()


def test_index_command_tells_what_was_left_out_and_guessed(tmp_path, monkeypatch, capsys):
    from weft.cli import main

    for number in range(5):
        touch(tmp_path / f"sheet{number}.doc")
    touch(tmp_path / "a.txt", "Travel.")
    (tmp_path / "old.txt").write_bytes("Frau Müller reist nach Köln.".encode("cp1252"))
    monkeypatch.setattr(sys, "argv", ["weft", "index", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    reason = "files that end in .doc, which are not read (save it as .docx)"
    assert told["left_out"] == {reason: [f"sheet{number}.doc" for number in range(5)]}
    assert told["notes"] == ["old.txt was read as windows-1252, which it looks like."]
    assert f"left out 5, {reason}: sheet0.doc, sheet1.doc, sheet2.doc and 2 more" in shown.err
    assert told["notes"][0] in shown.err


def test_index_of_an_earlier_kind_is_made_anew(tmp_path):
    import lancedb

    touch(tmp_path / "a.txt", "Travel is approved.")
    base = KnowledgeBase(tmp_path)
    base.update()
    table = lancedb.connect(str(base.path)).open_table("passages")
    table.drop_columns(["lead"])
    (base.path / "published").write_text(str(table.version))
    assert not base.indexed
    with pytest.raises(knowledge.WeftError, match="earlier Weft; run `weft index"):
        base.search("travel")
    assert base.update().added == 1
    assert base.search("travel")[0].text == read_documents(tmp_path / "a.txt")[0].text
