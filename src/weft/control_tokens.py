"""Control tokens (``<|im_end|>``, ``[SEP]``, ...), told from text that somebody wrote and that only looks like them.

A tokenizer makes a control token of its text wherever it stands. In a chat only the template may write one: whoever
writes part of a message could otherwise end it and speak as the system. :meth:`ControlTokens.fenced` is given what
people wrote and hands it on with a mark inside everything that could be taken for a control token; once the template
has been applied the marks become *walls*, and :func:`encode` makes tokens of the text in which no control token
stands across a wall.

Text without such look-alikes goes to the tokenizer as it is. Text with them goes to a twin of it, made when it is first
needed, which knows the control tokens by names that nobody can write: what the template wrote is renamed, everything
else is text, and whatever the tokenizer does at the seams it does there as well.
"""

from __future__ import annotations

import json
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer

from weft.charsets import HALF
from weft.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = list[tuple[int, int]]
"""For each token the characters that it stands for: the first one, and the one behind the last."""
Found = tuple[int, int, str]
"""A control token in a text: where it begins and ends, and what it is."""


def encode(tokenizer: PreTrainedTokenizerBase, text: str, walls: Sequence[int] = ()) -> tuple[list[int], Spans]:
    """The tokens of a text, without those that the tokenizer would put around it.

    Args:
        tokenizer: a fast one.
        text: the text.
        walls: characters in front of which a control token may end or begin, but none may stand across, ascending.

    Raises:
        DataError: the text holds what looks like a control token, and the tokenizer can't take that as text.
    """
    return control_tokens(tokenizer).encode(tokenizer, text, walls)


def encode_written(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], Spans]:
    """The same for a text that is somebody's as a whole, as a document is: no control token is in it."""
    return control_tokens(tokenizer).encode(tokenizer, text, None)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """The control tokens of a tokenizer."""
    made = _MADE.get(tokenizer)
    if made is None or made.state != _state(tokenizer):
        made = _MADE[tokenizer] = ControlTokens(tokenizer)
    return made


class ControlTokens:
    """The control tokens of a tokenizer.

    These are its special tokens, those of its other added tokens that its chat template writes (or that its
    ``chat_control_tokens`` name), and those that look like ``<|this|>``. Further added tokens are words.

    Args:
        tokenizer: a fast one.

    Attributes:
        state: what they were found in; another one has others.
        special: the special tokens, with their ids.
        every: all of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.state = _state(tokenizer)
        template = tokenizer.chat_template or ""
        source = template if isinstance(template, str) else "\n".join(template.values())
        named = getattr(tokenizer, "chat_control_tokens", None)
        added = [(id, one) for id, one in tokenizer.added_tokens_decoder.items() if one.content]
        self.special = {one.content: id for id, one in added if one.special}
        others = {one.content: id for id, one in added if not one.special}
        written = others if named is not None else {text: id for text, id in others.items() if text in source}
        self.every = self.special | {
            text: id
            for text, id in others.items()
            if _is_bracketed(text) or (text in written and (text in named if named is not None else _is_no_word(text)))
        }
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        unknown = {getattr(self._backend.model, "unk_token", None), tokenizer.unk_token}
        self._ids = {id for text, id in self.every.items() if text not in unknown}
        self._lengths = {
            False: _lengths(self.every),
            True: _lengths(self.special),
        }
        cuts = {text: range(1, len(text)) for text in self.every}
        self._beginnings = {text[:cut] for text, range_ in cuts.items() for cut in range_}
        self._ends = {text[cut:] for text, range_ in cuts.items() for cut in range_}
        self._longest = max(map(len, self.every), default=0)

    # What people wrote

    def fenced(self, written: Any, mark: str, *, special_only: bool = False) -> Any:
        """What people wrote, with a mark inside all that could be taken for a control token.

        Args:
            written: a text, or texts in lists and objects (keys included); what is neither is handed on.
            mark: stands for a wall.
            special_only: whether added tokens that are not special are let through: a model writes them itself, as in
                ``<think>``.
        """
        if isinstance(written, str):
            return self._fenced(written, mark, special_only)
        if isinstance(written, Mapping):
            pairs = [(self.fenced(one, mark, special_only=special_only) for one in pair) for pair in written.items()]
            return dict(pairs)  # type: ignore[arg-type]
        if isinstance(written, (list, tuple)):
            return [self.fenced(one, mark, special_only=special_only) for one in written]
        return written

    def _fenced(self, text: str, mark: str, special_only: bool) -> str:
        found = list(self._all(text, special_only))
        walls = {begin + 1 for begin, _, _ in found} | {begin for begin, end, _ in found if end == begin + 1}
        body = text.rstrip()  # templates may strip it
        longest = min(self._longest, len(body) + 1)
        walls |= {len(body) - size + 1 for size in range(1, longest) if body[-size:] in self._beginnings}
        body = text.lstrip()
        if any(body[:size] in self._ends for size in range(1, min(self._longest, len(body) + 1))):
            walls.add(len(text) - len(body))
        if not walls:
            return text
        places = [0, *sorted(walls), len(text)]
        return mark.join(text[begin:end] for begin, end in pairwise(places))

    def _all(self, text: str, special_only: bool) -> Iterator[Found]:
        """All control tokens in a text, those that overlap as well; of those that begin at one place the longest."""
        lengths = self._lengths[special_only]
        known = self.special if special_only else self.every
        for first, sizes in lengths.items():
            place = text.find(first)
            while place >= 0:
                for size in sizes:
                    if (token := text[place : place + size]) in known:
                        yield place, place + len(token), token
                        break
                place = text.find(first, place + 1)

    # Tokens

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, text: str, walls: Sequence[int] | None
    ) -> tuple[list[int], Spans]:
        """See :func:`encode`; without walls (None) no control token at all is in the text."""
        if not text.isascii() and (half := HALF.search(text)):
            raise DataError(
                f"A text holds half a character (a lone surrogate, {half[0]!a}, at character {half.start():,}); "
                "leave it out, or decode the text anew with errors='replace'."
            )
        own = [] if walls is None else list(self._between(text, walls))
        plain_text = own == list(self._between(text, ()))
        plain = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        ids, spans = plain["input_ids"], plain["offset_mapping"]
        if plain_text and self._holds(ids, own):
            return ids, spans
        twin, names, back = self._twin
        renamed, done = [], 0
        for begin, end, token in own:
            renamed += [text[done:begin], names[token]]
            done = end
        found = twin.encode("".join([*renamed, text[done:]]), add_special_tokens=False)
        ids = [back.get(id, id) for id in found.ids]
        if not self._holds(ids, own):
            raise DataError(
                f"A text holds what this tokenizer makes a control token of in any case: {self._looks_like(text)}; "
                "leave it out."
            )
        return ids, found.offsets

    def _between(self, text: str, walls: Sequence[int]) -> Iterator[Found]:
        """The control tokens between the walls, leftmost first, none of which overlap; one of a single character has
        a wall on either side if somebody wrote it."""
        done = 0
        for begin, end, token in sorted(self._all(text, special_only=False)):
            before, behind = bisect_right(walls, begin), bisect_left(walls, end)
            walled = behind > before or (end == begin + 1 and begin in walls[:before] and end in walls[behind:])
            if begin >= done and not walled:
                yield begin, end, token
                done = end

    def _holds(self, ids: Sequence[int], own: Sequence[Found]) -> bool:
        """Whether there are no control tokens among tokens but these, in order."""
        allowed = iter([self.every[token] for _, _, token in own])
        return all(id in allowed for id in ids if id in self._ids)

    def _looks_like(self, text: str) -> str:
        return next((repr(token) for _, _, token in self._all(text, special_only=False)), "a character of it")

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[str, str], dict[int, int]]:
        """The same tokenizer with other names for control tokens, these names, and what its added tokens' ids are in
        the original.

        A name is as long as what it stands for, so that characters keep their places; and is random, of characters that
        have no meaning, so that nobody writes it.
        """
        names: dict[str, str] = {
            text: "".join(chr(0xF0000 + secrets.randbelow(0xFFFE)) for _ in text) for text in self.every
        }
        try:
            whole = json.loads(self._backend.to_str())
        except Exception as error:  # one with parts that are written in Python
            raise DataError(
                f"A text holds a control token, which this tokenizer can't take as text ({error})."
            ) from None
        for token in whole["added_tokens"]:
            if token["content"] in names:
                token |= {"content": names[token["content"]], "normalized": False}
        _rename(whole["model"], names)
        whole |= {"truncation": None, "padding": None}
        twin = Tokenizer.from_str(json.dumps(whole))
        ids = {one.content: id for id, one in self._backend.get_added_tokens_decoder().items()}
        back = {cast(int, twin.token_to_id(names.get(text, text))): id for text, id in ids.items()}
        return twin, names, back


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename tokens in a tokenizer's model: some hold the control tokens among their words."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(text, text): id for text, id in vocabulary.items()}
    elif isinstance(vocabulary, list):  # pieces with their scores
        model["vocab"] = [[names.get(text, text), *score] for text, *score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [[left, right] for left, right in pairs if not {left, right, left + right} & names.keys()]


def _lengths(tokens: Iterable[str]) -> dict[str, list[int]]:
    """By the characters with which tokens begin, how long they are, the longest first."""
    found: dict[str, set[int]] = {}
    for text in tokens:
        found.setdefault(text[:1], set()).add(len(text))
    return {first: sorted(sizes, reverse=True) for first, sizes in found.items()}


def _is_bracketed(text: str) -> bool:
    return len(text) > 4 and text[:2] in ("<|", "<\uff5c") and text[-2:] in ("|>", "\uff5c>")


def _is_no_word(text: str) -> bool:
    return not text.isspace() and not text.strip().isalnum()


def _state(tokenizer: PreTrainedTokenizerBase) -> Any:
    named = getattr(tokenizer, "chat_control_tokens", None)
    template = tokenizer.chat_template
    source = template if isinstance(template, str) else repr(template)
    return len(tokenizer), tuple(tokenizer.all_special_tokens), source, named and tuple(named)


_MADE: WeakKeyDictionary[PreTrainedTokenizerBase, ControlTokens] = WeakKeyDictionary()
"""What was found, for as long as the tokenizer is there."""
