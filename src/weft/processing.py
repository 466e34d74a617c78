"""The processor: chat messages with pictures and documents in them, as the tensors that a woven model takes.

A picture occupies no tokens, nor does a document. :class:`WeftProcessor` renders the messages with the tokenizer's own
chat template, so that the text is exactly what the language model is used to, and notes from which column on each
picture and document may be seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from weft.encoders import VisionEncoder, load_vision_encoder
from weft.errors import DataError, PartError
from weft.images import load_image
from weft.parts import resolve
from weft.rendering import PLAIN_TEMPLATE, Messages, Rendered, render
from weft.text_encoders import TextEncoder

FILE = "processor_config.json"


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


class WeftProcessor(ProcessorMixin):
    """Turns messages into ``input_ids``, ``attention_mask``, and what they hold: ``pixel_values`` and
    ``image_positions``; ``document_ids``, ``document_mask`` and ``document_positions``.

    Args:
        tokenizer: the language model's.
        encoder: the vision encoder, which knows how its pictures are prepared; None for a model without eyes.
        text_encoder: the text encoder, which knows how passages become tokens; None for a model that reads none.
        system_prompt: system message of conversations that have none; None leaves that to the chat template.
        parts: ids and hashes of tokenizer and encoder, to find them again; filled in by ``save_pretrained``'s caller.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoder: VisionEncoder | None = None,
        *,
        text_encoder: TextEncoder | None = None,
        system_prompt: str | None = None,
        parts: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.text_encoder = text_encoder
        self.system_prompt = system_prompt
        self.parts = parts or {}
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def __repr__(self) -> str:
        encoders = [one.id or "an encoder" for one in (self.encoder, self.text_encoder) if one is not None]
        return f"{type(self).__name__}({type(self.tokenizer).__name__}, {', '.join(map(repr, encoders))})"

    def use(self, encoder: VisionEncoder | TextEncoder) -> None:
        """Prepare pictures, or passages, for an encoder; the first of each kind is kept."""
        if isinstance(encoder, TextEncoder):
            self.text_encoder = self.text_encoder or encoder
        else:
            self.encoder = self.encoder or encoder

    @property
    def model_input_names(self) -> list[str]:
        """What a woven model takes."""
        pictures = ["pixel_values", "image_positions"] if self.encoder is not None else []
        documents = ["document_ids", "document_mask", "document_positions"] if self.text_encoder is not None else []
        return ["input_ids", "attention_mask", *pictures, *documents]

    @property
    def chat_template(self) -> str:
        """The tokenizer's template, or a plain one where it has none."""
        return self.tokenizer.chat_template or PLAIN_TEMPLATE

    def render(self, messages: Messages, *, bare: bool = False, **template: Any) -> Rendered:
        """Messages as text, with the places of their pictures and documents.

        Args:
            messages: ``{"role": ..., "content": ...}``; content is a string or a list of parts, of type ``"text"``,
                ``"image"`` (with the picture under ``"image"``, ``"path"`` or ``"url"``) or ``"document"`` (with the
                document under ``"text"``).
            bare: leave the system message to the chat template, as without Weft.
            **template: ``add_generation_prompt``, ``continue_final_message`` and what else the template takes.

        Raises:
            DataError: a part is of another type, or holds nothing.
        """

        def apply(plain: list[dict[str, str]]) -> str:
            options = {"chat_template": self.chat_template, "tokenize": False, **template}
            return self.tokenizer.apply_chat_template(plain, **options)

        return render(messages, apply, None if bare else self.system_prompt)

    def apply_chat_template(
        self,
        conversation: Messages | Sequence[Messages],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_dict: bool = True,
        return_tensors: str = "pt",
        processor_kwargs: dict[str, Any] | None = None,
        **template: Any,
    ) -> Any:
        """One conversation, or a batch of them, as text or as tensors (as in transformers).

        A batch is padded on the left, where generation wants it; ``processor_kwargs={"padding_side": "right"}``
        changes that.

        Raises:
            DataError: a message can't be rendered.
            PictureError: a picture can't be read.
        """
        batch = [conversation] if isinstance(conversation[0], Mapping) else conversation
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        rendered = [self.render(_messages(one), **options, **template) for one in batch]
        if not tokenize:
            texts = [one.text for one in rendered]
            return texts[0] if batch[0] is conversation else texts
        features = self._tensors(rendered, **(processor_kwargs or {}))
        return features if return_dict else features["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
        padding_side: str = "left",
        **options: Any,
    ) -> BatchFeature:
        """Plain text with pictures before it: a picture, or a list of them, for each text."""
        texts = [text or ""] if text is None or isinstance(text, str) else list(text)
        if images is None:
            given: list[Any] = [[] for _ in texts]
        else:
            given = list(images) if isinstance(images, (list, tuple)) else [images]
            if len(texts) == 1 and not isinstance(given[0], (list, tuple)):
                given = [given]
        if len(given) != len(texts):
            raise DataError(f"{len(texts)} texts were given with pictures for {len(given)}; give as many of each.")
        rendered = []
        for one, pictures in zip(texts, given, strict=True):
            pictures = tuple(pictures) if isinstance(pictures, (list, tuple)) else (pictures,)
            rendered.append(Rendered(one, pictures, (0,) * len(pictures)))
        return self._tensors(rendered, padding_side=padding_side)

    def _tensors(self, rendered: Sequence[Rendered], padding_side: str = "left", **_: Any) -> BatchFeature:
        rows = [self.tokenize(one) for one in rendered]
        width = max(len(row.ids) for row in rows)
        fill = self.tokenizer.pad_token_id
        input_ids = torch.full((len(rows), width), fill if fill is not None else 0)
        attention_mask = torch.zeros_like(input_ids)
        lefts = []
        for row, ids in enumerate(row.ids for row in rows):
            left = width - len(ids) if padding_side == "left" else 0
            input_ids[row, left : left + len(ids)] = torch.tensor(ids, dtype=torch.long)
            attention_mask[row, left : left + len(ids)] = 1
            lefts.append(left)
        data: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        pictures = [load_image(picture) for one in rendered for picture in one.pictures]
        if pictures:
            if self.encoder is None:
                raise DataError("A message holds a picture, but the model has no weave that reads pictures.")
            positions = _positions([row.columns for row in rows], lefts)
            data |= {"pixel_values": self.encoder.preprocess(pictures)[0], "image_positions": positions}
        if any(one.documents for one in rendered):
            data |= self._documents(rendered, [row.document_columns for row in rows], lefts)
        return BatchFeature(data)

    def _documents(
        self, rendered: Sequence[Rendered], places: Sequence[Sequence[int]], lefts: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """The documents of a batch, cut into passages, as tokens."""
        if self.text_encoder is None:
            raise DataError("A message holds a document, but the model has no weave that reads texts.")
        passages: list[list[int]] = []
        columns = []
        for one, own in zip(rendered, places, strict=True):
            row: list[int] = []
            for document, column in zip(one.documents, own, strict=True):
                cut = self.text_encoder.cut(document["text"])
                passages += [self.text_encoder.tokenize(piece.text)[0] for piece in cut]
                row += [column] * len(cut)
            columns.append(row)
        ids = torch.zeros(len(passages), max(map(len, passages), default=0), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, tokens in enumerate(passages):
            ids[index, : len(tokens)] = torch.tensor(tokens)
            mask[index, : len(tokens)] = 1
        return {"document_ids": ids, "document_mask": mask, "document_positions": _positions(columns, lefts)}

    def tokenize(self, rendered: Rendered) -> Tokenized:
        """A text as tokens, with the places of its pictures and documents among them."""
        encoded = self.tokenizer(rendered.text, return_offsets_mapping=True, add_special_tokens=False)
        begins = [begin for begin, _ in encoded["offset_mapping"]]
        return Tokenized(encoded["input_ids"], rendered.columns(begins), rendered.document_columns(begins))

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """The tokenizer's."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> str:
        """The tokenizer's."""
        return self.tokenizer.decode(*args, **kwargs)

    def post_process_image_text_to_text(
        self, generated: torch.Tensor, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Generated tokens as texts (as pipelines ask for it)."""
        return self.tokenizer.batch_decode(generated, skip_special_tokens=skip_special_tokens, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write ``processor_config.json``, which names the parts that hold tokenizer and encoder."""
        fields = {"processor_class": type(self).__name__, "system_prompt": self.system_prompt, **self.parts}
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        (Path(save_directory) / FILE).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        encoder: VisionEncoder | None = None,
        text_encoder: TextEncoder | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **_: Any,
    ) -> WeftProcessor:
        """Load what ``save_pretrained`` wrote, tokenizer and encoders from the parts that it names.

        Args:
            pretrained_model_name_or_path: the folder, or a Hub id.
            encoder: a vision encoder that is loaded already.
            text_encoder: a text encoder that is loaded already; one that is the language model itself comes with the
                model only.
            tokenizer: the tokenizer, if it is loaded already; by default that in the language model's folder.
        """
        folder = resolve(pretrained_model_name_or_path).path
        if not (folder / FILE).is_file():
            raise PartError(
                f"{folder} holds no processor: {FILE} is missing; give a folder that save_pretrained wrote."
            )
        fields = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if tokenizer is None:
            merged = folder / "language_model"
            tokenizer_folder = merged if merged.is_dir() else resolve(fields["language_model"]["id"]).path
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        if encoder is None and "encoder" in fields:
            merged = folder / "encoders" / fields["weave"]
            encoder = load_vision_encoder(merged if merged.is_dir() else fields["encoder"]["id"])
        parts = {name: fields[name] for name in ("language_model", "encoder", "weave") if name in fields}
        system_prompt = fields["system_prompt"]
        return cls(tokenizer, encoder, text_encoder=text_encoder, system_prompt=system_prompt, parts=parts)


def _positions(columns: Sequence[Sequence[int]], lefts: Sequence[int]) -> torch.Tensor:
    """Columns of each row's items as a table, moved by the padding on the left; -1 where a row has fewer."""
    table = torch.full((len(columns), max(map(len, columns))), -1)
    for row, (found, left) in enumerate(zip(columns, lefts, strict=True)):
        table[row, : len(found)] = torch.tensor(found, dtype=torch.long) + left
    return table


def _messages(conversation: Any) -> Messages:
    """The messages of a conversation, which pipelines hand over in an object of their own."""
    return getattr(conversation, "messages", conversation)
