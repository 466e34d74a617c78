"""What finished replies needed of pictures and leaned on in documents, found out when somebody asks.

A finished reply is kept with its conversation; the conversation's memories are in the model's cache, so that nothing is
read again: documents take one pass over the text, each picture a few batches.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from weft.explain import seen_without, words_of
from weft.images import load_image
from weft.knowledge import Passage
from weft.leaning import Leaning, lean_on
from weft.memory import Excerpt
from weft.model import WeftModel
from weft.occlusion import MATTERS, occluding
from weft.picture_thread import Waits, in_picture_thread
from weft.reading import cite
from weft.search import Prompt
from weft.server.conversation import OVERHEAD, Conversation
from weft.server.knowledge import KnowledgeFolder
from weft.server.schemas import Citation, Document, Explanation, ReadPassage, SeenPicture, SentenceShare, Word

LONGEST = 1024
"""Pixels of the longer side of a heat map, at most."""


@dataclass(frozen=True)
class Finished:
    """A finished reply.

    Attributes:
        owner: whose it is.
        conversation: what it replies to.
        tokens: its tokens.
        text: its words, as they were sent.
    """

    owner: str
    conversation: Conversation
    tokens: tuple[int, ...]
    text: str

    @property
    def bytes(self) -> int:
        """Bytes that keeping it takes."""
        return OVERHEAD + self.conversation.bytes + 36 * len(self.tokens) + 4 * len(self.text)


def citations(model: WeftModel, prompt: Prompt, conversation: Conversation, tokens: Sequence[int]) -> list[Citation]:
    """The passages that a reply leans on, the one that it leans on most first.

    Args:
        model: the model that gave it.
        prompt: what it replies to, as it was read.
        conversation: the same as it was sent.
        tokens: of the reply.
    """
    documents = _leaning(model, prompt, conversation, tokens)
    if documents is None:
        return []
    passages = _passages(documents, prompt, conversation)
    order = sorted(range(len(passages)), key=lambda place: -documents.shares[place])
    return [
        Citation(
            document=place,
            name=one.source,
            start=one.quote_span[0],
            end=one.quote_span[1],
            quote=one.quote,
            weight=round(one.weight, 4),
        )
        for one, place in zip(cite(passages, documents), order, strict=True)
    ]


def explaining(model: WeftModel, prompt: Prompt, id: str, finished: Finished) -> Generator[None, None, Explanation]:
    """What a finished reply needed and leaned on, with a stop after each batch; ``prompt`` is its conversation as it
    was read."""
    occlusions = yield from occluding(model, prompt, finished.tokens)
    documents = _leaning(model, prompt, finished.conversation, finished.tokens)
    words = words_of(model, finished.tokens)
    result = Explanation(id=id, text=finished.text, words=_placed(words, finished.text), pictures=[], documents=[])
    for occlusion in occlusions:
        falls = occlusion.greatest(words)
        result.pictures.append(
            SeenPicture(
                width=occlusion.source.size[0],
                height=occlusion.source.size[1],
                patches=occlusion.source.rectangles.round(1).tolist(),
                weights=occlusion.weights(words).round(5).tolist(),
                falls=falls.round(4).tolist(),
                matters=(falls > MATTERS).tolist(),
            )
        )
    if documents is not None:
        result.documents = _documents(documents, _passages(documents, prompt, finished.conversation))
    return result


def drawing(
    model: WeftModel, prompt: Prompt, finished: Finished, picture: int, word: int
) -> Generator[Waits, None, Image.Image | None]:
    """A picture, lit where it matters to a word, with a stop after each batch; None if there is no such picture or
    word."""
    words, images = words_of(model, finished.tokens), finished.conversation.of_kind("image")
    if picture >= len(images) or word >= len(words):
        return None
    occlusions = yield from occluding(model, prompt, finished.tokens)
    image = yield from in_picture_thread(load_image, images[picture]["image"])
    return seen_without(occlusions[picture], words, image).heatmap(word, LONGEST)


def opened(
    model: WeftModel, prompt: Prompt, finished: Finished, passage: int, knowledge: KnowledgeFolder
) -> Document | None:
    """The document of a passage, and the sentence of it that was leaned on most; None if there is no such passage."""
    owners = _owners(prompt)
    if passage >= len(owners):
        return None
    part = finished.conversation.of_kind("document")[owners[passage]]
    found = citations(model, prompt, finished.conversation, finished.tokens)
    quote = next((one for one in found if one.document == passage), None)
    text, name = part["text"], part["name"]
    if "knowledge" in part:
        text = knowledge.base(part["knowledge"]).document(name, part["part"])
    return Document(
        name=name,
        part=part.get("part", ""),
        text=text,
        start=quote.start if quote else 0,
        end=quote.end if quote else 0,
    )


def _leaning(model: WeftModel, prompt: Prompt, conversation: Conversation, tokens: Sequence[int]) -> Leaning | None:
    """What a reply leaned on among documents, by where they stand in the whole document; None if it read none."""
    sent = conversation.of_kind("document")
    if not sent:
        return None
    for leaning, sources in zip(lean_on(model, prompt, tokens), prompt.sources, strict=True):
        if leaning.sources and isinstance(leaning.sources[0], Excerpt):
            moved = (replace(one, start=one.start + sent[owner].get("start", 0)) for one, owner in sources)
            return replace(leaning, sources=tuple(moved))
    return None


def _passages(documents: Leaning, prompt: Prompt, conversation: Conversation) -> list[Passage]:
    """The passages that a reply leaned on."""
    sent, passages = conversation.of_kind("document"), []
    for one, owner in zip(documents.sources, _owners(prompt), strict=True):
        span = (one.start, one.start + len(one.text))
        passages.append(Passage(one.text, sent[owner]["name"], sent[owner].get("part", ""), span, 0.0))
    return passages


def _owners(prompt: Prompt) -> list[int]:
    """For each passage that a prompt reads, which of the documents it belongs to."""
    return [owner for sources in prompt.sources for source, owner in sources if isinstance(source, Excerpt)]


def _documents(documents: Leaning, passages: Sequence[Passage]) -> list[ReadPassage]:
    return [
        ReadPassage(
            name=passage.source,
            part=passage.part,
            start=passage.span[0],
            end=passage.span[1],
            text=passage.text,
            share=round(float(share), 4),
            sentences=[
                SentenceShare(start=begin, end=end, share=round(part, 4))
                for (begin, end), part in documents.sentences(index)
            ],
        )
        for index, (passage, share) in enumerate(zip(passages, documents.shares, strict=True))
    ]


def _placed(words: Sequence[tuple[str, int, int]], text: str) -> list[Word]:
    """Words with where they stand in a text."""
    placed, at = [], 0
    for word, _, _ in words:
        begin = text.find(word, at)
        if begin < 0:  # the text ended in front of it, at a stop
            break
        at = begin + len(word)
        placed.append(Word(text=word, start=begin, end=at))
    return placed
