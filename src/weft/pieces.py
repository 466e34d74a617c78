"""Tokens as they come, made into text as soon as it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.model import WeftModel


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

    def take(self, item: int | BaseException | None) -> str:
        """The text that one more token makes sure of; None ends the reply, an error is raised."""
        if isinstance(item, BaseException):
            self.done = True
            raise item
        if item is not None:
            self.tokens.append(item)
        text = self.processor.decode(self.tokens, skip_special_tokens=True).lstrip()
        found = min((at for at in map(text.find, self.stop) if at >= 0), default=-1)
        self.done = item is None or found >= 0
        if found >= 0:
            text = text[:found]
        elif not self.done:
            text = text[: self._sure(text)]
        elif item is None:
            text = text.rstrip()
        fresh = text[self.sent :]
        self.sent = max(self.sent, len(text))
        return fresh

    def _sure(self, text: str) -> int:
        """How much of a text can't change any more: not half a character, white space, or half of a stop."""
        end = len(text.rstrip("\ufffd").rstrip())
        for stop in self.stop:
            for length in range(min(len(stop) - 1, end), 0, -1):
                if text[:end].endswith(stop[:length]):
                    end -= length
                    break
        return max(end, self.sent)
