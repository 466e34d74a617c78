"""What a language model says about what stands in its prompt, by Weft's own decoder: ways are compared, not programs.

:class:`Speaker` is about pictures, whose tokens it lays behind the words in the decoder's table of embeddings. Of what
is known, a picture or a text, the keys and values of the prompt up to its end are kept (:class:`KeptPrompt`), as by a
server that caches prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from prompted import Prompted, with_places
from torch import Tensor

from weft.decoder import Decoder, TextCache
from weft.images import load_image
from weft.model import WeftModel
from weft.processing import WeftProcessor
from weft.rendering import about_a_picture
from weft.responding import Response, ends_of
from weft.search import Prompt, read_prompt, search
from weft.tasks import LONGEST


@torch.inference_mode()
def first_token(decoder: Decoder, prompt: Prompt) -> int:
    """The token that follows a prompt of which nothing is kept."""
    return int(read_prompt(decoder, {}, prompt, TextCache(decoder, 1)).argmax())


class KeptPrompt:
    """A prompt whose beginning is kept.

    Args:
        decoder: the language model.
        prompt: the prompt.
        begun: how many of its tokens are kept.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder, prompt: Prompt, begun: int) -> None:
        self.decoder, self.prompt = decoder, prompt
        whole = TextCache(decoder, 1)
        read_prompt(decoder, {}, prompt, whole)
        self.cache = whole.first(begun)

    @torch.inference_mode()
    def first_token(self) -> int:
        """The token that follows it."""
        cache = self.cache.first(self.cache.lengths[0])
        return int(read_prompt(self.decoder, {}, self.prompt, cache).argmax())

    @property
    def bytes(self) -> int:
        """What is kept."""
        return sum(one.nbytes for pair in self.cache.blocks for one in pair)


class Speaker:
    """Says words about pictures.

    Args:
        model: what has learned.
        plain: a woven model whose language model is as it was loaded; it is given what LoRA has learned.
        features: encodes pictures, which it is handed as they were given; by default the frozen encoder.
    """

    def __init__(
        self,
        model: Prompted,
        plain: WeftModel,
        features: Callable[[Sequence[Any]], Float[Tensor, "M N D"]] | None = None,
    ) -> None:
        assert model.connector is not None and plain.processor is not None
        self.model, self.plain, self.features = model, plain.eval(), features or self._encode
        self.processor: WeftProcessor = plain.processor
        self.refresh()

    def refresh(self) -> None:
        """Take over what the model has learned since."""
        if self.model.sizes.rank:
            self.plain.language_model.load_state_dict(self.model.merged())
        decoder = self.plain.plain.get()
        assert decoder is not None, "the default language model has a plain decoder"
        self.decoder = decoder
        self.decoder.embeddings = self.decoder.embeddings[: self.model.words]
        self.connector = self.model.frozen_connector(self.plain.dtype)

    @torch.inference_mode()
    def say(self, pictures: Sequence[Any], instruction: str, *, beams: int = 3, **options: Any) -> list[Response]:
        """Follow an instruction about each picture; options are those of :func:`weft.search.search`."""
        prompts, _ = self.prompts(pictures, instruction)
        options = {"longest": LONGEST, "ends": ends_of(self.plain), **options}
        said = search(self.decoder, {}, prompts, beams=beams, **options)
        texts = [self.processor.decode(list(one.tokens), skip_special_tokens=True).strip() for one in said]
        return [Response(one.tokens, text, one.total) for one, text in zip(said, texts, strict=True)]

    @torch.inference_mode()
    def prompts(self, pictures: Sequence[Any], instruction: str) -> tuple[list[Prompt], int]:
        """A prompt about each picture, and how many of its tokens end with the picture; those before are not kept."""
        tokens = self.connector(self.features(pictures).to(self.plain.dtype))
        (count, size, width), words = tokens.shape, self.model.words
        if words + count * size > len(self.decoder.embeddings):
            room = self.decoder.embeddings.new_empty(count * size, width)
            self.decoder.embeddings = torch.cat((self.decoder.embeddings[:words], room))
        self.decoder.embeddings[words : words + count * size] = tokens.flatten(0, 1)
        ids, columns = self.tokens(instruction)
        firsts = range(words, words + count * size, size)
        return [Prompt(with_places(ids, columns, first, size)) for first in firsts], columns[0] + size

    def tokens(self, instruction: str) -> tuple[list[int], list[int]]:
        """The tokens of a prompt about a picture, and where it stands among them."""
        rendered = self.processor.render(about_a_picture(instruction), add_generation_prompt=True)
        ids, columns, _ = self.processor.tokenize(rendered)
        return ids, columns

    def _encode(self, pictures: Sequence[Any]) -> Float[Tensor, "M N D"]:
        return self.plain.encoder().encode([load_image(one) for one in pictures]).features
