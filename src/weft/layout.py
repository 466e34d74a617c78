"""Rows of tokens laid side by side as tensors: cut, padded, and in the form that was asked for, as tokenizers do it.

:class:`Layout` is what somebody asked for, checked; it is given :class:`Tokenized` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from weft.errors import DataError
from weft.options import check_count, check_names, check_value

Padding = Literal["longest", "max_length", "do_not_pad"]
_NAMES = frozenset(
    {
        "add_special_tokens",
        "max_length",
        "pad_to_multiple_of",
        "padding",
        "padding_side",
        "return_attention_mask",
        "return_mm_token_type_ids",
        "return_token_type_ids",
        "truncation",
    }
)
_GROUPS = ("common_kwargs", "text_kwargs", "images_kwargs")
"""In which transformers' processors may be given the same options."""
_ENDLESS = 1 << 30
"""A length from which on a tokenizer knows no bound."""


class Tokenized(NamedTuple):
    """Messages as tokens.

    Attributes:
        ids: the tokens.
        columns: for each picture the token from which on it may be seen.
        document_columns: for each document the same.
    """

    ids: list[int]
    columns: list[int]
    document_columns: list[int]


@dataclass(frozen=True)
class Layout:
    """How rows are laid side by side.

    Attributes:
        padding: up to which length rows are filled.
        side: on which side they are.
        truncation: whether they are cut off at ``max_length``.
        max_length: tokens; None for what the tokenizer says its model takes.
        multiple: of what the length is made a multiple; None for none.
        tensors: ``"pt"``, ``"np"``, or None for lists.
    """

    padding: Padding = "longest"
    side: Literal["left", "right"] = "left"
    truncation: bool = False
    max_length: int | None = None
    multiple: int | None = None
    tensors: str | None = "pt"

    @classmethod
    def of(cls, *, return_tensors: Any = "pt", **options: Any) -> Layout:
        """The layout that options of tokenizers ask for.

        Raises:
            WeftError: an option or a value of one is not known.
        """
        for group in _GROUPS:
            options |= dict(options.pop(group, None) or {})
        return_tensors = options.pop("return_tensors", return_tensors)
        check_names(options, _NAMES, "The processor")
        padding, truncation = options.get("padding", True), options.get("truncation", False)
        side, most, multiple = (options.get(name) for name in ("padding_side", "max_length", "pad_to_multiple_of"))
        check_value("return_tensors", return_tensors, ("pt", "np", None))
        check_value("padding", padding, ("longest", "max_length", "do_not_pad", True, False))
        check_value("padding_side", side, ("left", "right", None))
        check_value(
            "truncation",
            truncation,
            ("longest_first", "only_first", "do_not_truncate", True, False, None),
        )
        for name, count in (("max_length", most), ("pad_to_multiple_of", multiple)):
            if count is not None:
                check_count(name, count)
        return cls(
            {True: "longest", False: "do_not_pad"}.get(padding, padding),
            side or "left",
            truncation not in (False, None, "do_not_truncate"),
            most,
            multiple,
            return_tensors,
        )

    def cut(self, row: Tokenized, tokenizer: PreTrainedTokenizerBase) -> Tokenized:
        """A row that is no longer than it may be."""
        over = len(row.ids) - (self.max_length or tokenizer.model_max_length) if self.truncation else 0
        if over <= 0:
            return row
        if tokenizer.truncation_side == "left":
            columns, others = ([max(0, at - over) for at in them] for them in (row.columns, row.document_columns))
            return Tokenized(row.ids[over:], columns, others)
        left = len(row.ids) - over
        columns, others = ([min(left, at) for at in them] for them in (row.columns, row.document_columns))
        return Tokenized(row.ids[:left], columns, others)

    def laid(
        self, rows: Sequence[Tokenized], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[dict[str, torch.Tensor], list[int]]:
        """Rows as ``input_ids`` and ``attention_mask``, and how far each was moved by padding on its left.

        Raises:
            DataError: rows of several lengths are to be tensors without padding, or there is no length to fill up to.
        """
        counts = [len(row.ids) for row in rows]
        width = max(counts)
        if self.padding == "do_not_pad" and min(counts) < width:
            raise DataError(f"Rows of {min(counts)} to {width} tokens are no tensor; leave padding=True.")
        if self.padding == "max_length":
            longest = self.max_length or tokenizer.model_max_length
            if longest > _ENDLESS:
                raise DataError("padding='max_length' needs a max_length; this tokenizer does not know one.")
            width = max(width, longest)
        if self.multiple and self.padding != "do_not_pad":
            width = -(-width // self.multiple) * self.multiple
        fill = tokenizer.pad_token_id
        input_ids = torch.full((len(rows), width), fill if fill is not None else 0)
        attention_mask = torch.zeros_like(input_ids)
        lefts = [width - count if self.side == "left" else 0 for count in counts]
        for index, (row, left) in enumerate(zip(rows, lefts, strict=True)):
            input_ids[index, left : left + len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
            attention_mask[index, left : left + len(row.ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}, lefts

    def converted(self, data: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Tensors in the form that was asked for."""
        if self.tensors == "pt":
            return dict(data)
        arrays = {name: tensor.numpy() for name, tensor in data.items()}
        return arrays if self.tensors == "np" else {name: array.tolist() for name, array in arrays.items()}
