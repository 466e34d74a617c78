"""The model: a frozen language model, frozen encoders, and the weaves through which it reads them.

:func:`weave` is given a language model and an encoder and hands on a :class:`WeftModel`, which computes exactly what
the language model does until a row has a memory to read. Nothing of the language model is replaced: a fusion layer is
a forward pre-hook on a decoder layer. ``read`` turns pictures and texts into keys and values once; ``forward`` lays
them in one slot for the length of that call, where the hooks find them, and lets a weave that copies have its say.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, PreTrainedModel

from weft.adapter_mixin import AdapterMixin
from weft.adapters import adapter_names, adapters_hash, freeze, without_wrapper
from weft.batch import BatchMemory, arrange
from weft.body import Body, counted
from weft.checkpoint import SAVING, load_checkpoint, load_weaves, save_checkpoint, upload
from weft.config import WeftConfig
from weft.control_tokens import encode_written
from weft.encoders import VisionEncoder
from weft.errors import WeftError
from weft.generation import ReadingGenerationMixin
from weft.hooks import FusionHook, Looked, Looking, Slot, head_inputs
from weft.images import Decoded, decode, picture_hash, picture_name
from weft.joint_text import Text
from weft.keeping import renamed
from weft.memory import Memory, Name, Placement, ReadMemory, content_hash
from weft.memory_cache import MemoryCache
from weft.namers import OWN, Namer, load_namer
from weft.names import speller, with_names
from weft.options import check_names
from weft.passages import Piece
from weft.plain import PlainDecoder, state_of
from weft.processing import WeftProcessor
from weft.static import StaticDecoding, decode_two, empty_memory, keep_compiled, say_not_compiled
from weft.switches import Switches
from weft.tasks import Tasks
from weft.text_encoders import OWN as OWN_READER
from weft.text_encoders import TextEncoder
from weft.weaving import Reads, Weave, WeaveConfig, decoder_layers

AT_ONCE = 64
"""Pictures or passages whose features are held at once while they are read."""
OWN_INPUTS = (
    "pixel_values",
    "image_positions",
    "document_ids",
    "document_mask",
    "document_positions",
    "memories",
    "columns",
    "top_memory",
)
"""Inputs of ``forward`` that are none of the language model's."""
_arrange = torch.compiler.disable(arrange)
"""Laying out a batch is bookkeeping on values, which a compiler would only trip over."""


class WeftModel(Tasks, AdapterMixin, PreTrainedModel, ReadingGenerationMixin):
    """A language model that can look at what its weaves have read.

    Made by :func:`weave` or ``from_pretrained``. Called without a memory it is the language model, bit for bit; so are
    the rows without memory of a batch in which others have one.

    Args:
        config: what it stands on.
        language_model: the language model; it is frozen, but for adapters that want to learn, and otherwise left as
            it is.
        encoders: the frozen encoder of each weave, by the weave's name.
        namers: for weaves whose pictures are named by a model apart from the encoder, that model.
        weaves: what has been learned, by the same names; what is missing is made anew.
    """

    config_class = WeftConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")

    def __init__(
        self,
        config: WeftConfig,
        language_model: PreTrainedModel,
        encoders: dict[str, VisionEncoder | TextEncoder] | None = None,
        namers: Mapping[str, nn.Module] | None = None,
        weaves: Mapping[str, Weave] | None = None,
    ) -> None:
        super().__init__(config)
        self.language_model = language_model = without_wrapper(language_model).eval()
        if not adapter_names(language_model):  # of adapters PEFT has said what learns
            freeze(language_model)
        self.encoders = nn.ModuleDict(encoders or {})
        self.namers = nn.ModuleDict(dict(namers or {}))
        self.weaves = nn.ModuleDict()
        self.processor: WeftProcessor | None = None
        self.generation_config = language_model.generation_config
        self._is_stateful = language_model._is_stateful
        self._slot = Slot()
        self._hooks: dict[str, list[RemovableHandle]] = {}
        self.switches = Switches()
        self.plain = PlainDecoder(self)
        self.static: StaticDecoding | None = None
        self.memory_cache = MemoryCache()
        self._reader_keys: dict[str, tuple[tuple[int | str, ...], str]] = {}
        for name, fields in config.weaves.items():
            self._attach((weaves or {}).get(name) or Weave(name, WeaveConfig(**fields)))

    # What is woven

    def add_weave(
        self,
        name: str,
        config: WeaveConfig,
        encoder: VisionEncoder | TextEncoder,
        namer: Namer | None = None,
        weave: Weave | None = None,
    ) -> Weave:
        """Weave in one more encoder; what the other weaves compute does not change.

        Args:
            name: the weave's name.
            config: what it is made of.
            encoder: what it reads from.
            namer: names what is seen in pictures, if that is a model apart from the encoder.
            weave: what has been learned; by default it starts as its configuration says.

        Raises:
            WeftError: the model has a weave of this name.
        """
        if name in self.weaves:
            raise WeftError(f"The model has a weave named {name!r} already ({', '.join(self.weaves)}); choose another.")
        self.config.weaves[name] = config.to_dict()
        self.encoders[name] = encoder
        if isinstance(namer, nn.Module):
            self.namers[name] = namer
        if weave is None:
            weave = Weave(name, config)
            if config.initial == "self-attention":
                weave.start_from(decoder_layers(self.language_model))
        return self._attach(weave)

    def _attach(self, weave: Weave) -> Weave:
        decoder = decoder_layers(self.language_model)
        hooks = self._hooks[weave.name] = []
        for index, (position, layer) in enumerate(zip(weave.config.layers, weave.layers, strict=True)):
            layer.to(next(decoder[position].parameters()).device)
            hook = FusionHook(self._slot, weave.name, index)
            hooks.append(decoder[position].register_forward_pre_hook(hook, with_kwargs=True))
        first, last = (next(decoder[weave.config.layers[place]].parameters()).device for place in (0, -1))
        if weave.connector is not None:
            weave.connector.to(first)
        if weave.copy_gate is not None:
            weave.copy_gate.to(last)
        self.weaves[weave.name] = weave
        weave.train(self.training)
        return weave

    def remove_weave(self, name: str) -> None:
        """Take a weave off again, with its encoder; what the others compute does not change.

        Args:
            name: the weave's name.

        Raises:
            WeftError: the model has none of this name.
        """
        self.weave(name)
        for hook in self._hooks.pop(name):
            hook.remove()
        encoder = self.encoders[name]
        for modules in (self.weaves, self.encoders, self.namers):
            if name in modules:
                del modules[name]
        del self.config.weaves[name]
        self._reader_keys.pop(name, None)
        self.plain.forget(name)
        if self.processor is not None:
            self.processor.encoder = None if self.processor.encoder is encoder else self.processor.encoder
            self.processor.text_encoder = (
                None if self.processor.text_encoder is encoder else self.processor.text_encoder
            )
            for each in self.weaves:
                self.processor.use(self.encoder(each))

    @contextmanager
    def disable_weave(self, name: str | None = None) -> Iterator[None]:
        """Within it, nothing looks at what a weave has read: rows compute what they would without it.

        It holds for the thread, or the asyncio task, that is within it; others that use the model at the same time do
        not notice, an :class:`~weft.engine.Engine` among them. Where another weave of the same kind is left, that one
        reads pictures, or texts, which are given without naming a weave.

        Args:
            name: the weave's name; all weaves by default.

        Raises:
            WeftError: the model has none of this name.

        Example:
            >>> with model.disable_weave("photos"):
            ...     model.caption("dog.jpg")  # what the language model says without seeing anything
        """
        names = list(self.weaves) if name is None else [self.weave(name).name]
        with self.switches.without(names):
            yield

    def weave(self, name: str | None = None) -> Weave:
        """A weave by its name; the first by default.

        Raises:
            WeftError: the model has none of this name.
        """
        name = name or next(iter(self.weaves), None)
        if name is None or name not in self.weaves:
            raise WeftError(f"The model has no weave named {name!r}; it has: {', '.join(self.weaves) or 'none'}.")
        return cast(Weave, self.weaves[name])

    def encoder(self, name: str | None = None) -> Any:
        """The frozen encoder of a weave (a vision or a text encoder); of the first by default."""
        return self.encoders[self.weave(name).name]

    def namer(self, name: str | None = None) -> Namer | None:
        """What names the pictures that a weave reads; None where nothing does."""
        weave = self.weave(name)
        if not weave.config.labels:
            return None
        if weave.config.labels["id"] == OWN:
            return load_namer(OWN, self.encoder(weave.name))
        return cast(Namer, self.namers[weave.name])

    def weave_that_reads(self, reads: Reads) -> Weave:
        """The first weave that reads pictures, or the first that reads texts; one that is not disabled, if possible.

        Raises:
            WeftError: the model has none.
        """
        found = [name for name in self.weaves if self.weave(name).config.reads == reads]
        enabled = [name for name in found if name not in self.switches.off()]
        if found:
            return self.weave((enabled or found)[0])
        raise WeftError(
            f"The model has no weave that reads {reads}; it has: {', '.join(self.weaves) or 'none'}. "
            "weft.load() gives a model that has both kinds."
        )

    def train(self, mode: bool = True) -> WeftModel:
        """Training mode for what learns; frozen parts stay in evaluation mode, so that their dropout is off."""
        super().train(mode)
        for part in (self.language_model, *self.encoders.values()):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        for layer in decoder_layers(self.language_model):
            if getattr(layer, "gradient_checkpointing", False):
                layer.training = mode  # what a checkpointed layer asks; the modules inside it stay as they are
        return self

    def print_trainable_parameters(self) -> None:
        """Print how many parameters learn, of how many."""
        learned = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum(p.numel() for p in self.parameters())
        print(f"trainable params: {learned:,d} || all params: {total:,d} || trainable%: {100 * learned / total:.4f}")

    # Reading and computing

    def encode(self, pictures: Any, weave: str | None = None) -> Memory:
        """Run a weave's encoder on one picture (path, bytes, PIL image) or a list of them."""
        name = weave or self.weave_that_reads("pictures").name
        given = pictures if isinstance(pictures, (list, tuple)) else [pictures]
        namer = self.namer(name)
        seen = [decode(one) for one in given] if namer is not None and namer.sees_pictures else []
        memory = self.encoder(name).encode(seen or given)
        return self.named(memory, name, [one.image for one in seen])

    @torch.no_grad()
    def named(self, memory: Memory, weave: str, images: Sequence[Image.Image] = ()) -> Memory:
        """A memory of pictures with the names of what they show, if the weave reads names.

        Args:
            memory: what the weave's encoder made of the pictures.
            weave: name of the weave.
            images: the pictures, for a namer that wants to see them.

        Raises:
            WeftError: the namer wants to see the pictures, or the model has no tokenizer to spell names with.
        """
        namer = self.namer(weave)
        if namer is None or memory.names is not None:
            return memory
        if self.processor is None:
            raise WeftError("The model has no processor to spell names with; set model.processor.")
        if namer.sees_pictures and len(images) != len(memory):
            raise WeftError(
                f"What the weave {weave!r} reads is named by {namer.id}, which has to see the pictures; give pictures "
                "to read() or encode(), and what that returns to forward() and generate()."
            )
        found = namer.name(memory.features, images, cast(Any, memory.sources))
        return self.with_names(memory, found)

    @torch.no_grad()
    def with_names(self, memory: Memory, found: Sequence[Sequence[Name]]) -> Memory:
        """A memory of pictures with names of what each shows behind its patches, as tokens of the language model."""
        assert self.processor is not None
        tokenizer, table = self.processor.tokenizer, self.get_input_embeddings()
        device = next(table.parameters()).device
        spell = speller(lambda text: encode_written(tokenizer, text)[0])
        return with_names(memory, found, spell, lambda ids: table(ids.to(device)))

    def encode_texts(self, passages: Sequence[str | Piece], weave: str | None = None) -> Memory:
        """Run a weave's encoder on passages of text, each of which becomes an item."""
        return self.encoder(weave or self.weave_that_reads("texts").name).encode(passages)

    def read_texts(self, passages: Sequence[str | Piece], weave: str | None = None) -> ReadMemory:
        """Read passages of text once: the result serves any number of questions, rows and beams; that of a passage
        with a question of its own (:class:`~weft.text_encoders.Piece`) was encoded in its sight, and serves this one.

        Args:
            passages: texts, each no longer than the encoder takes (see :meth:`weft.text_encoders.TextEncoder.cut`).
            weave: the weave that reads them; the first that reads texts by default.
        """
        name = weave or self.weave_that_reads("texts").name
        pieces = [Piece(one) if isinstance(one, str) else one for one in passages]
        if not pieces or not self._keeps():
            return self.weave(name).read(self.encode_texts(pieces, name))
        reader = self.reader_key(name)
        reads = self.memory_cache.get_all(
            [content_hash(reader, piece.content) for piece in pieces],
            lambda missing: self._read_apart(name, self.encode_texts, [pieces[n] for n in missing]),
            self.weave(name).on_its_devices,
        )
        return ReadMemory.concatenate([renamed(read, piece) for read, piece in zip(reads, pieces, strict=True)])

    def read(self, memory: Any, weave: str | None = None) -> ReadMemory:
        """Read a memory, or pictures, once: the result serves any number of questions, rows and beams.

        Args:
            memory: a :class:`~weft.memory.Memory`, a picture (path, bytes, PIL image) or a list of pictures.
            weave: the weave that reads it; the first that reads pictures by default.
        """
        if isinstance(memory, ReadMemory):
            return memory
        name = (self.weave_that_reads("pictures") if weave is None else self.weave(weave)).name
        if isinstance(memory, Memory):
            return self.weave(name).read(memory)
        pictures = memory if isinstance(memory, (list, tuple)) else [memory]
        if not self._keeps():
            return self.weave(name).read(self.encode(pictures, name))
        return ReadMemory.concatenate(self.read_pictures(pictures, name))

    def read_pictures(self, pictures: Sequence[Any], weave: str | None = None) -> list[ReadMemory]:
        """Pictures as read memories of one item each; one that is in ``memory_cache`` is not even decoded.

        Args:
            pictures: paths, bytes, file objects or PIL images.
            weave: the weave that reads them; the first that reads pictures by default.

        Raises:
            PictureError: a picture can't be read.
        """
        if not pictures:
            return []
        name = weave or self.weave_that_reads("pictures").name
        if not self._keeps():
            return self.weave(name).read(self.encode(pictures, name)).apart()
        reader = self.reader_key(name)
        found = [one if isinstance(one, (str, Path, bytes, Decoded)) else decode(one) for one in pictures]
        reads = self.memory_cache.get_all(
            [content_hash(reader, _hash(one)) for one in found],
            lambda missing: self._read_apart(name, self.encode, [found[n] for n in missing]),
            self.weave(name).on_its_devices,
        )
        named = zip(reads, pictures, strict=True)
        return [replace(read, sources=(replace(read.sources[0], name=picture_name(one)),)) for read, one in named]

    def unread(self, picture: str | Path | bytes) -> str | None:
        """What names a picture that would have to be decoded, to be read by the first weave that reads pictures; None
        for one that is known, or can't be read."""
        name = self.weave_that_reads("pictures").name
        try:
            hash = picture_hash(picture)
        except OSError:
            return None
        known = self._keeps() and content_hash(self.reader_key(name), hash) in self.memory_cache
        return None if known else hash

    @torch.no_grad()
    def _read_apart(self, weave: str, encode: Callable[..., Memory], what: Sequence[Any]) -> list[ReadMemory]:
        """Pictures or passages, read, each to be kept for itself; so many at once that features never pile up."""
        reads: list[ReadMemory] = []
        for start in range(0, len(what), AT_ONCE):
            memory = encode(what[start : start + AT_ONCE], weave)
            reads += self.weave(weave).read(memory).apart()
        return reads

    def _keeps(self) -> bool:
        """Whether what is read now may be kept: not by a model that learns, nor in mixed precision."""
        return not (self.training or torch.is_autocast_enabled(self.device.type))

    def reader_key(self, weave: str) -> str:
        """A name for all that decides what a weave reads from a picture or a text: what it has learned, its encoder."""
        parameters, encoder = list(self.weave(weave).parameters()), self.encoder(weave)
        adapters = adapters_hash(without_wrapper(self.language_model)) if encoder.id == OWN_READER else ""
        state: tuple[int | str, ...] = (*state_of(parameters), adapters)
        known = self._reader_keys.get(weave)
        if known is None or known[0] != state:
            own = next(encoder.parameters(), parameters[0])
            parts = [encoder.id, encoder.sha256, repr(getattr(encoder, "reads", "")), str(own.dtype)]
            parts += [adapters] if adapters else []
            namer = self.namer(weave)
            parts += [] if namer is None else [namer.id, namer.sha256]
            self._reader_keys[weave] = known = state, content_hash(self.weave(weave).fingerprint(), *parts)
        return known[1]

    def place(self, read: ReadMemory, placement: Placement, top: int | None = None) -> BatchMemory | None:
        """Lay a read memory out for a batch, to be given to ``forward`` or ``generate`` in ``memories``.

        Args:
            read: the memory.
            placement: which row holds which of its items.
            top: how many of a row's items each fusion layer looks at, at each text token the most promising ones
                (:mod:`weft.choosing`); None for all.

        Returns:
            None when no row holds any item, or the weave is disabled: such a batch computes the language model alone.

        Raises:
            WeftError: ``top`` is below one.
        """
        if read.weave in self.switches.off():
            return None
        return _arrange(read, placement, self.weave(read.weave).config.sees, top)

    # Compiling

    def compile_decoding(self, tokens: int = 1024, *, backend: str = "inductor") -> None:
        """From now on ``generate`` decodes in shapes that never change, compiled once (CUDA graphs on a GPU).

        The first call of each shape compiles, which takes from seconds to minutes; see :meth:`warm_up`. A model that
        can't be compiled, or a machine without a compiler, goes on as before, with a warning.

        Args:
            tokens: tokens that the cache holds, of prompt and response; longer texts get one that is a power of two.
            backend: what compiles, as for ``torch.compile``.
        """
        keep_compiled()
        self.static = StaticDecoding(tokens, backend)

    @torch.no_grad()
    def warm_up(self, *, rows: int = 1, beams: int = 1, memory: Mapping[str, int] | None = None) -> None:
        """Compile now what questions of these shapes need, or load what was compiled before.

        Where :mod:`weft.decoder` decodes over packed weights, as ``caption``, ``ask`` and the engine do for the default
        model on a CPU, its steps are compiled here and nowhere else: for one row, or up to eight, that read nothing or
        share one memory of fewer than 2,048 tokens. For every other model it is ``generate`` that is compiled.

        Args:
            rows: questions at once.
            beams: beams of each.
            memory: tokens that each row reads, by weave, as in ``{"photos": 81}``; up to the next power of two all
                share what is compiled for one.

        Raises:
            WeftError: nothing is to be compiled, or the model has no such weave.
        """
        if self.static is None:
            raise WeftError("Nothing is to be compiled; call compile_decoding() first.")
        held = {self.weave(name).name: tokens for name, tokens in (memory or {}).items()}
        try:
            if self.plain.warm_up(rows * beams, held or [""]):
                return
        except RuntimeError as error:
            say_not_compiled(error)
            return
        placement = Placement.of([[(row, 0)] for row in range(rows)])
        placed = [self.place(empty_memory(self.weave(name), rows, tokens), placement) for name, tokens in held.items()]
        decode_two(self, rows, memories=[one for one in placed if one is not None], beams=beams)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Float[Tensor, "B T H"] | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor | None = None,
        pixel_values: Float[Tensor, "M 3 height width"] | None = None,
        image_positions: Int[Tensor, "B I"] | None = None,
        document_ids: Int[Tensor, "M N"] | None = None,
        document_mask: Tensor | None = None,
        document_positions: Int[Tensor, "B J"] | None = None,
        memories: Sequence[BatchMemory] | None = None,
        columns: Int[Tensor, " T"] | None = None,
        top_memory: int | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the language model's own ``forward`` returns, its rows having looked at their memories.

        Args:
            input_ids: tokens, ``[B, T]``.
            attention_mask: as the language model takes it.
            position_ids: where tokens stand, as the language model takes it.
            cache: what it has computed of the text before.
            inputs_embeds: embeddings in place of tokens, ``[B, T, H]``.
            labels: the tokens themselves, ``[B, T]``, -100 where none is to be learned: then the loss is computed.
            use_cache: whether what is computed is kept for what follows.
            logits_to_keep: of how many last tokens, or of which, logits are computed.
            pixel_values: the batch's pictures, for the first weave that reads them, in the order of its rows and their
                texts.
            image_positions: the column from which on each of a row's pictures may be seen, ``[B, I]``; -1 where a row
                has fewer. Left out, the only picture of every row is seen from the first column on.
            document_ids: the batch's passages as tokens of the first weave that reads texts, ``[M, N]``, in that order.
            document_mask: True, or 1, where such a token is real, ``[M, N]``.
            document_positions: as ``image_positions``, for passages.
            memories: memories that have been read and placed already (:meth:`place`), at most one for each weave.
            columns: columns of the whole text that ``input_ids`` are; by default those that follow the cache.
            top_memory: how many of a row's pictures or passages each fusion layer looks at, as ``top`` of
                :meth:`place`; memories that have been placed keep their own.
            token_type_ids: for language models that know kinds of tokens.
            past_key_values: another name for ``cache``.
            output_attentions: whether the language model's attention is returned as well.
            output_hidden_states: whether its hidden states are.
            return_dict: whether the result is an object with names, as by default, or a tuple.
            **kwargs: for the language model.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "cache": cache,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            "pixel_values": pixel_values,
            "image_positions": image_positions,
            "document_ids": document_ids,
            "document_mask": document_mask,
            "document_positions": document_positions,
            "memories": memories,
            "columns": columns,
            "top_memory": top_memory,
            "token_type_ids": token_type_ids,
            "past_key_values": past_key_values,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "return_dict": return_dict,
        }
        return self.through(self.language_model, {**inputs, **kwargs})

    def through(self, part: nn.Module, given: Mapping[str, Any]) -> Any:
        """What the language model, or its body alone, returns.

        Args:
            part: the language model or its body.
            given: arguments of :meth:`forward` by their names; None stands for one that was left out.

        Raises:
            WeftError: words are to be copied, and ``part`` is not the whole language model; or it is not known which
                columns are computed.
        """
        inputs = {name: value for name, value in given.items() if value is not None}
        own = {name: inputs.pop(name, None) for name in OWN_INPUTS}
        seen = self.see(own["pixel_values"], own["image_positions"], own["top_memory"])
        texts = own["document_ids"], own["document_mask"], own["document_positions"]
        held = [*(own["memories"] or ()), seen, self.see_texts(*texts, own["top_memory"])]
        memories = [memory for memory in held if memory is not None]
        if self.switches.used:
            memories = [memory for memory in memories if memory.weave not in self.switches.off()]
        columns = own["columns"]
        if memories and columns is None:
            tokens = (inputs["inputs_embeds"] if "input_ids" not in inputs else inputs["input_ids"]).shape[1]
            cache = inputs.get("cache", inputs.get("past_key_values"))
            start = 0 if cache is None else counted(cache)
            if start is None:
                raise WeftError("This language model's cache does not count the tokens that it holds; give columns.")
            columns = torch.arange(start, start + tokens)
        with self.looking_at(memories, columns, inputs):
            if not any(memory.copying is not None for memory in memories):
                return part(**inputs)
            if part is not self.language_model:
                raise WeftError(
                    "What a weave copies is mixed into the logits, so hidden states alone do not tell it (as a trainer "
                    "with a fused head wants them); train it with weft.train or transformers' Trainer."
                )
            return self._copying(inputs)

    def _copying(self, inputs: dict[str, Any]) -> Any:
        """Run the language model, and mix in what the weaves that it looks at copy."""
        labels, count = inputs.pop("labels", None), inputs.pop("num_items_in_batch", None)
        named = inputs.pop("return_dict", True)
        with head_inputs(cast(nn.Module, self.get_output_embeddings())) as given:
            output = self.language_model(**inputs, return_dict=True)
        width, ids = given[-1].shape[1], inputs.get("input_ids")
        written = None if ids is None else ids[:, -width:]
        assert self._slot.looking is not None
        for weave, memory, visible in self._slot.looking.memories.values():
            if weave.copy_gate is not None:
                last = None if visible is None else visible[:, -width:]
                output.logits = memory.mix(weave.copy_gate, given[-1], output.logits, last, written)
        if labels is not None:
            size = self.config.get_text_config(decoder=True).vocab_size
            options = {} if count is None else {"num_items_in_batch": count}
            loss = self.language_model.loss_function
            output.loss = loss(logits=output.logits, labels=labels, vocab_size=size, **options)
        return output if named else output.to_tuple()

    @contextmanager
    def looking_at(
        self,
        memories: Sequence[BatchMemory],
        columns: Int[Tensor, " T"] | None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """For the length of one call of the language model, its fusion layers look at these memories.

        Args:
            memories: the memories.
            columns: the columns of the text that are computed; None where there are no memories.
            inputs: what the language model is called with, which tells joint fusion layers of the text.
        """
        text = None
        if any(self.weave(memory.weave).config.joint for memory in memories):
            depth = self.config.get_text_config(decoder=True).num_hidden_layers
            text = Text.of(cast(Tensor, columns), depth, inputs or {})
        looked = {
            memory.weave: Looked(self.weave(memory.weave), memory, memory.visible(cast(Tensor, columns)))
            for memory in memories
        }
        with self._slot.holding(Looking(looked, text)):
            yield

    def see(self, pixel_values: Tensor | None, positions: Tensor | None, top: int | None = None) -> BatchMemory | None:
        """Encode, read and place the pictures of a batch; None where there are none."""
        if pixel_values is None:
            return None
        weave = self.weave_that_reads("pictures")
        with torch.no_grad():
            encoder = self.encoder(weave.name)
            parameter = next(encoder.parameters())
            features = encoder(pixel_values.to(parameter.device, parameter.dtype))
        if positions is None:
            positions = torch.zeros(len(pixel_values), 1, dtype=torch.long)
        return self.place(weave.read(self.named(Memory(features, ()), weave.name)), _in_order(positions), top)

    def see_texts(
        self, ids: Tensor | None, mask: Tensor | None, positions: Tensor | None, top: int | None = None
    ) -> BatchMemory | None:
        """Encode, read and place the passages of a batch, given as tokens; None where there are none."""
        if ids is None:
            return None
        weave = self.weave_that_reads("texts")
        encoder = self.encoder(weave.name)
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        memory = encoder.encode_tokens([row[kept].tolist() for row, kept in zip(ids, real, strict=True)])
        if not memory.features.numel():
            return None
        if positions is None:
            positions = torch.zeros(len(ids), 1, dtype=torch.long)
        return self.place(weave.read(memory), _in_order(positions), top)

    @property
    def positions(self) -> int | None:
        """Tokens that the language model takes; None for any number."""
        return getattr(self.config.get_text_config(decoder=True), "max_position_embeddings", None)

    # What transformers asks of a model

    @property
    def base_model(self) -> nn.Module:
        """The model without its head: last hidden states of rows that have looked at their memories."""
        return Body(self)

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the language model's loss takes the number of tokens over several batches, as trainers ask."""
        inner = without_wrapper(self.language_model)
        parameters = inspect.signature(inner.forward).parameters.values()
        takes_more = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
        return bool(getattr(inner, "accepts_loss_kwargs", takes_more))

    @property
    def _keys_to_ignore_on_save(self) -> list[str]:
        """What a saved model does not hold: the frozen parts."""
        return [name for name in self.state_dict() if not name.startswith("weaves.")]

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the language model's vocabulary; arguments and result as in transformers. Such a language model is no
        longer the one that the weaves name, so it has to be saved with them (``merge=True``)."""
        embeddings = self.language_model.resize_token_embeddings(*args, **kwargs)
        size = self.language_model.config.get_text_config(decoder=True).vocab_size
        self.config.get_text_config(decoder=True).vocab_size = size
        return embeddings

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], **options: Any) -> None:
        """Choose how the language model computes its attention; fusion layers and encoders keep their own ways.

        Args:
            attn_implementation: as in transformers; of a dict what it has for ``"text_config"``, or else for ``""``.
            **options: as in transformers.

        Raises:
            WeftError: a dict has neither.
        """
        chosen: Any = attn_implementation
        if isinstance(chosen, Mapping):
            chosen = chosen.get("text_config", chosen.get(""))
        if chosen is None:
            raise WeftError(
                f"attn_implementation={attn_implementation!r} says nothing of the language model; give a name such as "
                "'sdpa', or {'text_config': name}."
            )
        self.language_model.set_attn_implementation(chosen, **options)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute the language model's activations in the backward pass instead of keeping them."""
        if args or "gradient_checkpointing_kwargs" in kwargs:
            kwargs["activation_checkpointing_kwargs"] = kwargs.pop("gradient_checkpointing_kwargs", *args)
        self.language_model.activation_checkpointing_enable(**kwargs)
        self.train(self.training)

    def gradient_checkpointing_disable(self) -> None:
        self.language_model.activation_checkpointing_disable()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not what was compiled, which the copy compiles anew."""
        state = self.__dict__.copy()
        state |= {"_reader_keys": {}, "static": None if self.static is None else self.static.anew()}
        state.pop("_compiled_call", None)
        return state

    # Saving and loading

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        merge: bool = False,
        **options: Any,
    ) -> None:
        """Write what was learned: ``model.safetensors``, the language model's adapters (``adapters/``, as PEFT writes
        them), ``config.json`` which names the parts, and the processor.

        Args:
            save_directory: folder to write to.
            is_main_process: whether this process writes; of several that train together only one does.
            state_dict: the model's tensors, where they are not at hand in the model itself, as when it is sharded.
            merge: write the frozen parts beside it as well, so that the folder needs nothing else.
            **options: ``weights_dtype`` to write the weave in another floating-point type, in which all is loaded
                then; ``push_to_hub``, with ``repo_id``, ``private``, ``token`` and ``commit_message``, to put it
                on the Hub.

        Raises:
            PartError: a frozen part has no name by which it could be found again, or has changed since it was loaded
                (trained, folded with an adapter, resized, rounded), and ``merge`` is off.
            WeftError: there is no such option, nothing is woven in, ``state_dict`` lacks what was learned, or an
                adapter is where it can't be kept.
        """
        check_names(options, SAVING, "save_pretrained")
        if not self.weaves:
            raise WeftError("Nothing is woven into this model, so there is nothing to save; save its language_model.")
        if is_main_process:
            save_checkpoint(self, Path(save_directory), merge=merge, state_dict=state_dict, **options)

    def push_to_hub(self, repo_id: str, *, merge: bool = False, **options: Any) -> str:
        """Save the model and put it on the Hugging Face Hub.

        Args:
            repo_id: the repository, made if it isn't there.
            merge: upload the frozen parts as well.
            **options: ``private``, ``token``, ``commit_message``.

        Returns:
            The repository's id.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, merge=merge)
            return upload(Path(folder), repo_id, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> WeftModel:
        """Load a woven model from a folder or a Hub id; finds the frozen parts, and refuses other ones.

        Args:
            pretrained_model_name_or_path: what :meth:`save_pretrained` wrote.
            *args: nothing; for compatibility.
            **kwargs: ``language_model`` (its folder, where it has been moved, or a loaded one), ``encoders`` (the same
                for those of weaves, by name), ``tokenizer`` (a loaded one), ``dtype``, ``device_map`` and what else the
                language model's ``from_pretrained`` takes.

        Raises:
            PartError: the folder is not a woven model, or a part is not the one that the weave was trained on.
        """
        return load_checkpoint(cls, pretrained_model_name_or_path, **kwargs)

    def load_weaves(self, folder: str | Path) -> None:
        """Add the weaves of another saved model that stands on the same language model.

        Args:
            folder: what :meth:`save_pretrained` wrote, or a Hub id.

        Raises:
            PartError: the folder is not a woven model, or its weaves were trained on another language model.
            WeftError: the model has a weave of the same name.
        """
        load_weaves(self, folder)


def _hash(picture: Any) -> str:
    """What a picture holds; of a file that can't be read its name, since decoding will say what is wrong with it."""
    try:
        return picture_hash(picture)
    except OSError:
        return content_hash("unreadable", str(picture))


def _in_order(positions: Int[Tensor, "B I"]) -> Placement:
    """Items that belong to rows in their order, each seen from a column on; -1 where a row has fewer."""
    held = positions >= 0
    items = torch.where(held, held.flatten().cumsum(0).view_as(positions) - 1, -1)
    return Placement(items, positions.clamp(min=0))
