"""Responses to prompts over memories that have been read, many at once.

:func:`respond` is what every task says its words with: it is given prompts as tokens, and which items of a memory each
of them holds, and hands on the tokens of the responses with their log-probabilities.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from weft.batch import BatchMemory
from weft.decoder import Decoder
from weft.errors import DataError, WeftError
from weft.generation_options import OWN, check_options, seeded
from weft.memory import Placement, ReadMemory
from weft.options import check_count
from weft.picture_thread import Waits, portions, read_in_portions
from weft.pieces import whole
from weft.plain import changes_words
from weft.quoting import find, fits
from weft.rendering import Messages, Rendered, arranged, as_object, question_of, quoted
from weft.search import Prompt, search
from weft.text_sources import check_words
from weft.weaving import check_reading

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.processing import WeftProcessor
    from weft.weaving import ReadingMode

_PLAIN_OPTIONS = {"bad_words_ids", "length_penalty"}
"""Options for ``generate`` that the plain decoder knows as well."""

Result = TypeVar("Result")
Held = Sequence[tuple[int, int]]
"""Items of a memory that a prompt holds, each with the token of the prompt from which on it may be seen."""


@dataclass(frozen=True)
class Response:
    """What a model said.

    Attributes:
        tokens: up to the one that ended it, without that.
        text: the words.
        log_probability: of the tokens and the one that ended them, natural logarithm, summed.
    """

    tokens: tuple[int, ...]
    text: str
    log_probability: float


@torch.inference_mode()
def respond(
    model: WeftModel,
    read: ReadMemory | None,
    prompts: Sequence[Sequence[int]],
    held: Sequence[Held],
    *,
    beams: int,
    longest: int,
    top_memory: int | None = None,
    **options: Any,
) -> list[Response]:
    """Continue prompts.

    Args:
        model: the woven model.
        read: the memory; None where no prompt holds any.
        prompts: tokens of each prompt.
        held: for each prompt the items that it holds.
        beams: beams of the search; 1 is greedy.
        longest: tokens after which a response is cut off.
        top_memory: how many of a prompt's items each fusion layer looks at, the most promising; None for all.
        **options: for ``generate``.

    Raises:
        WeftError: the model has no processor, a prompt is longer than the language model takes, ``top_memory`` is below
            one, or an option asks for more than one text.
    """
    if model.processor is None:
        raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
    beams, longest, seed = _checked(options, beams, longest)
    _check_room(model, max(map(len, prompts)), longest)
    plain = _plain(model, options)
    if plain is None:
        options |= {"beams": beams, "longest": longest, "top_memory": top_memory}
        with seeded(seed, model.device):
            return _generated(model, read, prompts, held, **options)
    texts = []
    for prompt, items in zip(prompts, held, strict=True):
        placed = None if read is None or not items else _placed_alone(model, read, items, top_memory)
        texts.append(Prompt(prompt, () if placed is None else (placed,)))
    return _searched(model, plain, texts, beams=beams, longest=longest, **options)


@torch.inference_mode()
def reply(model: WeftModel, prompt: Prompt, *, beams: int, longest: int, **options: Any) -> Response:
    """Continue one prompt whose memories have been read; arguments as for :func:`respond`.

    Raises:
        WeftError: the prompt is longer than the language model takes, or an option asks for more than one text.
    """
    beams, longest, seed = _checked(options, beams, longest)
    _check_room(model, len(prompt.tokens), longest)
    plain = _plain(model, options)
    if plain is not None:
        return _searched(model, plain, [prompt], beams=beams, longest=longest, **options)[0]
    input_ids = torch.tensor([list(prompt.tokens)], device=model.device)
    options = {**_one_text(longest, beams), **options}
    with seeded(seed, model.device):
        return _responses(model, input_ids, torch.ones_like(input_ids), list(prompt.memories), options)[0]


def _checked(options: dict[str, Any], beams: int, longest: int) -> tuple[int, int, int | None]:
    """Beams, tokens of a response at most, and the seed; these are taken out of the options, which are checked.

    Raises:
        WeftError: an option is not known, or a count is none.
    """
    check_options(options)
    wanted, seed = options.pop("max_new_tokens", None), options.pop("seed", None)
    for name in OWN:
        options.pop(name, None)
    longest = longest if wanted is None else wanted
    check_count("beams", beams)
    check_count("max_new_tokens", longest)
    return beams, longest, seed


def _plain(model: WeftModel, options: Mapping[str, Any]) -> Decoder | None:
    """The plain decoder, where searching over it finds the words that ``generate`` finds with these options."""
    if set(options) <= _PLAIN_OPTIONS and not changes_words(model.generation_config.to_diff_dict()):
        return model.plain.get()
    return None


def _check_room(model: WeftModel, tokens: int, longest: int) -> None:
    room = model.positions
    if room is not None and tokens + longest > room:
        raise WeftError(
            f"The question has {tokens} tokens; this language model takes {room - longest} at most. Ask in fewer "
            "words, and give long texts as documents."
        )


def _searched(
    model: WeftModel,
    decoder: Decoder,
    prompts: Sequence[Prompt],
    *,
    beams: int,
    longest: int,
    bad_words_ids: Sequence[Sequence[int]] = (),
    length_penalty: float = 1.0,
) -> list[Response]:
    """Continuations by the plain decoder."""
    found = search(
        decoder,
        model.plain.weaves(),
        prompts,
        beams=beams,
        longest=longest,
        ends=ends_of(model),
        banned=bad_words_ids,
        length_penalty=length_penalty,
    )
    return [Response(one.tokens, _words(model, one.tokens), one.total) for one in found]


def prompt_of(
    model: WeftModel,
    messages: Messages,
    top_memory: int | None = None,
    mode: ReadingMode | None = None,
    longest: int = 0,
    template: Mapping[str, Any] | None = None,
) -> Prompt:
    """A conversation as a prompt that has read its pictures and documents; what was read before is not read again.

    Args:
        model: the woven model.
        messages: ``{"role": ..., "content": ...}``, the last one the user's.
        top_memory: how many pictures, and how many passages of documents, each fusion layer looks at; None for all.
        mode: how documents are read; None for what measured best for answers. In the sight of a question they are read
            in that of the last message.
        longest: tokens that the reply may have, for which documents in the prompt leave room.
        template: what the chat template takes beside messages (``tools``, ``enable_thinking``, ...).

    Raises:
        DataError: a message is not what it should be, or the last one is not the user's.
        PictureError: a picture can't be read.
        WeftError: the model has no processor, or no weave that reads what a message holds; or documents are to stand in
            the prompt that are too long for it.
    """
    return at_once(reading(model, messages, top_memory, mode, longest, template))


def as_learned(model: WeftModel, messages: Messages) -> Messages:
    """A conversation with its pictures and documents where the weaves that read them learned to see them."""
    configs = [model.weave(name).config for name in reversed(list(model.weaves))]
    places = {config.reads: config.placed for config in configs}
    return arranged(messages, places.get("pictures", "first"), places.get("texts", "first"))


def at_once(portions: Generator[Waits, None, Result]) -> Result:
    """The result of work that stops after each of its portions, for whoever has nothing to do meanwhile."""
    while True:
        try:
            waits = next(portions)
        except StopIteration as done:
            return done.value
        if waits is not None:
            wait([waits])


@torch.inference_mode()
def reading(
    model: WeftModel,
    messages: Messages,
    top_memory: int | None = None,
    mode: ReadingMode | None = None,
    longest: int = 0,
    template: Mapping[str, Any] | None = None,
) -> Generator[Waits, None, Prompt]:
    """The same, with a stop after each portion of pictures or passages, for whoever has other work to do meanwhile, and
    wherever a large picture is being decoded (:mod:`weft.picture_thread`).

    Arguments, result and errors as for :func:`prompt_of`.
    """
    if model.processor is None:
        raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
    check_reading(mode)
    messages = conversation(messages)
    template = dict(template or {})
    rendered, way, standing = _laid_out(model, model.processor, as_learned(model, messages), mode, longest, template)
    tokenized = model.processor.tokenize(rendered)
    placed: list[BatchMemory | None] = []
    sources: list[tuple[tuple[Any, int], ...]] = []

    def add(reads: Sequence[ReadMemory], items: Held, owners: Sequence[int]) -> None:
        read = ReadMemory.concatenate(reads)
        placed.append(_placed_alone(model, read, items, top_memory))
        sources.append(tuple(zip(read.sources, owners, strict=True)))

    if rendered.pictures:
        reads = yield from read_in_portions(model, rendered.pictures)
        add(reads, list(enumerate(tokenized.columns)), range(len(reads)))
    if rendered.documents and way != "prompt":
        encoder = model.encoder(model.weave_that_reads("texts").name)
        question = question_of(messages) if way == "careful" else ""
        cut = [
            (piece, column, owner)
            for owner, (one, column) in enumerate(zip(rendered.documents, tokenized.document_columns, strict=True))
            for piece in encoder.cut(one["text"], question=question)
        ]
        if cut:
            pieces, columns, owners = zip(*cut, strict=True)
            reads = []
            for portion in portions(pieces):
                reads.append(model.read_texts(portion))
                yield None
            add(reads, list(enumerate(columns)), owners)
    memories = tuple(memory for memory in placed if memory is not None)
    return Prompt(tokenized.ids, memories, (*sources, *standing.sources), standing.quoted)


def conversation(messages: Any) -> list[Mapping[str, Any]]:
    """The messages of a conversation that is to be answered, as objects.

    Raises:
        DataError: it is none, or ends with somebody whom nobody answers.
    """
    given = getattr(messages, "messages", messages)
    if not isinstance(given, (list, tuple)):
        raise DataError(f"A conversation is {given!r:.100}; give a list of messages.")
    found = [as_object(message) for message in given]
    if not found or found[-1]["role"] in ("assistant", "system", "developer"):
        raise DataError("A conversation is answered when the user has spoken; its last message must be the user's.")
    for message in found:
        content = message.get("content")
        if content is None and message["role"] != "assistant":
            raise DataError(f"A message of the {message['role']} has no content; give a string, or a list of parts.")
        for part in content if isinstance(content, (list, tuple)) else ():
            if part.get("type") == "document" and not part.keys() & {"id", "name"}:  # which programs give
                check_words(part["text"], "The text of a document part")
    return found


def _laid_out(
    model: WeftModel,
    processor: WeftProcessor,
    messages: Messages,
    mode: ReadingMode | None,
    longest: int,
    template: dict[str, Any],
) -> tuple[Rendered, ReadingMode, Prompt]:
    """A conversation as text, how its documents are read, and where they stand if that is in the text."""
    template = {**template, "add_generation_prompt": True}
    rendered = processor.render(messages, **template)
    if not rendered.documents:
        return rendered, "once", Prompt(())
    weave = model.weave_that_reads("texts")
    way = weave.config.reading_of("answer", mode)
    if way == "prompt":
        bare = not rendered.pictures  # the weave that reads them learned with a system message of its own
        in_text = processor.render(quoted(messages), bare=bare, **template)
        held = [model.encoder(weave.name).cut(one["text"]) for one in rendered.documents]
        standing = find(processor, in_text, [[(piece.start, piece) for piece in pieces] for pieces in held])
        if fits(model, standing, longest, insisted=mode == "prompt"):
            return in_text, way, standing
        way = weave.config.reading
    return rendered, way, Prompt(())


def _placed_alone(model: WeftModel, read: ReadMemory, items: Held, top: int | None) -> BatchMemory | None:
    """The items that a prompt holds, laid out for it alone; a single one stays where it is."""
    if len(items) == 1:
        (item, column), *_ = items
        return model.place(read.item(item), Placement.of([[(0, column)]]), top)
    return model.place(read, Placement.of([items]), top)


def _generated(
    model: WeftModel,
    read: ReadMemory | None,
    prompts: Sequence[Sequence[int]],
    held: Sequence[Held],
    *,
    beams: int,
    longest: int,
    top_memory: int | None,
    **options: Any,
) -> list[Response]:
    """The same by transformers' ``generate``, for every language model and every option."""
    assert model.processor is not None
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), model.processor.tokenizer.pad_token_id or 0)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        attention_mask[row, width - len(prompt) :] = 1
    memories = []
    if read is not None:
        moved = [
            [(item, column + width - len(p)) for item, column in one] for one, p in zip(held, prompts, strict=True)
        ]
        placed = model.place(read, Placement.of(moved), top_memory)
        memories = [] if placed is None else [placed]
    options = {**_one_text(longest, beams), **options}
    return _responses(model, input_ids.to(model.device), attention_mask.to(model.device), memories, options)


def _one_text(longest: int, beams: int) -> dict[str, Any]:
    """Options for ``generate`` by which it says one text for each prompt, whatever it is set to."""
    return {"max_new_tokens": longest, "do_sample": False, "num_beams": beams, "num_return_sequences": 1}


def _responses(
    model: WeftModel, input_ids: Tensor, attention_mask: Tensor, memories: list[BatchMemory], options: dict[str, Any]
) -> list[Response]:
    """What transformers' ``generate`` says."""
    output = model.generate(
        input_ids,
        attention_mask=attention_mask,
        memories=memories,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    chances = model.compute_transition_scores(
        output.sequences,
        output.scores,
        getattr(output, "beam_indices", None),
        normalize_logits=options["num_beams"] == 1,
    )
    responses = []
    for sequence, chance in zip(output.sequences, chances, strict=True):
        tokens = until_end(model, sequence[input_ids.shape[1] :].tolist())
        total = float(chance[: len(tokens) + 1].clamp(min=-1e4).sum())
        responses.append(Response(tuple(tokens), _words(model, tokens), total))
    return responses


@torch.inference_mode()
def score(
    model: WeftModel,
    read: ReadMemory | None,
    prompts: Sequence[Sequence[int]],
    held: Sequence[Held],
    text: Sequence[int],
    top_memory: int | None = None,
) -> Float[Tensor, "V T"]:
    """Log-probability (natural) of each token of a text after each prompt.

    Args:
        model: the woven model.
        read: the memory; None where no prompt holds any.
        prompts: tokens of each prompt, ``V`` of them.
        held: for each prompt the items that it holds.
        text: tokens of the text, ``T``.
        top_memory: as for :func:`respond`.
    """
    placed = None if read is None else model.place(read, Placement.of(held), top_memory)
    rows = [torch.tensor([*prompt, *text], device=model.device) for prompt in prompts]
    input_ids = pad_sequence(rows, batch_first=True)  # no token looks at the padding, which comes after it
    logits = model(input_ids=input_ids, memories=[] if placed is None else [placed], use_cache=False).logits
    starts = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    places = starts[:, None] - 1 + torch.arange(len(text), device=model.device)
    chances = logits[torch.arange(len(rows), device=model.device)[:, None], places].float().log_softmax(-1)
    return chances.gather(-1, torch.tensor(text, device=model.device).expand(len(rows), -1)[..., None])[..., 0].cpu()


def last_logits(model: WeftModel, count: int) -> dict[str, int]:
    """Options with which ``forward`` computes logits of the last tokens alone, where the language model can: those of a
    long prompt are far larger than all else."""
    return {"logits_to_keep": count} if model.language_model._supports_logits_to_keep() else {}


def ends_of(model: WeftModel) -> set[int]:
    """The tokens of which each ends a text."""
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())


def until_end(model: WeftModel, tokens: list[int]) -> list[int]:
    """Tokens before the first one that ends a text."""
    ends = ends_of(model)
    return next((tokens[:at] for at, token in enumerate(tokens) if token in ends), tokens)


def _words(model: WeftModel, tokens: Sequence[int]) -> str:
    assert model.processor is not None
    return whole(model.processor.decode(list(tokens), skip_special_tokens=True)).strip()
