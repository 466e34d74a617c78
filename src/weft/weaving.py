"""One weave: the connector and the fusion layers with which one encoder's features reach a language model.

A :class:`Weave` is given features (a :class:`~weft.memory.Memory`) and hands on what its fusion layers read from them.
It holds only what is learned; the encoder and the language model are elsewhere. :func:`decoder_layers` finds, by
structure, where in a language model fusion layers can sit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from weft.copying import CopyGate
from weft.errors import WeftError
from weft.fusion import Connector, GatedCrossAttention, NameEmbedding, Resampler
from weft.joint import JointFusion
from weft.memory import KeyValues, Memory, NameTokens, ReadMemory, Sees, content_hash
from weft.options import near

Placed = Literal["first", "last", "as given"]
"""Where pictures or documents stand in a message: before its words, behind them, or where they were put."""
Reads = Literal["pictures", "texts"]
"""What a weave's memories are made of."""
Initial = Literal["identity", "self-attention"]
"""How fusion layers start: as exact identity, or as copies of their decoder layer's self-attention."""
ReadingMode = Literal["once", "careful", "prompt"]
"""How texts are read: as a memory that serves all questions, as one that is encoded with the question before each
passage, or as a part of the prompt."""


def check_reading(mode: ReadingMode | None) -> ReadingMode | None:
    """A way to read texts that somebody asked for; None for none.

    Raises:
        WeftError: there is no such way.
    """
    if mode is not None and mode not in get_args(ReadingMode):
        raise WeftError(
            f"reading: {mode!r} is no way to read texts; {near(mode, get_args(ReadingMode), otherwise='choose')}"
        )
    return mode


DERIVED = frozenset({"encoder", "hidden_size", "layered", "memory_size", "memory_tokens", "reads", "stream_axis"})
"""Fields of a weave's configuration that follow from the language model and the encoder."""


@dataclass
class WeaveConfig:
    """What a weave is made of; written to ``config.json``.

    Attributes:
        encoder: the frozen encoder it reads from: ``{"id": ..., "sha256": ...}``.
        layers: the decoder layers in front of which fusion layers sit.
        hidden_size: width of the language model.
        memory_size: width of the encoder's features, those for one fusion layer.
        reads: what its memories are made of.
        layered: whether the encoder gives each fusion layer features of its own, side by side.
        memory_tokens: tokens an item has, each with a learned position; 0 for items of any length.
        heads: query heads of a fusion layer.
        kv_heads: key/value heads of a fusion layer.
        head_dim: width of a head.
        feed_forward: inner width of a fusion layer's feed-forward network; 0 for none.
        qk_norm: whether queries and keys are normalized per head.
        connector_layers: self-attention layers over the tokens of an item.
        connector_heads: heads of those layers.
        connector_feed_forward: inner width of their feed-forward networks.
        resample: tokens that a resampler makes of an item; 0 for no resampler.
        dropout: probability with which features and updates are dropped while training.
        rotary_theta: base of the rotary positions of memory tokens; 0 for none.
        copy_width: width in which a copy gate compares; 0 for no copy gate.
        sees: what a text token looks at: ``"all"`` items before it, or only the ``"last"``.
        joint: whether it looks, in the same softmax, at the text since the first of these items as well.
        initial: how the fusion layers started.
        labels: who names what is seen in pictures: ``{"id": ..., "sha256": ...}``; empty for nobody. The id
            ``"encoder"`` is the encoder's own classifier.
        refuses_at: probability that a question has no answer, from which on the model says so.
        refusal_temperature: what the log-odds of refusing are divided by, and
        refusal_bias: what is then added, so that they are those of a question without an answer.
        reading: how its texts were read when it learned: ``"once"`` or ``"careful"``.
        reading_by_task: the tasks (``"answer"``, ``"title"``, ``"summary"``) whose texts are read in another way unless
            somebody asks for one, with that way: what measured best.
        stream_axis: of a language model that keeps several residual streams for each token (Gemma 3n, DeepSeek V4), the
            axis of its hidden states along which they lie; None where there is one. Fusion layers read the mean of the
            streams, and add to each.
        placed: where its pictures or documents stand in a message, whatever the order of the message's parts:
            ``"first"`` or ``"last"``, before or behind its words, or ``"as given"``.
        citing_heads: decoder layer and head of those heads of the language model whose attention says where in a prompt
            an answer stands; all where there are none.
    """

    layers: list[int]
    hidden_size: int
    memory_size: int
    heads: int
    kv_heads: int
    head_dim: int
    encoder: dict[str, str] = field(default_factory=dict)
    reads: Reads = "pictures"
    layered: bool = False
    memory_tokens: int = 0
    feed_forward: int = 0
    qk_norm: bool = True
    connector_layers: int = 1
    connector_heads: int = 8
    connector_feed_forward: int = 0
    resample: int = 0
    dropout: float = 0.0
    rotary_theta: float = 0.0
    copy_width: int = 0
    sees: Sees = "all"
    joint: bool = False
    stream_axis: int | None = None
    initial: Initial = "identity"
    labels: dict[str, str] = field(default_factory=dict)
    refuses_at: float = 0.5
    refusal_temperature: float = 1.0
    refusal_bias: float = 0.0
    reading: ReadingMode = "once"
    reading_by_task: dict[str, ReadingMode] = field(default_factory=dict)
    citing_heads: list[list[int]] = field(default_factory=list)
    placed: Placed = "first"

    def reading_of(self, task: str, asked: ReadingMode | None = None) -> ReadingMode:
        """How texts are read for a task: as asked, or else as measured best.

        Raises:
            WeftError: there is no such way.
        """
        return check_reading(asked) or self.reading_by_task.get(task, self.reading)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


class Weave(nn.Module):
    """What is learned: one fusion layer for each decoder layer that reads, and what stands before and behind them.

    Before them a connector, and a resampler where asked for; features that an encoder gives each layer apart need
    neither. Behind them, where asked for, a copy gate.

    Args:
        name: the weave's name within its model.
        config: what it is made of.
    """

    def __init__(self, name: str, config: WeaveConfig) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.connector: Connector | None = None
        if not config.layered:
            self.connector = Connector(
                config.memory_size,
                config.hidden_size,
                tokens=config.memory_tokens,
                layers=config.connector_layers,
                heads=config.connector_heads,
                feed_forward=config.connector_feed_forward,
                dropout=config.dropout,
                embedding_size=config.hidden_size if config.labels else 0,
            )
        self.resampler: Resampler | None = None
        if config.resample:
            heads = config.connector_heads
            self.resampler = Resampler(config.hidden_size, tokens=config.resample, heads=heads)
        width = config.memory_size if config.layered else config.hidden_size
        kind = JointFusion if config.joint else GatedCrossAttention
        self.layers = nn.ModuleList(
            kind(
                config.hidden_size,
                width,
                heads=config.heads,
                kv_heads=config.kv_heads,
                head_dim=config.head_dim,
                feed_forward=config.feed_forward,
                qk_norm=config.qk_norm,
                dropout=config.dropout,
                rotary_theta=config.rotary_theta,
            )
            for _ in config.layers
        )
        self.copy_gate: CopyGate | None = None
        if config.copy_width:
            self.add_copy_gate(config.copy_width)

    def add_copy_gate(self, width: int) -> None:
        """Let it copy from its memory, comparing in so many dimensions."""
        config = self.config
        config.copy_width = width
        size = config.memory_size if config.layered else config.hidden_size
        self.copy_gate = CopyGate(config.hidden_size, size, width, names=bool(config.labels))

    def add_names(self, labels: dict[str, str]) -> None:
        """Let it read the names of what pictures show, which a namer of this id and hash gives."""
        assert self.connector is not None
        self.config.labels = labels
        self.connector.names = NameEmbedding(self.config.hidden_size, self.config.hidden_size)

    def fusion(self, index: int) -> GatedCrossAttention:
        """One of its fusion layers."""
        return cast(GatedCrossAttention, self.layers[index])

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type in which the weave computes."""
        return self.fusion(0).q_proj.weight.dtype

    def fingerprint(self) -> str:
        """A hash of what it has learned: two weaves that have the same read alike."""
        tensors = sorted(self.state_dict().items())
        flat = (tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() for _, tensor in tensors)
        return content_hash(repr(self.config), *(one.tobytes() for one in flat))

    def read(self, memory: Memory) -> ReadMemory:
        """Project a memory to keys and values for every fusion layer: everything that is ever done to it.

        Args:
            memory: what an encoder made of pictures or passages, ``M`` items of ``N`` tokens.

        Raises:
            ValueError: the features have another width or another number of tokens than the weave was made for, or
                they are to be copied and have no ids.
        """
        expected = self.config.memory_size * (len(self.layers) if self.config.layered else 1)
        if memory.features.shape[-1] != expected:
            raise ValueError(
                f"The weave {self.name!r} reads features of width {expected} and was given "
                f"{tuple(memory.features.shape)}; encode with the encoder it was made for."
            )
        weight = self.fusion(0).q_proj.weight
        mask = None if memory.mask is None else memory.mask.to(weight.device)
        mixes = torch.is_autocast_enabled(weight.device.type)  # which takes features in less than float32 as they are
        features = memory.features.to(weight.device, None if mixes and self.connector is None else weight.dtype)
        names = memory.names if self.config.labels else None
        each, mask = self._for_each_layer(features, mask, names)
        copying = None
        if self.copy_gate is not None:
            ids, begins = self._copied(memory, names)
            device = self.copy_gate.q_proj.weight.device
            real = None if mask is None else mask.to(device)
            copying = self.copy_gate.read(each[-1].to(device), ids, real, None if begins is None else begins.to(device))
        layers = tuple(self._read_layer(index, features, mask) for index, features in enumerate(each))
        return ReadMemory(self.name, layers, memory.sources, self._key(memory), copying)

    def _for_each_layer(
        self, features: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None, names: NameTokens | None
    ) -> tuple[Sequence[Tensor], Bool[Tensor, "M S"] | None]:
        """What each fusion layer reads, and which of it is real."""
        if self.connector is None:
            return features.chunk(len(self.layers), -1), mask
        if names is not None:
            real = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device) if mask is None else mask
            real = torch.cat((real, (names.ids >= 0).to(real.device)), 1)
            mask = None if mask is None and bool(real.all()) else real
        features = self.connector(features, mask, names)
        if self.resampler is not None:
            features, mask = self._resampled(features, mask, 0 if names is None else names.ids.shape[1])
        return [features] * len(self.layers), mask

    def _resampled(
        self, features: Float[Tensor, "M S H"], mask: Bool[Tensor, "M S"] | None, names: int
    ) -> tuple[Float[Tensor, "M R H"], Bool[Tensor, "M R"] | None]:
        """Fewer tokens for each item; the last ones, which are names, stay as they are."""
        assert self.resampler is not None
        patches = features.shape[1] - names
        own = None if mask is None else mask[:, :patches]
        fewer = self.resampler(features[:, :patches], own)
        if not names or mask is None:
            return torch.cat((fewer, features[:, patches:]), 1), None
        real = torch.ones(fewer.shape[:2], dtype=torch.bool, device=mask.device)
        return torch.cat((fewer, features[:, patches:]), 1), torch.cat((real, mask[:, patches:]), 1)

    def _copied(
        self, memory: Memory, names: NameTokens | None
    ) -> tuple[Int[Tensor, "M S"], Bool[Tensor, "M S"] | None]:
        """The tokens of a memory that can be copied, of a picture those of its names, and where names begin."""
        if not self.config.labels:
            if memory.ids is None:
                raise ValueError(f"The weave {self.name!r} copies, but the memory does not say which tokens it holds.")
            return memory.ids, None
        count = (len(memory), self.config.resample or memory.features.shape[1])
        patches = torch.full(count, -1, device=memory.features.device)
        if names is None:
            return patches, None
        return torch.cat((patches, names.ids.to(patches.device)), 1), torch.cat(
            (torch.ones_like(patches, dtype=torch.bool), names.begins.to(patches.device)), 1
        )

    def _read_layer(self, index: int, features: Tensor, mask: Tensor | None) -> KeyValues:
        layer = self.fusion(index)
        device = layer.q_proj.weight.device
        return layer.read(features.to(device), None if mask is None else mask.to(device))

    def on_its_devices(self, read: ReadMemory) -> ReadMemory:
        """A memory that it has read, each layer's keys and values on the device of that fusion layer: what comes from
        disk, or was read before the model was moved, lies elsewhere."""

        def moved(tensor: Tensor, module: nn.Linear) -> Tensor:
            return tensor.to(module.weight.device)

        layers = tuple(
            layer.map(partial(moved, module=self.fusion(index).q_proj)) for index, layer in enumerate(read.layers)
        )
        copying = read.copying
        if copying is not None and self.copy_gate is not None:
            copying = copying.map(partial(moved, module=self.copy_gate.q_proj))
        return replace(read, layers=layers, copying=copying)

    def _key(self, memory: Memory) -> str:
        return content_hash(memory.key, self.name, str(self.dtype)) if memory.key else ""

    @torch.no_grad()
    def start_from(self, decoder: nn.ModuleList) -> None:
        """Start every fusion layer as a copy of its decoder layer's self-attention, with gates of one half.

        T5Gemma starts its cross-attention so (Zhang et al. 2025). Such a weave is not the identity for rows that have
        a memory; rows that have none are exact as ever.

        Raises:
            WeftError: the decoder layers have no separate projections of the weave's shapes.
        """
        for number, index in enumerate(self.config.layers):
            layer = self.fusion(number)
            source = _self_attention(decoder[index])
            norm: Any = next((child for child in decoder[index].children() if _is_norm(child)), None)
            if source is None or norm is None:
                raise WeftError(
                    "initial='self-attention' needs decoder layers with q_proj, k_proj, v_proj and o_proj, which "
                    f"{type(decoder[index]).__name__} has not; use initial='identity'."
                )
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                _copy(getattr(layer, name).weight, getattr(source, name).weight, name)
            _copy(layer.hidden_norm.weight, _scale(norm), "norm")
            if self.config.layered:  # the memory is hidden states, so the norm in front of its keys is the same
                _copy(layer.memory_norm.weight, _scale(norm), "norm")
            for name in ("q_norm", "k_norm"):
                if self.config.qk_norm and hasattr(source, name):
                    _copy(getattr(layer, name).weight, _scale(getattr(source, name)), name)
            layer.attention_gate.fill_(0.5)


def decoder_layers(language_model: Any) -> nn.ModuleList:
    """The decoder layers of a language model, found by structure.

    They are the module list whose length is ``config.get_text_config().num_hidden_layers``, which lies in no other such
    list. Of several it is the first whose entries share one type; where none does, as in models of which some layers
    attend and others are recurrent, the one that holds most parameters.

    Raises:
        WeftError: there is no such list.
    """
    count = language_model.config.get_text_config(decoder=True).num_hidden_layers
    lists, inside = list[nn.ModuleList](), set[nn.Module]()
    for module in language_model.modules():  # in order of registration, so outer before inner
        if isinstance(module, nn.ModuleList) and len(module) == count and module not in inside:
            lists.append(module)
            inside.update(module.modules())
    for found in lists:
        if len({type(layer) for layer in found}) == 1:
            return found
    if lists:
        return max(lists, key=lambda found: sum(parameter.numel() for parameter in found.parameters()))
    raise WeftError(
        f"{type(language_model).__name__} has no list of {count} decoder layers, so nothing can be woven into it."
    )


def choose_layers(count: int, *, every: int | None, start: int | None, layers: Sequence[int] | None) -> list[int]:
    """The decoder layers that get a fusion layer: ``layers`` as given, or ``every`` so many from ``start`` on.

    By default every second layer of the upper third: below it, training needs no gradients, and hidden states can be
    stored.

    Raises:
        WeftError: a layer is outside the model, or none is left.
    """
    if layers is not None:
        chosen = sorted(set(layers))
    else:
        chosen = list(range(count * 2 // 3 if start is None else start, count, every or 2))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count or (every is not None and every < 1):
        raise WeftError(
            f"layers={layers}, start={start}, every={every} choose {chosen} of the decoder layers 0 to {count - 1}; "
            "choose at least one that exists."
        )
    return chosen


def normalizes_heads(language_model: Any, index: int) -> bool:
    """Whether a decoder layer normalizes queries and keys per head."""
    source = _self_attention(decoder_layers(language_model)[index])
    return hasattr(source, "q_norm") and hasattr(source, "k_norm")


def _self_attention(layer: nn.Module) -> Any:
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    return next((m for m in layer.modules() if all(hasattr(m, name) for name in names)), None)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None


def _scale(norm: Any) -> Tensor:
    """By what a norm scales; an RMS norm is asked, since some add one to their weight."""
    return norm.weight if isinstance(norm, nn.LayerNorm) else norm(torch.ones_like(norm.weight))


def _copy(target: Tensor, source: Tensor, name: str) -> None:
    if target.shape != source.shape:
        raise WeftError(
            f"initial='self-attention': {name} has shape {tuple(source.shape)} in the language model and "
            f"{tuple(target.shape)} in the weave; leave out heads, kv_heads and head_dim, or use initial='identity'."
        )
    target.copy_(source)
