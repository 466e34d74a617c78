"""Tokens as they come, made into text as soon as it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from weft.model import WeftModel

End = Literal["stop", "length"]
"""Why a reply ended: of itself or at a stop text, or because it may not be longer."""


@dataclass(frozen=True)
class Said:
    """A token of a reply.

    Attributes:
        token: its number.
        log_probability: natural logarithm, before temperature and ``top_p``; None unless it was asked for.
        likeliest: the likeliest tokens at its place with their log-probabilities, as many as were asked for.
    """

    token: int
    log_probability: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of a reply: text that is sure, the tokens that made it so, and at the end why it ended."""

    text: str
    said: tuple[Said, ...] = ()
    end: End | None = None


def whole(text: str) -> str:
    """A text without the half of a character in which it was cut off: tokens may end inside of one."""
    return text.rstrip("\ufffd")


def bytes_of(tokenizer: Any, token: int) -> bytes:
    """What a token adds to a text in UTF-8: perhaps a part of a character only."""
    text = tokenizer.decode([token])
    if "\ufffd" not in text:
        return text.encode()
    name = tokenizer.convert_ids_to_tokens(token)
    if name.startswith("<0x"):  # as SentencePiece writes a byte
        return bytes([int(name[3:-1], 16)])
    return bytes(_BYTES[character] for character in name)


def _byte_alphabet() -> dict[str, int]:
    """The characters in which byte-level tokenizers write bytes (Radford et al. 2019): printable ones as they are."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()


class Pieces:
    """The text of tokens that come one by one.

    Args:
        model: the model that says them.
        stop: texts at which the reply ends, in front of them.

    Attributes:
        done: whether the reply has ended.
    """

    def __init__(self, model: WeftModel, stop: Sequence[str]) -> None:
        self.processor: Any = model.processor
        self.stop = [text for text in stop if text]
        self.tokens: list[int] = []
        self.sent = 0
        self.done = False

    def take(self, item: Said | End | BaseException) -> Piece:
        """What one more token, or the end, makes sure of; an error is raised."""
        if isinstance(item, BaseException):
            self.done = True
            raise item
        said = (item,) if isinstance(item, Said) else ()
        self.tokens += [one.token for one in said]
        text = self.processor.decode(self.tokens, skip_special_tokens=True).lstrip()
        found = min((at for at in map(text.find, self.stop) if at >= 0), default=-1)
        end: End | None = "stop" if found >= 0 else None if isinstance(item, Said) else item
        self.done = end is not None
        if found >= 0:
            text = text[:found]
        elif not self.done:
            text = text[: self._sure(text)]
        else:
            text = whole(text).rstrip()
        fresh = text[self.sent :]
        self.sent = max(self.sent, len(text))
        return Piece(fresh, said, end)

    def _sure(self, text: str) -> int:
        """How much of a text can't change any more: not half a character, white space, or half of a stop."""
        end = len(text.rstrip("\ufffd").rstrip())
        for stop in self.stop:
            for length in range(min(len(stop) - 1, end), 0, -1):
                if text[:end].endswith(stop[:length]):
                    end -= length
                    break
        return max(end, self.sent)
