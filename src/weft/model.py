"""The model: a frozen language model, frozen encoders, and the weaves through which it reads them.

:func:`weave` is given a language model and an encoder and hands on a :class:`WeftModel`, which computes exactly what
the language model does until a row has a memory to read. Nothing of the language model is replaced: a fusion layer is
a forward pre-hook on a decoder layer. ``read`` turns pictures and texts into keys and values once; ``forward`` lays
them in one slot for the length of that call, where the hooks find them, and lets a weave that copies have its say.
"""

from __future__ import annotations

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
from transformers import (
    PreTrainedModel,
)

from weft.adapter_mixin import AdapterMixin
from weft.adapters import adapter_names, adapters_hash, freeze, without_wrapper
from weft.batch import BatchMemory, arrange
from weft.checkpoint import load_checkpoint, load_weaves, save_checkpoint, upload
from weft.config import WeftConfig
from weft.encoders import VisionEncoder
from weft.errors import WeftError
from weft.generation import ReadingGenerationMixin
from weft.hooks import FusionHook, Slot, head_inputs
from weft.images import load_image, picture_hash, picture_name
from weft.joint_text import Text
from weft.keeping import renamed
from weft.memory import Memory, Name, Placement, ReadMemory, content_hash
from weft.memory_cache import MemoryCache
from weft.namers import OWN, Namer, load_namer
from weft.names import speller, with_names
from weft.passages import Piece
from weft.plain import PlainDecoder, state_of
from weft.processing import WeftProcessor
from weft.static import StaticDecoding, decode_two, empty_memory, keep_compiled, say_not_compiled
from weft.tasks import Tasks
from weft.text_encoders import OWN as OWN_READER
from weft.text_encoders import TextEncoder
from weft.weaving import Reads, Weave, WeaveConfig, decoder_layers

AT_ONCE = 64
"""Pictures or passages whose features are held at once while they are read."""
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
        for index, (position, layer) in enumerate(zip(weave.config.layers, weave.layers, strict=True)):
            layer.to(next(decoder[position].parameters()).device)
            decoder[position].register_forward_pre_hook(FusionHook(self._slot, weave, index), with_kwargs=True)
        first, last = (next(decoder[weave.config.layers[place]].parameters()).device for place in (0, -1))
        if weave.connector is not None:
            weave.connector.to(first)
        if weave.copy_gate is not None:
            weave.copy_gate.to(last)
        self.weaves[weave.name] = weave
        weave.train(self.training)
        return weave

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
        """The first weave that reads pictures, or the first that reads texts.

        Raises:
            WeftError: the model has none.
        """
        for name in self.weaves:
            if self.weave(name).config.reads == reads:
                return self.weave(name)
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
        images = [load_image(one) for one in given]
        memory = self.encoder(name).encode_images(images, [picture_name(one) for one in given])
        return self.named(memory, name, images)

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
        spell = speller(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
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
        found = [one if isinstance(one, (str, Path, bytes)) else load_image(one) for one in pictures]
        reads = self.memory_cache.get_all(
            [content_hash(reader, _hash(one)) for one in found],
            lambda missing: self._read_apart(name, self.encode, [found[n] for n in missing]),
            self.weave(name).on_its_devices,
        )
        named = zip(reads, pictures, strict=True)
        return [replace(read, sources=(replace(read.sources[0], name=picture_name(one)),)) for read, one in named]

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

        Raises:
            WeftError: ``top`` is below one.
        """
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
        pixel_values: Float[Tensor, "M 3 height width"] | None = None,
        image_positions: Int[Tensor, "B I"] | None = None,
        document_ids: Int[Tensor, "M N"] | None = None,
        document_mask: Tensor | None = None,
        document_positions: Int[Tensor, "B J"] | None = None,
        memories: Sequence[BatchMemory] | None = None,
        columns: Int[Tensor, " T"] | None = None,
        top_memory: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the language model's own ``forward`` returns, its rows having looked at their memories.

        Args:
            input_ids: tokens, ``[B, T]``.
            attention_mask: as the language model takes it.
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
            **kwargs: for the language model (``labels``, ``cache``, ...).
        """
        held = (
            self.see(pixel_values, image_positions, top_memory),
            self.see_texts(document_ids, document_mask, document_positions, top_memory),
        )
        memories = [*(memories or ()), *(memory for memory in held if memory is not None)]
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        if attention_mask is not None:
            kwargs["attention_mask"] = attention_mask
        if memories and columns is None:
            tokens = (kwargs["inputs_embeds"] if input_ids is None else input_ids).shape[1]
            cache = kwargs.get("cache", kwargs.get("past_key_values"))
            start = 0 if cache is None else int(cache.get_seq_length())
            columns = torch.arange(start, start + tokens)
        with self.looking_at(memories, columns, kwargs):
            if not any(memory.copying is not None for memory in memories):
                return self.language_model(**kwargs)
            return self._copying(kwargs)

    def _copying(self, inputs: dict[str, Any]) -> Any:
        """Run the language model, and mix in what the weaves that it looks at copy."""
        labels, count = inputs.pop("labels", None), inputs.pop("num_items_in_batch", None)
        with head_inputs(cast(nn.Module, self.get_output_embeddings())) as given:
            output = self.language_model(**{**inputs, "return_dict": True})
        for memory, visible in self._slot.memories.values():
            gate = self.weave(memory.weave).copy_gate
            if gate is not None:
                last = None if visible is None else visible[:, -given[-1].shape[1] :]
                output.logits = memory.mix(gate, given[-1], output.logits, last)
        if labels is not None:
            size = self.config.get_text_config(decoder=True).vocab_size
            options = {} if count is None else {"num_items_in_batch": count}
            loss = self.language_model.loss_function
            output.loss = loss(logits=output.logits, labels=labels, vocab_size=size, **options)
        return output

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
        try:
            if any(self.weave(memory.weave).config.joint for memory in memories):
                depth = self.config.get_text_config(decoder=True).num_hidden_layers
                self._slot.text = Text.of(cast(Tensor, columns), depth, inputs or {})
            for memory in memories:
                self._slot.memories[memory.weave] = (memory, memory.visible(cast(Tensor, columns)))
            yield
        finally:
            self._slot.clear()

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

    # What transformers asks of a model

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        return self.language_model.get_output_embeddings()

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute the language model's activations in the backward pass instead of keeping them."""
        self.language_model.gradient_checkpointing_enable(*args, **kwargs)
        self.train(self.training)

    def gradient_checkpointing_disable(self) -> None:
        self.language_model.gradient_checkpointing_disable()

    # Saving and loading

    def save_pretrained(self, save_directory: str | Path, *, merge: bool = False, **kwargs: Any) -> None:
        """Write what was learned: ``model.safetensors``, the language model's adapters (``adapters/``, as PEFT writes
        them), ``config.json`` which names the parts, and the processor.

        Args:
            save_directory: folder to write to.
            merge: write the frozen parts beside it as well, so that the folder needs nothing else.
            **kwargs: ``weights_dtype`` to write the weave in another floating-point type, in which all is loaded then,
                ``push_to_hub`` and its arguments, as in transformers.

        Raises:
            PartError: a frozen part has no name by which it could be found again, or has changed since it was loaded
                (trained, folded with an adapter, resized, rounded), and ``merge`` is off.
            WeftError: an adapter is where it can't be kept.
        """
        save_checkpoint(self, Path(save_directory), merge=merge, **kwargs)

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
