"""The knowledge bases of a server: known by name, from the folder that was given when it was started.

No name leads to a path: it is looked up among the folders that are there.
"""

from __future__ import annotations

from pathlib import Path

from weft.errors import WeftError
from weft.knowledge import FOLDER, KnowledgeBase
from weft.server.errors import ApiError


class KnowledgeFolder:
    """Knowledge bases by name.

    Args:
        folder: holds a folder of documents for each, or is the only one itself; None for none.

    Raises:
        WeftError: it is no folder, or nothing in it has been indexed.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is None:
            return
        if not folder.is_dir():
            raise WeftError(f"{folder} is no folder; give one that holds knowledge bases, or is one.")
        if not self._bases():
            raise WeftError(f"Nothing in {folder} has been indexed; run `weft index` on a folder of documents first.")

    def names(self) -> list[str]:
        """Their names, in order."""
        return sorted(self._bases())

    def base(self, name: str) -> KnowledgeBase:
        """A knowledge base.

        Raises:
            ApiError: there is none of this name.
        """
        bases = self._bases()
        if name not in bases:
            known = ", ".join(sorted(bases)) or "none"
            message = f"There is no knowledge base {name!r}; there are: {known}."
            raise ApiError(404, message, "knowledge_not_found", "knowledge")
        return KnowledgeBase(bases[name])

    def _bases(self) -> dict[str, Path]:
        """The folders that have been indexed, by name."""
        if self.folder is None:
            return {}
        folders = [self.folder, *self.folder.iterdir()]
        return {one.resolve().name: one for one in folders if (one / FOLDER).is_dir()}
