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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, get_args

from weft.documents import READERS, read_documents
from weft.errors import DataError, WeftError
from weft.index import Index, among, discard, is_damaged, labelled
from weft.keeping import MemoryKeeper
from weft.memory import content_hash
from weft.options import check_value
from weft.passages import LONGEST, OVERLAP, cut
from weft.sentences import PART as SENTENCE_ENCODER
from weft.sentences import sentence_vectors

FOLDER = ".weft"
"""The index's folder, within that of the documents."""
BATCH = 2000
"""Passages that are written at once, at least."""

Mode = Literal["text", "semantic", "hybrid"]
"""How to search: by words (BM25), by meaning (vectors of a sentence encoder), or by both (reciprocal rank fusion)."""


@dataclass(frozen=True)
class Passage:
    """A passage that was found.

    Attributes:
        text: its text.
        source: its file, relative to the folder of documents.
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
    """What an update did, in files; and the passages that there are now."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: list[str] = field(default_factory=list)
    passages: int = 0


class KnowledgeBase:
    """A folder of documents that can be searched.

    Args:
        folder: the documents: .txt, .md, .html, .pdf, .docx, .csv and .tsv (rows of questions and answers), .jsonl
            (objects with a ``text``), in any depth. Hidden files and folders are left out.
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
        index, result = Index.to_write(self.path), Update()
        known = index.marks()
        files = {str(path.relative_to(self.folder).as_posix()): path for path in self._files()}
        replaced = [source for source in known if source not in files]
        result.removed = len(replaced)
        rows: list[dict[str, Any]] = []
        for number, (source, path) in enumerate(files.items(), 1):
            try:
                mark = content_hash(path.read_bytes(), self._settings())
                if known.get(source) == mark:
                    result.unchanged += 1
                    continue
                rows += self._rows(source, path, mark)
            except (DataError, OSError) as error:
                result.failed.append(str(error))
                if source in known:  # its passages would cite what is no longer there
                    replaced.append(source)
                continue
            replaced.append(source)
            if source in known:
                result.changed += 1
            else:
                result.added += 1
            if len(rows) >= BATCH:
                index.replace(replaced, rows)
                replaced, rows = [], []
            progress(number, len(files))
        index.replace(replaced, rows)
        index.publish()
        progress(len(files), len(files))
        result.passages = len(index)
        return result

    def _files(self) -> Iterator[Path]:
        """The documents, in order of their names; hidden files and folders are left out."""
        for path in sorted(self.folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self.folder).parts)
            if path.suffix.lower() in READERS and not hidden and path.is_file():
                yield path

    def _settings(self) -> str:
        """What a passage depends on beside its file; where it changes, files are indexed anew."""
        return f"1 {LONGEST} {OVERLAP} {SENTENCE_ENCODER if self.semantic else ''}"

    def _rows(self, source: str, path: Path, mark: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [
            {
                "id": f"{source}#{number}",
                "source": source,
                "part": document.part,
                "mark": mark,
                "text": document.text[start:end],
                "start": start,
                "end": end,
                "labels": [f"{name}={value}" for name, value in document.metadata.items()],
                "metadata": json.dumps(document.metadata, ensure_ascii=False),
                "vector": None,
            }
            for number, (document, (start, end)) in enumerate(
                (document, span) for document in read_documents(path) for span in cut(document.text)
            )
        ]
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
        where: Mapping[str, str] | None = None,
    ) -> list[Passage]:
        """The passages that answer a question best, the best first.

        Args:
            question: words to look for, or a question.
            limit: passages, at most.
            mode: by ``"text"``, ``"semantic"`` or ``"hybrid"``.
            source: a pattern for files, as in ``"guide/*.md"``; None for all.
            where: values that a document's metadata must have.

        Raises:
            WeftError: the folder has not been indexed, or not with vectors where they are needed, or its index is
                damaged.
        """
        check_value("mode", mode, get_args(Mode))
        try:
            return self._search(question, limit, mode, source, where or {})
        except RuntimeError:  # what LanceDB makes of files that are not what they should be
            if not is_damaged(self.path):
                raise
            raise WeftError(
                f"The index {self.path} is damaged; run `weft index {self.folder}`, which makes it anew from the "
                "documents."
            ) from None

    def _search(
        self, question: str, limit: int, mode: Mode, source: str | None, where: Mapping[str, str]
    ) -> list[Passage]:
        index = Index.to_read(self.path)
        if index is None:
            raise WeftError(f"{self.folder} has not been indexed; run `weft index {self.folder}` first.")
        if mode != "text" and not index.has_vectors:
            raise WeftError(
                f"{self.folder} was indexed without vectors; run `weft index {self.folder} --semantic`, or search by "
                "text."
            )
        conditions = [labelled(f"{name}={value}") for name, value in where.items()]
        if source is not None:
            conditions.append(among("source", [name for name in index.marks() if fnmatch(name, source)] or [""]))
        if not len(index) or not question.strip():
            return []
        vector = None if mode == "text" else self._vectors([question])[0]
        found = index.find(question, vector, mode != "semantic", conditions, limit)
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
        passages = [] if index is None else index.passages(source, part)
        if not passages:
            raise WeftError(f"{self.folder} has no document {source!r} in its index; run `weft index {self.folder}`.")
        text = ""
        for row in passages:  # they overlap, or leave out the space between them
            text = text[: row["start"]].ljust(row["start"]) + row["text"]
        return text

    _vectors = staticmethod(sentence_vectors)
