"""The index of a knowledge base: a LanceDB table of passages, of which readers see one published version.

:class:`Index` is given a folder. It knows nothing of files and formats: :mod:`weft.knowledge` says which passages a
source has, and asks for some of them back.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from weft.charsets import printable, sound
from weft.conversations import write_text
from weft.errors import WeftError

TABLE = "passages"
PUBLISHED = "published"
"""The file that holds the number of the version that readers see. (Lance's tags go astray where a path has characters
that URLs don't.)"""
KEPT = timedelta(hours=1)
"""How long a version that readers no longer come to see is kept for those who have."""
ALL = timedelta(days=36_500)
"""As good as for ever."""
TEXTS = ("id", "source", "part", "mark", "text", "terms", "lead", "metadata")
"""Columns of text. ``terms`` is what is searched, and ``lead`` the space in front of a passage that is in none."""
WIDTH = 384
"""Size of a passage's vector."""


class Index:
    """A table of passages.

    Args:
        table: the LanceDB table, at the version that is to be read or written.
        path: the index's folder.
    """

    def __init__(self, table: Any, path: Path) -> None:
        self.table, self.path = table, path

    @classmethod
    def to_write(cls, path: Path) -> Index:
        """The newest version, made where there is none.

        Raises:
            RuntimeError: the index is damaged, or of an earlier kind.
        """
        connection = _connect(path)
        import pyarrow as pa

        schema = pa.schema(
            [
                *((name, pa.string()) for name in TEXTS),
                ("start", pa.int64()),
                ("end", pa.int64()),
                ("labels", pa.list_(pa.string())),
                ("vector", pa.list_(pa.float32(), WIDTH)),
            ]
        )
        try:
            return cls(connection.create_table(TABLE, schema=schema, exist_ok=True), path)
        except ValueError as error:  # it has other columns
            raise RuntimeError(str(error)) from None

    @classmethod
    def to_read(cls, path: Path) -> Index | None:
        """The published version; None where nothing has been published.

        Raises:
            RuntimeError: the index is damaged, or of an earlier kind.
        """
        if not (path / PUBLISHED).is_file():
            return None
        version = (path / PUBLISHED).read_text(encoding="utf-8", errors="replace")
        if not version.isdecimal():
            raise RuntimeError(f"{path / PUBLISHED} holds no number")
        with suppress(ValueError):  # there is no such table
            table = _of_now(_connect(path).open_table(TABLE))
            table.checkout(int(version))
            return cls(table, path)
        return None

    def __len__(self) -> int:
        return self.table.count_rows()

    def marks(self) -> dict[str, str]:
        """The sources in the index, each with the mark that was written with its passages."""
        columns = self.table.search().select(["source", "mark"]).limit(max(1, len(self))).to_arrow()
        return dict(zip(columns["source"].to_pylist(), columns["mark"].to_pylist(), strict=True))

    def passages(self, source: str, part: str) -> list[dict[str, Any]]:
        """The passages of a part of a source, in order: their texts, where they begin, and the space before them."""
        chosen = f"source = {quoted(source)} AND part = {quoted(part)}"
        columns = ["text", "start", "lead"]
        rows = self.table.search().where(chosen).select(columns).limit(max(1, len(self))).to_list()
        return sorted(rows, key=lambda row: row["start"])

    def replace(self, sources: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Put passages in the place of those that their sources had.

        What is interrupted in between lacks these sources, which the next update reads again; readers see the version
        that was published before.
        """
        if sources:
            self.table.delete(among("source", sources))
        if rows:
            self.table.add(list(rows))

    def publish(self) -> None:
        """Bring the full-text index up to date, and let readers see the result."""
        from lancedb.index import FTS

        if len(self) and not self.table.list_indices():
            # The terms are folded and divided already, stop words are left to questions; what remains is English stems.
            analyzer = {"base_tokenizer": "whitespace", "language": "English", "stem": True, "ascii_folding": True}
            analyzer |= {"max_token_length": None, "lower_case": False, "remove_stop_words": False}
            self.table.create_index("terms", config=FTS(**analyzer))
        self.table.optimize(cleanup_older_than=ALL)
        write_text(self.path / PUBLISHED, str(self.table.version))
        self.table.optimize(cleanup_older_than=KEPT)

    @property
    def has_vectors(self) -> bool:
        """Whether every passage has a vector."""
        return self.table.count_rows("vector IS NOT NULL") == len(self)

    def find(
        self, question: str, vector: Sequence[float] | None, words: bool, conditions: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """Rows that answer a search, the best first, each with its ``score``.

        Args:
            question: terms to look for by BM25, with spaces between them.
            vector: a vector to look near (cosine); None to leave vectors out.
            words: whether to look for the words; both together are fused by reciprocal rank (Cormack et al. 2009).
            conditions: SQL conditions that every row meets.
            limit: rows, at most.
        """
        from lancedb.query import MatchQuery
        from lancedb.rerankers import RRFReranker

        match = MatchQuery(question, "terms")
        if vector is None:
            query, kind = self.table.search(match, query_type="fts"), "_score"
        elif not words:
            query = self.table.search(vector, vector_column_name="vector").distance_type("cosine")
            kind = "_distance"
        else:
            both = self.table.search(query_type="hybrid", vector_column_name="vector").vector(vector).text(match)
            query, kind = both.distance_type("cosine").rerank(RRFReranker()), "_relevance_score"
        if conditions:
            query = query.where(" AND ".join(conditions), prefilter=True)
        rows = query.limit(limit).to_list()
        return [{**row, "score": 1 - row[kind] if kind == "_distance" else row[kind]} for row in rows]


def is_damaged(path: Path) -> bool:
    """Whether there is an index that can't be read. One whose update was interrupted is not damaged."""
    try:
        Index.to_write(path).marks()
        index = Index.to_read(path)
        if index is not None and len(index):
            index.find("a", None, True, (), 1)
    except RuntimeError:  # what LanceDB makes of files that are not what they should be
        return True
    return False


def discard(path: Path) -> None:
    """Remove an index; it is made anew from the documents."""
    (path / PUBLISHED).unlink(missing_ok=True)
    shutil.rmtree(path / f"{TABLE}.lance", ignore_errors=True)


def _connect(path: Path) -> Any:
    try:
        import lancedb
    except ModuleNotFoundError:
        raise WeftError("Knowledge bases stand on LanceDB; run pip install '.[knowledge]' in Weft's folder.") from None
    if sound(str(path)) != str(path):
        raise WeftError(f"LanceDB can keep no index in {printable(path)}, a name that is no UTF-8; rename the folder.")
    return lancedb.connect(str(path))


def _of_now(table: Any) -> Any:
    """A table, if it has the columns that there are now."""
    missing = set(TEXTS) - set(table.schema.names)
    if missing:
        raise RuntimeError(f"{TABLE} lacks {', '.join(sorted(missing))}")
    return table


def among(column: str, values: Sequence[str]) -> str:
    """The SQL condition that a column is one of some values."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def labelled(label: str, has: bool = True) -> str:
    """The SQL condition that a row has a label, or has it not."""
    return f"{'' if has else 'NOT '}array_has(labels, {quoted(label)})"


def quoted(value: str) -> str:
    """A value as SQL writes it."""
    return "'" + sound(value).replace("'", "''") + "'"
