"""A knowledge base: a folder of documents, cut into passages that can be searched.

:class:`KnowledgeBase` is given a folder. :meth:`~KnowledgeBase.update` brings its index, a LanceDB folder beside the
documents, up to date: files are known by a hash of their content, so unchanged ones are not read apart again. What
readers see is one published version of the index, which moves on when an update is complete; an update that was
interrupted goes on where it stopped, and until it is done readers see what they saw before.
:meth:`~KnowledgeBase.search` finds passages by BM25, by meaning, or by both.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, get_args

from weft.analyzer import asked, terms
from weft.charsets import printable, sound
from weft.documents import INSTEAD, READERS, Document, read_data
from weft.errors import DataError, WeftError
from weft.folders import look_through
from weft.index import Index, among, discard, is_damaged, labelled
from weft.keeping import MemoryKeeper
from weft.labels import Value, labels, wanted
from weft.memory import content_hash
from weft.options import check_count, check_value
from weft.passages import LONGEST, OVERLAP, cut
from weft.records import Names
from weft.sentences import PART as SENTENCE_ENCODER
from weft.sentences import sentence_vectors

FOLDER = ".weft"
"""The index's folder, within that of the documents."""
BATCH = 2000
"""Passages that are written at once, at least."""
ASKED = 1024
"""Words of a question that are looked for, at most."""

Mode = Literal["text", "semantic", "hybrid"]
"""How to search: by words (BM25), by meaning (vectors of a sentence encoder), or by both (reciprocal rank fusion)."""


@dataclass(frozen=True)
class Passage:
    """A passage that was found.

    Attributes:
        text: its text.
        source: its file, relative to the folder of documents; bytes of its name that are no UTF-8 as ``\\xe9``.
        part: the part of the file that ``span`` refers to: empty for the whole file, else its row or id.
        span: where the passage stands in that part's text, in characters.
        score: how well it answers the search; comparable within one search only.
        metadata: further fields of its document.
    """

    text: str
    source: str
    part: str
    span: tuple[int, int]
    score: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Update:
    """What an update did, in files; and the passages that there are now.

    Attributes:
        added: files that are new.
        changed: files that were indexed anew.
        removed: files that are gone, or of which nothing can be read any more.
        unchanged: files that are as they were.
        failed: files that can't be read, and why, in a sentence each.
        left_out: what was left out, by the reason; hidden files and what systems leave in folders are not told of.
        notes: what was guessed, replaced or left out within files that were read, in a sentence each.
        passages: passages in the index.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    passages: int = 0


class KnowledgeBase:
    """A folder of documents that can be searched.

    Args:
        folder: the documents, files that end in one of :data:`weft.documents.READERS`, in any depth; links are
            followed. Hidden files and folders are left out.
        semantic: give every passage a vector in :meth:`update`, for search by meaning.

    Attributes:
        memories: passages as a model has read them, kept beside the index.

    Raises:
        DataError: the folder doesn't exist.

    Example:
        >>> knowledge = KnowledgeBase("handbook/")
        >>> knowledge.update()
        >>> knowledge.search("Who approves travel?")[0].source
        'travel.md'
    """

    def __init__(self, folder: str | Path, *, semantic: bool = False) -> None:
        self.folder = Path(folder)
        self.semantic = semantic
        if not os.path.isdir(self.folder):
            raise DataError(f"{folder} is no folder; give a folder of documents.")
        self.path = self.folder / FOLDER
        self.memories = MemoryKeeper(self.path / "memories")

    @property
    def indexed(self) -> bool:
        """Whether there is an index to search, and none that is damaged."""
        return not is_damaged(self.path) and Index.to_read(self.path) is not None

    # Bringing the index up to date

    def update(self, progress: Callable[[int, int], None] | None = None) -> Update:
        """Index what is new, replace what has changed, and remove what is gone; a damaged index is made anew.

        Args:
            progress: told of files that are done, and of all there are.

        Raises:
            WeftError: the index can't be written.
        """
        from filelock import FileLock

        try:
            self.path.mkdir(exist_ok=True)
            with FileLock(self.path / "update.lock"):
                if is_damaged(self.path):
                    discard(self.path)
                return self._update(progress or (lambda done, total: None))
        except OSError as error:
            raise WeftError(f"The index {self.path} can't be written ({error.strerror or error}).") from None

    def _update(self, progress: Callable[[int, int], None]) -> Update:
        index, contents = Index.to_write(self.path), look_through(self.folder, READERS, INSTEAD)
        result = Update(left_out=contents.left_out)
        known = index.marks()
        replaced = [source for source in known if source not in contents.files]
        result.removed = len(replaced)
        rows: list[dict[str, Any]] = []
        for number, (source, path) in enumerate(contents.files.items(), 1):
            mark, fresh = self._read(source, path, known.get(source), result)
            if mark and mark == known.get(source):
                result.unchanged += 1
            elif source in known:
                replaced.append(source)
                result.changed += bool(fresh)
                result.removed += not fresh  # its passages would cite what is no longer there
            else:
                result.added += bool(fresh)
            rows += fresh
            if len(rows) >= BATCH:
                index.replace(replaced, rows)
                replaced, rows = [], []
            progress(number, len(contents.files))
        index.replace(replaced, rows)
        index.publish()
        progress(len(contents.files), len(contents.files))
        result.passages = len(index)
        return result

    def _read(self, source: str, path: Path, known: str | None, result: Update) -> tuple[str, list[dict[str, Any]]]:
        """The mark and the passages of a file, none where the mark is known already or nothing can be read; why not is
        noted in what the update did."""
        mark = ""
        try:
            content = path.read_bytes()
            mark = content_hash(content, self._settings())
            if mark == known:
                return mark, []
            documents = read_data(content, printable(path))
        except FileNotFoundError:
            result.left_out.setdefault("files that vanished meanwhile", []).append(source)
            return "", []
        except DataError as error:
            result.failed.append(printable(error))
            return "", []
        except OSError as error:
            result.failed.append(f"{printable(path)} can't be read ({error.strerror or error}).")
            return "", []
        result.notes += [f"{source} {note}." for document in documents for note in document.notes]
        rows = self._rows(source, documents, mark)
        if not rows:
            result.left_out.setdefault("files without text", []).append(source)
        return mark, rows

    def _settings(self) -> str:
        """What a passage depends on beside its file; where it changes, files are indexed anew."""
        return f"2 {LONGEST} {OVERLAP} {SENTENCE_ENCODER if self.semantic else ''}"

    def _rows(self, source: str, documents: Sequence[Document], mark: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        parts = Names()  # files that are attached to one mail may have one name
        for document in documents:
            about = {
                "source": source,
                "part": parts.free(document.part),
                "mark": mark,
                "labels": labels(document.metadata),
                "metadata": json.dumps(document.metadata, ensure_ascii=False),
                "vector": None,
            }
            before = 0
            for start, end in cut(document.text):
                text, lead = document.text[start:end], document.text[before:start]
                words = " ".join(terms(document.text[start : _end_of_word(document.text, end)]))
                place = {"id": f"{source}#{len(rows)}", "start": start, "end": end}
                rows.append({**about, **place, "text": text, "lead": lead, "terms": words})
                before = end
        if self.semantic:
            for row, vector in zip(rows, self._vectors([row["text"] for row in rows]), strict=True):
                row["vector"] = vector
        return rows

    # Searching

    def search(
        self,
        question: str,
        *,
        limit: int = 5,
        mode: Mode = "text",
        source: str | None = None,
        where: Mapping[str, Value] | None = None,
    ) -> list[Passage]:
        """The passages that answer a question best, the best first.

        Words are found whichever way they are written (capitals, accents, composed or not), those that hang together
        (``AB-1234/5``) whole and in parts, and those of scripts without spaces wherever they stand.

        Args:
            question: words to look for, or a question.
            limit: passages, at most.
            mode: by ``"text"``, ``"semantic"`` or ``"hybrid"``.
            source: a file, or a pattern for files, as in ``"guide/*.md"``; None for all.
            where: values that a document's metadata must have; None for a name of which it is to have none.

        Raises:
            DataError: ``where`` asks for what is no value.
            WeftError: the folder has not been indexed, or not with vectors where they are needed, or its index is
                damaged.
        """
        check_value("mode", mode, get_args(Mode))
        check_count("limit", limit)
        try:
            return self._search(question, limit, mode, source, where or {})
        except RuntimeError:  # what LanceDB makes of files that are not what they should be
            if not is_damaged(self.path):
                raise
            raise WeftError(
                f"The index {self.path} is damaged, or was made by an earlier Weft; run `weft index {self.folder}`, "
                "which makes it anew from the documents."
            ) from None

    def _search(
        self, question: str, limit: int, mode: Mode, source: str | None, where: Mapping[str, Value]
    ) -> list[Passage]:
        index = Index.to_read(self.path)
        if index is None:
            raise WeftError(f"{self.folder} has not been indexed; run `weft index {self.folder}` first.")
        if mode != "text" and not index.has_vectors:
            raise WeftError(
                f"{self.folder} was indexed without vectors; run `weft index {self.folder} --semantic`, or search by "
                "text."
            )
        conditions = [labelled(*wanted(name, value)) for name, value in where.items()]
        if source is not None:
            conditions.append(among("source", _named(index, source) or [""]))
        words = [] if mode == "semantic" else list(dict.fromkeys(asked(question)))[:ASKED]
        if not len(index) or not question.strip() or (mode == "text" and not words):
            return []
        vector = None if mode == "text" else self._vectors([sound(question)])[0]
        found = index.find(" ".join(words), vector, bool(words), conditions, limit)
        return [
            Passage(
                row["text"],
                row["source"],
                row["part"],
                (row["start"], row["end"]),
                float(row["score"]),
                json.loads(row["metadata"]),
            )
            for row in found
        ]

    def document(self, source: str, part: str = "") -> str:
        """The text of a document as it was indexed, whatever has become of its file since.

        Args:
            source: its file, relative to the folder, as passages name it.
            part: the part of the file, as passages name it.

        Raises:
            WeftError: the folder has not been indexed, or has no such document.
        """
        index = Index.to_read(self.path)
        passages = [] if index is None else index.passages(printable(source), part)
        if index is not None and not passages:  # its name may be composed otherwise
            passages = [row for name in _named(index, source) for row in index.passages(name, part)]
        if not passages:
            raise WeftError(f"{self.folder} has no document {source!r} in its index; run `weft index {self.folder}`.")
        pieces, length = [], 0
        for row in passages:  # each may repeat the end of the one before
            pieces += [row["lead"], row["text"][max(0, length - row["start"]) :]]
            length = row["start"] + len(row["text"])
        return "".join(pieces)

    _vectors = staticmethod(sentence_vectors)


def _named(index: Index, pattern: str) -> list[str]:
    """The sources of an index of a name, or after a pattern, however their accents are composed."""
    wanted = unicodedata.normalize("NFC", printable(pattern))
    named = ((name, unicodedata.normalize("NFC", name)) for name in index.marks())
    return [name for name, composed in named if composed == wanted or fnmatch(composed, wanted)]


def _end_of_word(text: str, end: int) -> int:
    """Where the word ends that a passage was cut within: in scripts without spaces, some characters further on."""
    rest = _REST_OF_WORD.match(text, end) if text[end - 1].isalnum() else None
    return rest.end() if rest else end


_REST_OF_WORD = re.compile(r"\w{0,64}")
