"""Under which terms Weft and its weaves may be used.

:func:`terms_of` is given the folder of a weave and hands on what its card says: the card, ``README.md``, is the one
place where a weave's terms stand, in the YAML in front of it that the Hugging Face Hub reads as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weft.errors import PartError

CODE = "Apache-2.0"
"""The terms of Weft's own code."""
CARD = "README.md"


@dataclass(frozen=True)
class Terms:
    """The terms of a weave's weights.

    Attributes:
        licence: its SPDX identifier, in lower case as the Hub has it, or the name of other terms.
        data: the terms of each data set that the weights were learned from.
    """

    licence: str
    data: Mapping[str, str]

    def __str__(self) -> str:
        learned = ", ".join(f"{name} ({terms})" for name, terms in self.data.items())
        return f"{self.licence}; learned from {learned}" if learned else self.licence


def terms_of(folder: Path) -> Terms:
    """The terms of the weave in a folder.

    Its card begins with YAML, in which ``license`` is an identifier of the Hub, or ``other`` where ``license_name``
    names the terms; ``terms`` gives those of each of the ``datasets``.

    Raises:
        PartError: there is no card, or it doesn't say so.
    """
    from huggingface_hub import metadata_load

    card = folder / CARD
    fields = (metadata_load(card) if card.is_file() else None) or {}
    licence = fields.get("license_name" if fields.get("license") == "other" else "license")
    data = fields.get("terms") or {}
    if not isinstance(licence, str) or not isinstance(data, dict) or set(data) != set(fields.get("datasets") or ()):
        raise PartError(
            f"{card} doesn't say under which terms the weave may be used; begin it with YAML that has 'license', "
            "'datasets', and under 'terms' those of each data set."
        )
    return Terms(licence, {name: str(terms) for name, terms in data.items()})
