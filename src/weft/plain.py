"""Whether a woven model may take the short way to its words: its language model computed by :mod:`weft.decoder`.

It may where nothing would be lost by it: on a CPU, for a language model that the decoder knows, and which nobody has
hung anything on (adapters, hooks, quantized layers). Every other model takes the way of transformers, and
:func:`why_not_plain` says why. So do tasks whose words the language model's own settings for generation change
(:func:`changes_words`); an engine chooses its words itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from weft.decoder import FAMILIES, Decoder, peculiarity
from weft.errors import WeftError
from weft.hooks import FusionHook, WatchingHook
from weft.packed_part import packed_decoder
from weft.packed_weave import PackedWeave, can_be_packed
from weft.packing import Quantize, fits_exactly
from weft.rows import Weaves
from weft.weaving import Weave

if TYPE_CHECKING:
    from weft.model import WeftModel

USUAL = {
    "_from_model_config",
    "bos_token_id",
    "eos_token_id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "transformers_version",
    "use_cache",
    # How words are drawn: whoever asks for words says whether any are, and by default none is.
    *("do_sample", "temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    # What whoever asks for words always says.
    *("max_length", "max_new_tokens", "num_beams"),
}
"""Settings for generation that do not change which words are the likeliest."""
NEUTRAL: dict[str, Any] = {
    "early_stopping": False,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
}
"""Others, with the value at which they do nothing."""


@dataclass(frozen=True)
class WeightsFile:
    """Where a language model's weights lie on disk.

    Attributes:
        path: the safetensors file.
        identity: what tells its content from that of others.
    """

    path: Path
    identity: str


class PlainDecoder:
    """A model's decoder, made when it is first asked for, and made anew when the weights have changed.

    Args:
        model: the woven model.
        quantize: how the language model's matrices are packed for decoding; ``"auto"`` for four bits where that loses
            nothing, which is so for language models that were distributed in four bits.
        narrow: decode in bfloat16 over packed weights though the model is in float32, as it is where a processor has
            to emulate products in bfloat16.
        file: where the language model's weights lie, as it has them now: then packed ones are kept on disk, and no
            others are held in memory. One that is quantized anyhow does not profit.
    """

    def __init__(
        self,
        model: WeftModel,
        quantize: Quantize | str | None = "auto",
        *,
        narrow: bool = False,
        file: WeightsFile | None = None,
    ) -> None:
        if quantize not in ("auto", "int8", "int4", None):
            raise WeftError(f"quantize={quantize!r} is not known; give 'int8', 'int4', 'auto' or None.")
        self.model, self.quantize, self.narrow = model, quantize, narrow
        self._making = threading.Lock()
        self._packed: dict[str, tuple[tuple[int, ...], PackedWeave]] = {}
        self._made: tuple[tuple[int, ...], Decoder] | None = None
        self.file, self._of_file = file, state_of(model.language_model.state_dict().values()) if file else ()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled with its model: the copy's tensors are its own, and so is what is made of them."""
        return {"model": self.model, "quantize": self.quantize, "narrow": self.narrow}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _making=threading.Lock(), _packed={}, _made=None, file=None, _of_file=())

    def get(self) -> Decoder | None:
        """The decoder; None where the model is more than it knows."""
        if not may_be_plain(self.model):
            return None
        tensors = self.model.language_model.state_dict()
        state = state_of(tensors.values())
        with self._making:
            if self._made is None or self._made[0] != state:
                self._made = state, self._from_file(state) or self._from_tensors(tensors)
            return self._made[1]

    def forget(self, weave: str) -> None:
        """Drop what was made of a weave that the model has no more."""
        self._packed.pop(weave, None)

    def _from_file(self, state: tuple[int, ...]) -> Decoder | None:
        """The decoder over packed weights that are kept on disk; None where the model's weights are no longer those of
        its file, or not to be packed so."""
        fits = self.quantize in ("auto", "int4") and (self.narrow or self.model.language_model.dtype == torch.bfloat16)
        if self.file is None or state != self._of_file or not fits:
            return None
        return packed_decoder(self.file.path, self.file.identity, self._config(), whole=True)

    def _from_tensors(self, tensors: dict[str, torch.Tensor]) -> Decoder:
        chosen = self._chosen(tensors)
        if self.narrow and chosen is not None:
            tensors = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
        return Decoder(self._config(), tensors, chosen)

    def _config(self) -> dict[str, Any]:
        return self.model.config.get_text_config(decoder=True).to_dict()

    def weaves(self) -> Weaves:
        """The model's weaves for decoding: packed where the decoder is."""
        decoder = self.get()
        packs = decoder is not None and decoder.quantize is not None
        return _Weaves(list(self.model.weaves), self._packed_weave if packs else self.model.weave)

    def _packed_weave(self, name: str) -> Weave | PackedWeave:
        """A weave, packed if it can be; anew when it has learned."""
        weave = self.model.weave(name)
        if not can_be_packed(weave, self.narrow):
            return weave
        state = state_of(weave.parameters())
        with self._making:
            if name not in self._packed or self._packed[name][0] != state:
                self._packed[name] = state, PackedWeave(weave)
            return self._packed[name][1]

    def warm_up(self, rows: int, weaves: Iterable[str]) -> bool:
        """Compile the decoder's steps for so many rows that share a memory of a weave, for each weave; a weave without
        a name stands for rows that read nothing.

        Returns:
            Whether the decoder is one whose steps are compiled: it is, if it is packed.

        Raises:
            RuntimeError: they can't be compiled here.
        """
        from weft.compiled import CompiledSteps

        decoder = self.get()
        if decoder is None or decoder.quantize is None:
            return False
        steps = CompiledSteps(decoder, self.weaves()) if decoder.compiled is None else decoder.compiled
        for weave in weaves:
            if not weave or not self.model.weave(weave).config.joint:  # joint steps depend on the length of the text
                cast(CompiledSteps, steps).prepare(rows, weave)
        decoder.compiled = steps
        return True

    def check(self) -> None:
        """Find out whether the model can be quantized as it was asked for.

        Raises:
            WeftError: it can't; the message says why.
        """
        if not may_be_plain(self.model):
            raise WeftError(
                f"quantize={self.quantize!r} works on a CPU, for language models of the families {', '.join(FAMILIES)} "
                f"without additions; this one is a {type(self.model.language_model).__name__} on "
                f"{self.model.device}. Leave it out, or give a quantization_config of transformers."
            )
        if self.model.language_model.dtype != torch.bfloat16 and not self.narrow:
            raise WeftError(f"quantize={self.quantize!r} decodes in bfloat16; give dtype=torch.bfloat16 as well.")

    def _chosen(self, tensors: dict[str, torch.Tensor]) -> Quantize | None:
        """The bits that matrices are packed in."""
        if self.quantize != "auto":
            return self.quantize
        matrix = next(tensor for name, tensor in tensors.items() if name.endswith("o_proj.weight"))
        narrow = matrix.to(torch.bfloat16) if self.narrow else matrix
        exact = narrow.dtype == torch.bfloat16 and bool((narrow == matrix).all()) and fits_exactly(narrow)
        return "int4" if exact else None


class _Weaves(Mapping[str, Weave | PackedWeave]):
    """Weaves by their names, each made ready when it is first asked for: one that reads nothing takes no memory."""

    def __init__(self, names: list[str], made: Callable[[str], Weave | PackedWeave]) -> None:
        self._names, self._made = names, made

    def __getitem__(self, name: str) -> Weave | PackedWeave:
        if name not in self._names:
            raise KeyError(name)
        return self._made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def state_of(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Where tensors are and how often each was written to, which tells whether they have changed since.

    Those made for inference alone do not count what is written to them.
    """
    return tuple(
        number for tensor in tensors for number in (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
    )


def may_be_plain(model: WeftModel) -> bool:
    """Whether :class:`~weft.decoder.Decoder` computes what a model's language model does, hooks and all."""
    return why_not_plain(model) is None


def why_not_plain(model: WeftModel) -> str | None:
    """Why :class:`~weft.decoder.Decoder` does not compute what a model's language model does, as the end of a sentence;
    None where it does."""
    language_model: Any = model.language_model
    kind = type(language_model)
    if not kind.__module__.startswith("transformers.models.") or not kind.__name__.endswith("ForCausalLM"):
        return f"its language model is a {kind.__name__}"
    if model.device.type != "cpu":
        return f"it is on the device {model.device}"
    if model.training:
        return "it is being trained"
    found = peculiarity(language_model.config.to_dict())
    if found is not None:
        return found
    if _global_forward_hooks or _global_forward_pre_hooks:
        return "PyTorch has hooks on all modules"
    if torch.is_autocast_enabled("cpu"):
        return "it computes in mixed precision"
    for name, module in language_model.named_modules():
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if not all(map(_is_known_hook, hooks)):
            return f"{name or 'the language model'} has hooks"
        if not _is_known(module):
            return f"{name} is a {type(module).__name__}"
    types = {str(parameter.dtype) for parameter in language_model.parameters()}
    return None if len(types) == 1 else f"its weights are of several types ({', '.join(sorted(types))})"


def changes_words(settings: Mapping[str, Any]) -> bool:
    """Whether settings for generation change which words are the likeliest, as greedy or beam search finds them.

    Args:
        settings: those that differ from transformers' defaults, by their names.
    """
    return any(name not in USUAL and NEUTRAL.get(name, ...) != value for name, value in settings.items())


def _is_known_hook(hook: Any) -> bool:
    """Whether a hook is one of Weft's, or one with which transformers notes hidden states that somebody asked for."""
    captures = getattr(hook, "__module__", "") == "transformers.utils.output_capturing"
    return captures or isinstance(hook, (FusionHook, WatchingHook))


def _is_known(module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's or transformers' own, not one that was put in its place."""
    home = type(module).__module__
    return home.startswith("transformers.") or type(module) in (nn.Linear, nn.Embedding, nn.ModuleList, nn.SiLU)
