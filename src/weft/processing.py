"""The processor: chat messages with pictures and documents in them, as the tensors that a woven model takes.

A picture occupies no tokens, nor does a document. :class:`WeftProcessor` renders the messages with the tokenizer's own
chat template, so that the text is exactly what the language model is used to, and notes from which column on each
picture and document may be seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import _get_template_variables as variables_of

from weft.control_tokens import Spans, control_tokens, encode
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.errors import DataError, PartError
from weft.layout import Layout, Tokenized
from weft.parts import resolve
from weft.rendering import PLAIN_TEMPLATE, Messages, Rendered, render
from weft.text_encoders import TextEncoder
from weft.whole_files import read_fields

FILE = "processor_config.json"
_GIVEN = frozenset({"messages", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "dict"})
"""What templates are given in any case."""
_OPTIONS = frozenset({"add_generation_prompt", "continue_final_message", "chat_template"})
"""What of a template's options is not for its text."""
_LAYING = frozenset({"padding", "padding_side", "truncation", "max_length", "pad_to_multiple_of", "add_special_tokens"})
_REFUSED = frozenset({"return_assistant_tokens_mask", "load_audio_from_video", "tokenizer_kwargs"})


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
    def chat_template(self) -> str | dict[str, str]:
        """The tokenizer's template, or a plain one where it has none."""
        return self.tokenizer.chat_template or PLAIN_TEMPLATE

    @property
    def template_variables(self) -> frozenset[str]:
        """What the chat template takes beside messages, as in ``enable_thinking``."""
        templates = self.chat_template
        sources = [templates] if isinstance(templates, str) else templates.values()
        return frozenset(name for source in sources for name in variables_of(source)) - _GIVEN

    def render(self, messages: Messages, *, bare: bool = False, **template: Any) -> Rendered:
        """Messages as text, with the places of their pictures and documents.

        Args:
            messages: ``{"role": ..., "content": ...}`` and what else the template takes of a message; content is a
                string or a list of parts, of type ``"text"``, ``"image"`` (with the picture under ``"image"``,
                ``"path"`` or ``"url"``) or ``"document"`` (with the document under ``"text"``).
            bare: leave the system message to the chat template, as without Weft.
            **template: ``add_generation_prompt``, ``continue_final_message``, ``tools`` and what else the template
                takes.

        Raises:
            DataError: a part is of another type, or holds nothing; or the template does not take these messages.
        """
        options = {name: template.pop(name) for name in tuple(template) if name in _OPTIONS}
        begins = not (self.tokenizer.chat_template or options.get("chat_template"))
        if begins:
            options["chat_template"] = PLAIN_TEMPLATE
        if template.get("tools"):
            template["tools"] = list(map(_schema, template["tools"]))

        def apply(plain: list[dict[str, Any]], **values: Any) -> str:
            try:
                return self.tokenizer.apply_chat_template(plain, tokenize=False, **options, **values)
            except Exception as error:  # a template is a program, and fails as it likes
                raise DataError(f"The chat template does not take these messages: {error}") from None

        fence = control_tokens(self.tokenizer).fenced
        rendered = render(messages, apply, None if bare else self.system_prompt, fence=fence, template=template)
        return replace(rendered, begins=begins)

    def apply_chat_template(
        self,
        conversation: Messages | Sequence[Messages],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_dict: bool = True,
        return_tensors: str | None = "pt",
        processor_kwargs: dict[str, Any] | None = None,
        **template: Any,
    ) -> Any:
        """One conversation, or a batch of them, as text or as tensors (as in transformers).

        A batch is padded on the left, where generation wants it; ``padding_side="right"`` changes that. Pictures stand
        where they are put in a message.

        Args:
            conversation: see :meth:`render`.
            tokenize: whether to make tensors.
            add_generation_prompt: end where the assistant is to speak.
            continue_final_message: end with the last message, open, for the model to go on with.
            return_dict: all that a model takes; otherwise the tokens alone.
            return_tensors: see :meth:`__call__`.
            processor_kwargs: ``padding``, ``truncation``, ``max_length`` and ``padding_side``, as for :meth:`__call__`;
                they may be given as such, too.
            **template: ``tools`` and what else the chat template takes.

        Raises:
            DataError: a message can't be rendered, or an option is not known.
            PictureError: a picture can't be read.
        """
        given = _messages(conversation)
        batched = not given or not (isinstance(given[0], Mapping) or hasattr(given[0], "role"))
        batch = [_messages(one) for one in given] if batched else [given]
        if not batch or not all(batch):
            raise DataError("A conversation is empty; give at least one message.")
        laying = {name: template.pop(name) for name in tuple(template) if name in _LAYING}
        for name in _REFUSED & template.keys():
            if template.pop(name):
                raise DataError(f"{name} is not served by this processor; leave it out.")
        template.pop("sanitize_control_tokens", None)  # what people write never becomes a control token
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt}
        options["continue_final_message"] = continue_final_message
        rendered = [self.render(one, **options, **template) for one in batch]
        if not tokenize:
            texts = [one.text for one in rendered]
            return texts if batched else texts[0]
        layout = Layout.of(**{"return_tensors": return_tensors, **laying, **(processor_kwargs or {})})
        features = self._tensors([self.tokenize(one) for one in rendered], rendered, layout)
        return features if return_dict else features["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        return_tensors: str | None = "pt",
        add_special_tokens: bool = True,
        **options: Any,
    ) -> BatchFeature:
        """Plain text, as the tokenizer makes tokens of it, with pictures before it: a picture, or a list of them, for
        each text.

        Args:
            images: pictures, as :func:`~weft.images.load_image` takes them.
            text: a text, or a list of them.
            return_tensors: ``"pt"``, ``"np"``, or None for lists.
            add_special_tokens: whether to put around each text what the tokenizer puts there, as a begin-of-text token.
            **options: ``padding``, ``padding_side``, ``truncation``, ``max_length`` and ``pad_to_multiple_of``, as
                tokenizers have them; by default a batch is padded on the left.

        Raises:
            DataError: an option is not known, or texts and pictures do not belong together.
            PictureError: a picture can't be read.
        """
        layout = Layout.of(return_tensors=return_tensors, **options)
        texts = [text or ""] if text is None or isinstance(text, str) else list(text)
        for one in texts:
            if not isinstance(one, str):
                raise DataError(f"text: {one!r:.100} is no text; give a string, or a list of strings.")
        if images is None:
            given: list[Any] = [[] for _ in texts]
        else:
            given = list(images) if isinstance(images, (list, tuple)) else [images]
            if len(texts) == 1 and not (given and isinstance(given[0], (list, tuple))):
                given = [given]
        if len(given) != len(texts):
            raise DataError(f"{len(texts)} texts were given with pictures for {len(given)}; give as many of each.")
        rendered, rows = [], []
        for one, pictures in zip(texts, given, strict=True):
            pictures = tuple(pictures) if isinstance(pictures, (list, tuple)) else (pictures,)
            rendered.append(Rendered(one, pictures, (0,) * len(pictures)))
            cut = {"truncation": layout.truncation, "max_length": layout.max_length} if layout.truncation else {}
            encoded = self.tokenizer(one, add_special_tokens=add_special_tokens, **cut)
            belongs = encoded.sequence_ids(0)
            first = belongs.index(0) if 0 in belongs else len(belongs)
            rows.append(Tokenized(encoded["input_ids"], [first] * len(pictures), []))
        return self._tensors(rows, rendered, layout)

    def _tensors(self, rows: Sequence[Tokenized], rendered: Sequence[Rendered], layout: Layout) -> BatchFeature:
        """Rows of tokens, and what they hold, laid side by side."""
        rows = [layout.cut(row, self.tokenizer) for row in rows]
        data, lefts = layout.laid(rows, self.tokenizer)
        pictures = [picture for one in rendered for picture in one.pictures]
        if pictures:
            if self.encoder is None:
                raise DataError("A message holds a picture, but the model has no weave that reads pictures.")
            positions = _positions([row.columns for row in rows], lefts)
            data |= {"pixel_values": self.encoder.preprocess(pictures)[0], "image_positions": positions}
        if any(one.documents for one in rendered):
            data |= self._documents(rendered, [row.document_columns for row in rows], lefts)
        return BatchFeature(layout.converted(data))

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
        return self.tokenize_with_spans(rendered)[0]

    def tokenize_with_spans(self, rendered: Rendered) -> tuple[Tokenized, Spans]:
        """The same, and for each token the characters that it stands for; -1 of what the tokenizer puts before a
        text."""
        ids, spans = encode(self.tokenizer, rendered.text, rendered.walls)
        first = self._first if rendered.begins else []
        spans = [(-1, -1)] * len(first) + spans
        begins = [begin for begin, _ in spans]
        return Tokenized([*first, *ids], rendered.columns(begins), rendered.document_columns(begins)), spans

    @property
    def _first(self) -> list[int]:
        """What the tokenizer puts before any text: of most that do so a begin-of-text token."""
        encoded = self.tokenizer("a")
        return encoded["input_ids"][: encoded.sequence_ids(0).index(0)]

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
        fields = read_fields(folder / FILE, "copy the folder again, or save the model anew.")
        if tokenizer is None:
            merged = folder / "language_model"
            tokenizer_folder = merged if merged.is_dir() else resolve(fields["language_model"]["id"]).path
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        if encoder is None and "encoder" in fields:
            merged = folder / "encoders" / fields["weave"]
            encoder = load_vision_encoder(merged if merged.is_dir() else fields["encoder"]["id"])
        parts: dict[str, Any] = {
            name: fields[name] for name in ("language_model", "encoder", "weave") if name in fields
        }
        system_prompt = fields["system_prompt"]
        return cls(tokenizer, encoder, text_encoder=text_encoder, system_prompt=system_prompt, parts=parts)


def _positions(columns: Sequence[Sequence[int]], lefts: Sequence[int]) -> torch.Tensor:
    """Columns of each row's items as a table, moved by the padding on the left; -1 where a row has fewer."""
    table = torch.full((len(columns), max(map(len, columns))), -1)
    for row, (found, left) in enumerate(zip(columns, lefts, strict=True)):
        table[row, : len(found)] = torch.tensor(found, dtype=torch.long) + left
    return table


def _schema(tool: Any) -> Any:
    """The JSON schema of a tool that is a function; others are schemas."""
    if not callable(tool):
        return tool
    try:
        return get_json_schema(tool)
    except Exception as error:  # transformers and typing have many kinds
        raise DataError(f"A tool can't be described to the model: {error}") from None


def _messages(conversation: Any) -> Any:
    """The messages of a conversation, which pipelines hand over in an object of their own."""
    return getattr(conversation, "messages", conversation)
