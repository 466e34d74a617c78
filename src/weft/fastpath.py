"""The fast way through a frozen language model while training: only what depends on the weave is computed.

Everything below the first layer that learns is frozen and comes from disk (:class:`UpperStack`), rows that share a
prompt are computed as one, and the projection onto the vocabulary is restricted to the words of the training set and a
sample of the others (:class:`Vocabulary`, :mod:`weft.narrow_head`). :func:`losses_agree` holds this way against the
plain one on the longest rows of the run, so a model whose forward does not take it is trained the plain way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from weft.attention import attention
from weft.data import Batch, Row
from weft.hooks import states_before
from weft.memory import content_hash
from weft.store import FeatureStore
from weft.weaving import decoder_layers

OWN = "weft"
"""The name under which transformers knows the attention function of this module."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far two ways of computing the losses of the same targets may be apart, in the root of the mean square, as a share
of the mean loss where that is above one: in bfloat16 neighbouring logits of 16 are an eighth apart."""


@contextmanager
def own_attention(language_model: PreTrainedModel) -> Iterator[None]:
    """Within it a language model on a CPU computes its attention as fusion layers do: quicker to learn through.

    A model that does not take its attention from transformers' registry keeps its own.
    """
    usual = language_model.config._attn_implementation
    if usual != "sdpa" or language_model.device.type != "cpu" or not language_model._can_set_attn_implementation():
        yield
        return
    language_model.set_attn_implementation(OWN)
    try:
        yield
    finally:
        language_model.set_attn_implementation(usual)


def _whole_mask(*args: Any, **options: Any) -> Any:
    """A boolean mask, also where a kernel could be told that it is causal and needs none."""
    return sdpa_mask(*args, **{**options, "allow_is_causal_skip": False})


def _attend(
    module: nn.Module,
    query: Float[Tensor, "B heads T head_dim"],
    key: Float[Tensor, "B kv_heads N head_dim"],
    value: Float[Tensor, "B kv_heads N head_dim"],
    attention_mask: Bool[Tensor, "B 1 T N"] | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "B T heads head_dim"], None]:
    """What transformers asks of an attention function."""
    if scaling is not None:
        query = query * (scaling * math.sqrt(query.shape[-1]))
    return attention(query, key, value, attention_mask).transpose(1, 2), None


AttentionInterface.register(OWN, _attend)
AttentionMaskInterface.register(OWN, _whole_mask)


class UpperStack:
    """Runs a language model from a decoder layer on, with stored hidden states in place of what comes before.

    Args:
        language_model: the frozen language model.
        first: the first decoder layer that is run.
    """

    def __init__(self, language_model: PreTrainedModel, first: int) -> None:
        self.language_model = language_model
        self.first = first
        self._gives_tuples = False
        self.layers = decoder_layers(language_model)
        self.parent, self.name = next(
            (module, name)
            for module in language_model.modules()
            for name, child in module.named_children()
            if child is self.layers
        )

    @torch.no_grad()
    def lower(self, batch: Batch) -> Float[Tensor, "B T H"]:
        """The hidden states in front of the first layer that is run."""
        if self.first == 0:
            return states_before(self.language_model.base_model, [self.layers[0]], batch.inputs)[0]
        given: list[Any] = []
        hook = self.layers[0].register_forward_hook(lambda *called: given.append(called[-1]))
        try:
            states = states_before(self.language_model.base_model, [self.layers[self.first]], batch.inputs)
        finally:
            hook.remove()
        self._gives_tuples = isinstance(given[-1], tuple)
        return states[0]

    @contextmanager
    def starting_from(self, hidden: Float[Tensor, "B T H"]) -> Iterator[None]:
        """Within it the language model begins at its first upper layer, with these hidden states.

        The layers below are passed by, and each upper one keeps its place: families choose masks and rotary positions
        by the number of a layer.
        """

        def replace(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        hook = self.layers[self.first].register_forward_pre_hook(replace, with_kwargs=True, prepend=True)
        passed = [_Passed(layer, self._gives_tuples) for layer in self.layers[: self.first]]
        setattr(self.parent, self.name, nn.ModuleList([*passed, *self.layers[self.first :]]))
        try:
            yield
        finally:
            setattr(self.parent, self.name, self.layers)
            hook.remove()


class _Passed(nn.Module):
    """Stands in for a decoder layer that is not run: hands on what it is given, and is asked for the layer's own
    settings."""

    def __init__(self, layer: nn.Module, gives_tuples: bool) -> None:
        super().__init__()
        self._layer, self._gives_tuples = (layer,), gives_tuples  # a tuple hides it: its parameters are not asked for

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden,) if self._gives_tuples else hidden

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"][0], name)


class HiddenStore:
    """The hidden states below the first fusion layer, on disk, row by row.

    Args:
        store: where they are kept.
        stack: computes those that are missing.
        identity: hash of the language model.
    """

    def __init__(self, store: FeatureStore, stack: UpperStack, identity: str) -> None:
        self.store = store
        self.stack = stack
        self.identity = identity

    def key(self, row: Row) -> str:
        """Name of a row's hidden states: its tokens, the model and the layer decide them."""
        return content_hash(self.identity, str(self.stack.first), repr((row.prompt, row.answers)))

    def fill(self, batch: Batch) -> None:
        """Compute and keep the hidden states of a batch."""
        hidden = self.stack.lower(batch)
        for row, states in zip(batch.rows, hidden, strict=True):
            self.store.put(self.key(row), states[: len(row)])

    def get(self, batch: Batch) -> Float[Tensor, "B T H"]:
        """The hidden states of a batch, zeros where it is padded."""
        states = [self.store.get(self.key(row)) for row in batch.rows]
        hidden = states[0].new_zeros(*batch.input_ids.shape, states[0].shape[-1])
        for index, one in enumerate(states):
            hidden[index, : len(one)] = one
        return hidden


@dataclass(frozen=True)
class Vocabulary:
    """The words among which a training step chooses.

    With all words W, those seen in training S and a sample N of the rest, the softmax over W is estimated by one over
    S and N in which each sampled word stands for ``(|W| - |S|) / |N|`` words (Jean et al. 2015).

    Attributes:
        seen: words of the training set, ``[S]``.
        rest: the other words.
        sample: how many of them to draw for a step.
    """

    seen: Int[Tensor, " S"]
    rest: Int[Tensor, " R"]
    sample: int

    @classmethod
    def of(cls, rows: Sequence[Row], size: int, sample: int) -> Vocabulary:
        """The words that rows learn, of a vocabulary of ``size``."""
        seen = torch.zeros(size, dtype=torch.bool)
        for row in rows:
            for tokens, flags in row.answers:
                seen[[token for token, flag in zip(tokens, flags, strict=True) if flag]] = True
        rest = (~seen).nonzero()[:, 0]
        return cls(seen.nonzero()[:, 0], rest, min(sample, len(rest)))

    def draw(self, device: torch.device) -> Int[Tensor, " W"]:
        """The words of one step: those seen, and behind them a sample of the others."""
        drawn = self.rest[torch.randint(len(self.rest), (self.sample,))] if self.sample else self.rest[:0]
        return torch.cat([self.seen, drawn]).to(device)

    def losses(
        self, logits: Float[Tensor, "L W"], targets: Int[Tensor, " L"], label_smoothing: float
    ) -> Float[Tensor, " L"]:
        """Cross-entropy of each target, from the logits of the words that :meth:`draw` gave."""
        if self.sample:
            weight = torch.zeros(logits.shape[-1], device=logits.device)
            weight[len(self.seen) :] = math.log(len(self.rest) / self.sample)
            logits = logits + weight
        return F.cross_entropy(logits, self._places(targets), reduction="none", label_smoothing=label_smoothing)

    def losses_among_seen(self, logits: Float[Tensor, "L S"], targets: Int[Tensor, " L"]) -> Float[Tensor, " L"]:
        """Cross-entropy of each target among the seen words alone, as :mod:`weft.sampling` draws them."""
        return F.cross_entropy(logits, self._places(targets), reduction="none")

    def _places(self, targets: Int[Tensor, " L"]) -> Int[Tensor, " L"]:
        return torch.searchsorted(self.seen.to(targets.device), targets)


def losses_agree(fast: Float[Tensor, " L"], plain: Float[Tensor, " L"], dtype: torch.dtype) -> bool:
    """Whether two ways of computing the losses of some targets give the same but for rounding.

    Args:
        fast: one way.
        plain: the other way.
        dtype: the type in which they were computed.
    """
    distance = float((fast.float() - plain.float()).square().mean().sqrt())
    return math.isfinite(distance) and distance <= ROUNDING[dtype] * max(1.0, float(plain.float().mean()))
