"""Text encoders: frozen models that turn passages into features, and know which characters each token stands for.

:class:`LanguageModelEncoder` is the frozen language model itself: it reads a passage alone, and its hidden states in
front of the decoder layers that read are the memory, one feature for each. :class:`TransformersTextEncoder` is any text
encoder of transformers. Both take passages in batches of like length, and each is encoded once; or once for a question,
which then stands before it and leaves no tokens of its own in the memory (as Fusion-in-Decoder encodes its passages,
Izacard and Grave 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from weft.control_tokens import encode_written
from weft.errors import PartError
from weft.hooks import states_before
from weft.instructions import QUESTION
from weft.memory import Excerpt, Memory, content_hash
from weft.parts import ResolvedPart, resolve
from weft.passages import PIECE, Piece, cut

OWN = "language-model"
"""Id of the encoder that is the language model itself."""
TOKENS_AT_ONCE = 4096
"""Tokens, padding counted, that are encoded in one batch."""


def pieces(text: str, longest: int, *, overlap: int = 0, name: str = "text") -> list[Piece]:
    """A long text as passages that end where sentences end.

    Args:
        text: any text.
        longest: characters of a passage, at most.
        overlap: characters, at most, that a passage repeats of the one before it.
        name: what to call the text.
    """
    return [Piece(text[begin:end], name, begin) for begin, end in cut(text, longest, overlap)]


class TextEncoder(nn.Module):
    """A frozen text encoder.

    Attributes:
        id: name by which it can be found again; empty for one that was made in memory.
        sha256: hash of its weights' file.
        tokenizer: cuts passages into tokens.
        width: features of a token, ``D``.
        longest: tokens of a passage, at most.
        copies: whether its tokens are of the language model's own vocabulary.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, id: str, sha256: str, width: int, longest: int, copies: bool
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.id, self.sha256, self.width, self.longest, self.copies = id, sha256, width, longest, copies

    @property
    def tokens(self) -> int:
        """Passages have no fixed number of tokens."""
        return 0

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    def encode(self, passages: Sequence[str | Piece]) -> Memory:
        """Features of passages, those of like length at once.

        Args:
            passages: texts of no more than :attr:`longest` tokens each; what is longer is cut off, so :meth:`cut` long
                texts first.
        """
        given = [Piece(passage) if isinstance(passage, str) else passage for passage in passages]
        tokens = [self.tokenize(piece.text, piece.question) for piece in given]
        sources = tuple(
            Excerpt(piece.text, spans, piece.name, piece.start) for piece, (_, spans) in zip(given, tokens, strict=True)
        )
        named = self.id or f"in memory {id(self)}"
        key = content_hash(named, self.sha256, repr(self.reads), *(piece.content for piece in given))
        before = [self.before(piece.question) for piece in given]
        return replace(self.encode_tokens([ids for ids, _ in tokens], before), sources=sources, key=key)

    def encode_tokens(self, tokens: Sequence[Sequence[int]], before: Sequence[Sequence[int]] = ()) -> Memory:
        """Features of passages that are given as tokens, those of like length at once; what they cite is not in it.

        Args:
            tokens: of each passage.
            before: of each passage's question; empty where none has any.
        """
        width = max(map(len, tokens), default=0)
        before = before or [()] * len(tokens)
        features = torch.zeros(0, 0, self.width)
        for chosen in batches([len(asked) + len(ids) for asked, ids in zip(before, tokens, strict=True)]):
            run = self.run([tokens[index] for index in chosen], [before[index] for index in chosen])
            for index, found in zip(chosen, run, strict=True):
                if not len(features):
                    features = found.new_zeros(len(tokens), width, found.shape[-1])
                features[index, : len(found)] = found
        mask = torch.arange(width) < torch.tensor([len(ids) for ids in tokens], dtype=torch.long)[:, None]
        return Memory(features, (), None if bool(mask.all()) else mask.to(features.device), ids=self.ids(tokens))

    def cut(self, text: str, name: str = "text", longest: int = PIECE, question: str = "") -> list[Piece]:
        """A long text as passages that end where sentences end, none of more tokens than the encoder takes.

        Args:
            text: any text.
            name: what to call it.
            longest: characters of a passage, at most.
            question: the question in whose sight they are to be encoded; empty for none.
        """
        found: list[Piece] = []
        room = self.longest - len(self.before(question))
        for piece in pieces(text, longest, name=name):
            count = len(self.around) + len(encode_written(self.tokenizer, piece.text)[0])
            if count + 1 > room and longest > 1:  # a script in which a character is a token or several
                smaller = self.cut(piece.text, name, max(1, longest // 2), question)
                found += [replace(one, start=piece.start + one.start) for one in smaller]
            else:
                found.append(replace(piece, question=question))
        return found

    @property
    def reads(self) -> Any:
        """What its features depend on beside the weights and the text."""
        return self.longest

    def ids(self, tokens: Sequence[Sequence[int]]) -> Int[Tensor, "M N"] | None:
        """Tokens of passages as a memory keeps them; None where they are of another vocabulary."""
        if not self.copies:
            return None
        width = max(map(len, tokens), default=0)
        table = torch.full((len(tokens), width), -1)
        for row, ids in zip(table, tokens, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        special = torch.tensor(self.tokenizer.all_special_ids, dtype=torch.long)
        return table.masked_fill(torch.isin(table, special), -1)

    def tokenize(self, text: str, question: str = "") -> tuple[list[int], Int[np.ndarray, "N 2"]]:
        """Tokens of a passage that go into the memory, and the characters that each stands for.

        Args:
            text: the passage.
            question: the question in whose sight it is to be encoded, which takes some of its room; empty for none.
        """
        room = self.longest - len(self.before(question))
        ids, spans = encode_written(self.tokenizer, text)
        first, last = self.around[: self.begin], self.around[self.begin :]
        most = max(0, room - len(self.around))
        ids, spans = ids[:most], [(0, 0)] * len(first) + spans[:most] + [(0, 0)] * len(last)
        return [*first, *ids, *last], np.asarray(spans, dtype=np.int64).reshape(-1, 2)

    @property
    def around(self) -> list[int]:
        """Tokens that the tokenizer puts around a passage: the first :attr:`begin` of them before it."""
        encoded = self.tokenizer("a")
        return [id for id, owner in zip(encoded["input_ids"], encoded.sequence_ids(0), strict=True) if owner is None]

    @property
    def begin(self) -> int:
        """Tokens that begin every passage, behind which a question goes."""
        raise NotImplementedError

    def before(self, question: str) -> list[int]:
        """Tokens with which a question goes before a passage; none for an empty one. Of a question that takes more than
        half of the encoder's length its end is taken."""
        most = self.longest // 2
        _, places = encode_written(self.tokenizer, question)
        if not places:
            return []
        return self._before(question if len(places) <= most else question[places[-most][0] :])

    def _before(self, question: str) -> list[int]:
        raise NotImplementedError

    def run(self, tokens: Sequence[Sequence[int]], before: Sequence[Sequence[int]] = ()) -> list[Float[Tensor, "N D"]]:
        """Features of passages given as tokens, of like length; arguments as for :meth:`encode_tokens`."""
        before, parameter = before or [()] * len(tokens), next(self.model.parameters())
        begin = self.begin if any(before) else 0
        whole = [[*ids[:begin], *asked, *ids[begin:]] for ids, asked in zip(tokens, before, strict=True)]
        width = max(map(len, whole), default=0)
        if not width:
            return [parameter.new_zeros(0, self.width) for _ in tokens]
        input_ids = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.long) for ids in whole], batch_first=True)
        place, asked = torch.arange(width), torch.tensor([len(ids) for ids in before])[:, None]
        mask = place < torch.tensor([len(ids) for ids in whole])[:, None]
        behind = (asked > 0) & (place >= begin + asked)
        with torch.no_grad():
            features = self.forward(*(one.to(parameter.device) for one in (input_ids, mask, behind)))
        return [
            torch.cat((row[:begin], row[begin + len(asked) :]))[: len(ids)] if asked else row[: len(ids)]
            for row, ids, asked in zip(features, tokens, before, strict=True)
        ]

    @property
    def model(self) -> Any:
        """The model that encodes."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder from which :func:`load_text_encoder` gets it back."""
        raise NotImplementedError


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of passages in batches: those of like length together, of no more than so many tokens."""
    chosen: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if chosen and (len(chosen) + 1) * lengths[index] > TOKENS_AT_ONCE:
            yield chosen
            chosen = []
        chosen.append(index)
    if chosen:
        yield chosen


class LanguageModelEncoder(TextEncoder):
    """The frozen language model as encoder of passages, each read alone.

    A token's features are its hidden states in front of each of ``layers``, side by side: what those decoder layers
    would see of it if the passage stood in the prompt. A begin-of-text token (where the tokenizer has one) goes before
    every passage, since a model's first token is where its attention rests when it looks for nothing.

    Args:
        language_model: the language model; it is used, not owned.
        layers: its decoder layers.
        chosen: those in front of which hidden states are taken.
        tokenizer: its tokenizer.
        longest: tokens of a passage, at most; never more than the language model has positions for.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        layers: nn.ModuleList,
        chosen: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        *,
        sha256: str,
        longest: int = 1024,
    ) -> None:
        config = language_model.config.get_text_config(decoder=True)
        width = config.hidden_size * len(chosen)
        longest = min(longest, getattr(config, "max_position_embeddings", None) or longest)
        super().__init__(tokenizer, id=OWN, sha256=sha256, width=width, longest=longest, copies=True)
        self._used = (language_model, layers)  # a tuple hides it: the language model is the woven model's to keep
        self.chosen = tuple(chosen)
        begin = tokenizer.bos_token_id
        self._begin = [] if begin is None else [begin]

    @property
    def model(self) -> PreTrainedModel:
        return self._used[0]

    @property
    def reads(self) -> Any:
        return (self.chosen, self.longest, str(self.model.dtype))

    @property
    def begin(self) -> int:
        return len(self._begin)

    def _before(self, question: str) -> list[int]:
        return encode_written(self.tokenizer, QUESTION.format(question))[0]

    def tokenize(self, text: str, question: str = "") -> tuple[list[int], Int[np.ndarray, "N 2"]]:
        encoded, spans = encode_written(self.tokenizer, text)
        room = self.longest - len(self._begin) - len(self.before(question))
        ids = [*self._begin, *encoded[:room]]
        return ids, np.asarray([(0, 0)] * len(self._begin) + spans[:room]).reshape(-1, 2)

    def forward(
        self, input_ids: Int[Tensor, "M N"], mask: Bool[Tensor, "M N"], behind: Bool[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M N D"]:
        """Features of passages, padded on the right; it tells a passage from the question before it by their words."""
        layers = [self._used[1][index] for index in self.chosen]
        inputs = {"input_ids": input_ids, "attention_mask": mask, "use_cache": False}
        return torch.cat(states_before(self.model.base_model, layers, inputs), -1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Nothing: it is the language model."""


class TransformersTextEncoder(TextEncoder):
    """A text encoder of transformers (BERT, RoBERTa, ModernBERT, T5's encoder, ...); a token's features are its last
    hidden state.

    Args:
        model: the model, or one with an encoder and a decoder, of which the encoder is taken.
        tokenizer: its tokenizer.
        id: name by which it can be found again.
        sha256: hash of its weights' file.

    Raises:
        PartError: the model is no text encoder.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, id: str = "", sha256: str = ""
    ) -> None:
        width = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None)
        words = len(tokenizer) - len(tokenizer.all_special_ids)  # none in a tokenizer made up where there was none
        if width is None or not getattr(tokenizer, "is_fast", False) or not words:
            raise PartError(f"{type(model).__name__} is no text encoder with a fast tokenizer; give another encoder.")
        longest = min(int(tokenizer.model_max_length), _positions(model))
        super().__init__(tokenizer, id=id, sha256=sha256, width=width, longest=longest, copies=False)
        self.whole: Any = model
        self.requires_grad_(False).eval()

    @property
    def model(self) -> Any:
        return self.whole.get_encoder() if getattr(self.whole.config, "is_encoder_decoder", False) else self.whole

    @property
    def begin(self) -> int:
        return self.tokenizer("a").sequence_ids(0).index(0)

    def _before(self, question: str) -> list[int]:
        pair = self.tokenizer("a", "a")
        belongs = pair.sequence_ids(0)
        end = len(belongs) - belongs[::-1].index(0)  # behind the question stands what parts it from the passage
        return [*encode_written(self.tokenizer, question)[0], *pair["input_ids"][end : belongs.index(1)]]

    def forward(
        self, input_ids: Int[Tensor, "M N"], mask: Bool[Tensor, "M N"], behind: Bool[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M N D"]:
        """Features of passages, padded on the right.

        Args:
            input_ids: tokens.
            mask: True where one is real.
            behind: True where one stands behind a question: the second sentence of a pair, where the encoder knows two.
        """
        inputs = {"input_ids": input_ids, "attention_mask": mask.long()}
        if behind is not None and getattr(self.whole.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = behind.long()
        return self.model(**inputs).last_hidden_state

    def save_pretrained(self, folder: str | Path) -> None:
        self.whole.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _positions(model: PreTrainedModel) -> int:
    """Tokens for which a model has positions; those of RoBERTa's kind begin behind the padding token's id."""
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = next((table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), None)
    return positions if padding is None else positions - padding - 1


def load_text_encoder(part: str | Path | ResolvedPart, *, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """Load a text encoder of transformers.

    Args:
        part: a part that Weft knows (``"all-minilm-l6-v2"``), a folder, a Hub id, or a part that has been found.
        dtype: floating-point type.

    Raises:
        PartError: there is no text encoder.
    """
    found = part if isinstance(part, ResolvedPart) else resolve(part)
    if not (found.path / "config.json").is_file():
        raise PartError(f"{part} holds no encoder: config.json is missing; give the folder or Hub id of a text model.")
    try:
        config = AutoConfig.from_pretrained(found.path)
        if config.model_type in ("t5", "mt5", "umt5"):  # the encoder alone, whichever of the two was saved
            from transformers import AutoModelForTextEncoding

            model = AutoModelForTextEncoding.from_pretrained(found.path, dtype=dtype)
        else:
            model = AutoModel.from_pretrained(found.path, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(found.path)
    except (OSError, ValueError, SafetensorError) as error:
        raise PartError(f"{part} can't be loaded as a text encoder ({error}).") from None
    return TransformersTextEncoder(model.eval(), tokenizer, id=found.id, sha256=found.sha256)
