"""The instructions that the shipped weaves were trained with, in the words that everything else uses for them."""

from __future__ import annotations

from typing import Literal

CAPTION = "Describe the picture."
TITLE = "Give the picture a title."
HEADLINE = "Write a title."
"""For a text. That of a picture is another instruction, since the two were learned apart."""

Length = Literal["short", "medium", "long"]
"""How long a summary is to be: a sentence, some sentences, or about half of a news article."""
SUMMARIES: dict[Length, str] = {
    "short": "Summarize in one sentence.",
    "medium": "Summarize in a few sentences.",
    "long": "Summarize in detail.",
}
NOT_SAID = "The text does not say."
"""What a reader answers when its passages do not hold the answer."""
QUESTION = "Question: {}\nText:\n"
"""What goes before a passage that is encoded in the sight of a question, or of an instruction."""
CLOZE = "Fill in the blank: {}"
"""A question made from a sentence, one of whose words or names is left out."""
