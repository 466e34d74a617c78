"""A decoder over plain tensors: what Llama and its near kin compute, without the bookkeeping around it.

On a CPU a token of a small language model takes less time to compute than transformers takes to get there.
:class:`Decoder` is given a language model's tensors and computes the same thing in few calls, many rows at once, each
at a length of its own. Where few rows decode it reads :class:`~weft.packing.Packed` weights, since reading weights is
what then takes time; where many do, or a prompt is read, the weights as they are.

:func:`is_plain` says which language models it knows; all others are left to transformers. The tests hold the two to
the same numbers.

Notation: ``B`` rows, ``T`` tokens, ``H`` hidden size, ``V`` words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from weft.packing import FEW, NATIVE, Packed, Quantize, fits, pack
from weft.rotary import KINDS, rotary_frequencies
from weft.tensor_file import TensorFile

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Language models that :class:`Decoder` computes, by the names that transformers gives them."""
_STEP = 64
"""Tokens in whole numbers of which a cache grows."""


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether a language model computes what :class:`Decoder` does.

    Args:
        config: its configuration (of the text model), as plain values.
    """
    return peculiarity(config) is None


def peculiarity(config: Mapping[str, Any]) -> str | None:
    """What a language model computes that :class:`Decoder` does not, as the end of a sentence; None for nothing.

    Args:
        config: its configuration (of the text model), as plain values.
    """
    family, rope = config.get("model_type"), config.get("rope_parameters") or {}
    slides = config.get("use_sliding_window", family == "mistral") and config.get("sliding_window")
    found = {
        f"its family is {family}, not {', '.join(FAMILIES)}": family not in FAMILIES,
        f"its activation is {config.get('hidden_act')}, not silu": config.get("hidden_act") != "silu",
        "its output projections have biases": config.get("attention_bias") or config.get("mlp_bias"),
        "its weights are quantized": config.get("quantization_config") is not None,
        f"its rotary positions are of the kind {rope.get('rope_type')}": rope.get("rope_type") not in KINDS
        or rope.get("factor", 1.0) is None,
        "a part of each head has no rotary positions": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "its attention slides": slides or any(kind != "full_attention" for kind in config.get("layer_types") or ()),
    }
    return next((what for what, holds in found.items() if holds), None)


class Reader(Protocol):
    """What rows of a batch read, as the decoder asks for it: by the layer in front of which they look."""

    @property
    def layers(self) -> frozenset[int]:
        """Decoder layers in front of which some row looks at a memory."""
        ...

    def look(self, layer: int, hidden: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """Hidden states in front of a decoder layer, its rows having looked."""
        ...


class Compiled(Protocol):
    """A decoder's steps of one token, compiled."""

    def __call__(self, ids: Int[Tensor, "B 1"], cache: TextCache, reader: Reader | None) -> Tensor | None:
        """The hidden states; None where these rows, or what they read, are not what was compiled."""
        ...


class TextCache:
    """Keys and values of the text so far: rows of lengths of their own in one block a layer.

    Attributes:
        lengths: tokens of each row.
        blocks: keys and values for each decoder layer, ``[rows, kv_heads, room, head_dim]``.
        others: the same for whatever else looks at the text, by name; see :meth:`other`.
    """

    def __init__(self, decoder: Decoder, rows: int = 0) -> None:
        self.decoder = decoder
        self.lengths = [0] * rows
        shape = (rows, decoder.kv_heads, 0, decoder.head_dim)
        self.blocks = [(decoder.embeddings.new_empty(shape),) * 2 for _ in decoder.layers]
        self.others: dict[str, tuple[Tensor, Tensor]] = {}

    def other(self, name: str, like: Float[Tensor, "R kv_heads T head_dim"]) -> tuple[Tensor, Tensor]:
        """Keys and values of the text that are kept beside those of decoder layers, for whoever writes them: zeros at
        first, with as much room.

        Args:
            name: what they are kept under.
            like: keys of their shape and type, for any rows and tokens.
        """
        if name not in self.others:
            shape = (len(self.lengths), like.shape[1], self.blocks[0][0].shape[2], like.shape[3])
            self.others[name] = like.new_zeros(shape), like.new_zeros(shape)
        return self.others[name]

    def reserve(self, tokens: int) -> None:
        """Make room for rows of so many tokens."""
        more = _in_steps(tokens) - self.blocks[0][0].shape[2]
        if more > 0:
            self._each(lambda block: F.pad(block, (0, 0, 0, more)))

    def select(self, rows: Sequence[int]) -> None:
        """Keep some rows, in a given order, each as often as it is named."""
        if list(rows) == list(range(len(self.lengths))):
            return
        places = torch.tensor(list(rows), dtype=torch.long)
        self.lengths = [self.lengths[row] for row in rows]
        self._each(lambda block: block[places])

    def repeat(self, rows: int, layers: range) -> TextCache:
        """A cache that holds the first row so many times over, for calls that run some of the layers only."""
        other = TextCache(self.decoder)
        other.lengths = self.lengths[:1] * rows
        other.blocks = [
            (keys[:1].repeat(rows, 1, 1, 1), values[:1].repeat(rows, 1, 1, 1)) if index in layers else (keys, values)
            for index, (keys, values) in enumerate(self.blocks)
        ]
        return other

    def append(self, other: TextCache) -> None:
        """Add the rows of another cache behind its own."""
        room = max(self.blocks[0][0].shape[2], other.blocks[0][0].shape[2])
        for cache in (self, other):
            cache.reserve(room)
        for one, another in ((self, other), (other, self)):
            for name, (keys, _) in another.others.items():
                one.other(name, keys)
        self.lengths = [*self.lengths, *other.lengths]
        pairs = zip(self.blocks, other.blocks, strict=True)
        self.blocks = [(torch.cat((k, keys)), torch.cat((v, values))) for (k, v), (keys, values) in pairs]
        for name, (k, v) in self.others.items():
            keys, values = other.others[name]
            self.others[name] = torch.cat((k, keys)), torch.cat((v, values))

    def first(self, tokens: int) -> TextCache:
        """A cache of one row that holds the first tokens of this one's first row, in storage of its own."""
        other = TextCache(self.decoder, 1)
        other.lengths = [tokens]
        other.blocks, other.others = list(self.blocks), dict(self.others)
        other._each(lambda block: block[:1, :, :tokens].clone())
        return other

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put something else in place of each block."""
        self.blocks = [(change(keys), change(values)) for keys, values in self.blocks]
        self.others = {name: (change(keys), change(values)) for name, (keys, values) in self.others.items()}


def _in_steps(tokens: int) -> int:
    """So many tokens, or as many more as make a whole number of steps."""
    return -(-tokens // _STEP) * _STEP


@dataclass(frozen=True, eq=False)
class _Linear:
    """Projections of the same input, side by side."""

    weights: tuple[Tensor, ...]
    bias: Tensor | None
    packed: Packed | None

    def __call__(self, x: Float[Tensor, "N columns"]) -> Float[Tensor, "N rows"]:
        if self.packed is not None and (x.shape[0] <= FEW or not self.weights):
            product = self.packed(x)
        elif len(self.weights) == 1:
            product = F.linear(x, self.weights[0])
        else:
            product = torch.cat([F.linear(x, weight) for weight in self.weights], -1)
        return product if self.bias is None else product + self.bias


class Norm:
    """RMS normalization (Zhang and Sennrich 2019), in one kernel, and the same for a row whatever rows are beside it.

    PyTorch has no kernel for it on a CPU, and computes it in eight calls. A row and its negative side by side have a
    mean of zero, and their layer normalization, for which there is a kernel, is the RMS normalization of the row.

    Args:
        weight: scales, ``[width]``.
        eps: what is added to the mean square.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps
        self.twice = torch.cat((weight, weight))

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        width = len(self.weight)
        if torch.compiler.is_compiling():  # which makes one kernel of it by itself
            return F.rms_norm(x, (width,), self.weight, self.eps)
        return F.layer_norm(torch.cat((x, -x), -1), (2 * width,), self.twice, None, self.eps)[..., :width].contiguous()


@dataclass(frozen=True, eq=False)
class _Layer:
    """The tensors of one decoder layer."""

    attention_norm: Norm
    qkv: _Linear
    q_norm: Norm | None
    k_norm: Norm | None
    output: _Linear
    feed_forward_norm: Norm
    gate_up: _Linear
    down: _Linear


@dataclass(frozen=True, eq=False)
class Step:
    """What all layers of one call share: where tokens stand, and what they may look at."""

    shape: tuple[int, int]
    cosines: Tensor
    sines: Tensor
    mask: Tensor | None
    write: Callable[[Tensor, Tensor], None]
    held: int
    causal: bool


class Decoder:
    """The decoder of Llama (Touvron et al. 2023), Mistral, Qwen2 and Qwen3, for inference.

    Args:
        config: the language model's configuration; see :func:`is_plain`.
        weights: its tensors, by the names that transformers gives them; they are used as they are, not copied, and let
            go where packed ones are always faster. Those of a file are let go of after each layer of a prompt, too.
        quantize: how the matrices are packed for decoding few rows; None to leave them as they are.
        packed: matrices that were packed before, as `packed_matrices` has them, of which ``weights`` need not hold any.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        quantize: Quantize | None = None,
        packed: Mapping[str, Packed] | None = None,
    ) -> None:
        self._release = weights.release if isinstance(weights, TensorFile) else None
        named = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        eps = config["rms_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.embeddings = named["embed_tokens.weight"]
        self.norm = Norm(named["norm.weight"], eps)
        self.quantize = quantize
        self.compiled: Compiled | None = None
        head = named.get("lm_head.weight", self.embeddings)
        self.packed_matrices: dict[str, Packed] = dict(packed or {})
        # Embeddings are read a row at a time; as the head they are the largest matrix, for which 4 bits are too few.
        if quantize is not None and "head" not in self.packed_matrices:
            self.packed_matrices["head"] = pack(head, "int8", head.dtype)
        self.head = _Linear((head,), None, self.packed_matrices.get("head"))
        self.frequencies, scale = rotary_frequencies(config["rope_parameters"], self.head_dim)
        self.turned_by = None if scale == 1 else torch.tensor(scale)  # a tensor: what is compiled holds no numbers
        self.layers = [self._layer(named, f"layers.{index}", eps) for index in range(config["num_hidden_layers"])]

    def _layer(self, named: Mapping[str, Tensor], name: str, eps: float) -> _Layer:
        def norm(part: str) -> Norm | None:
            weight = named.get(f"{name}.{part}.weight")
            return None if weight is None else Norm(weight, eps)

        def linear(*parts: str) -> _Linear:
            biases = [named.get(f"{name}.{part}.bias") for part in parts]
            bias = None if biases[0] is None else torch.cat(cast(list[Tensor], biases))
            place, names = f"{name}.{'+'.join(parts)}", [f"{name}.{part}.weight" for part in parts]
            weights = tuple(named[one] for one in names if one in named)
            if self.quantize is None:
                return _Linear(weights, bias, None)
            if place not in self.packed_matrices:
                whole = weights[0] if len(weights) == 1 else torch.cat(weights)
                bits: Quantize = self.quantize if fits(whole, self.quantize) else "int8"
                self.packed_matrices[place] = pack(whole, bits, whole.dtype)
                self._let_go()
            return _Linear(weights if NATIVE else (), bias, self.packed_matrices[place])

        return _Layer(
            attention_norm=cast(Norm, norm("input_layernorm")),
            qkv=linear(*(f"self_attn.{one}_proj" for one in "qkv")),
            q_norm=norm("self_attn.q_norm"),
            k_norm=norm("self_attn.k_norm"),
            output=linear("self_attn.o_proj"),
            feed_forward_norm=cast(Norm, norm("post_attention_layernorm")),
            gate_up=linear("mlp.gate_proj", "mlp.up_proj"),
            down=linear("mlp.down_proj"),
        )

    @property
    def error(self) -> float:
        """Largest share by which packing has changed a weight of a decoder layer; see :class:`~weft.packing.Packed`."""
        return max((packed.error for name, packed in self.packed_matrices.items() if name != "head"), default=0.0)

    def __call__(self, ids: Int[Tensor, "B T"], cache: TextCache, reader: Reader | None = None) -> Float[Tensor, "B H"]:
        """The last token's hidden state, as the head takes it.

        Args:
            ids: the tokens that follow those in the cache, as many for each row.
            cache: grows by them.
            reader: what the rows read.
        """
        if self.compiled is not None and ids.shape[1] == 1:
            found = self.compiled(ids, cache, reader)
            if found is not None:
                cache.lengths = [length + 1 for length in cache.lengths]
                return found
        found = self.through(ids, self.step(ids.shape[1], cache), cache.blocks, reader)
        cache.lengths = [length + ids.shape[1] for length in cache.lengths]
        return found

    def through(
        self, ids: Int[Tensor, "B T"], step: Step, blocks: Sequence[tuple[Tensor, Tensor]], reader: Reader | None
    ) -> Float[Tensor, "B H"]:
        """The last token's hidden state, and keys and values written to the blocks of a cache."""
        hidden = self.run(range(len(self.layers)), F.embedding(ids, self.embeddings), step, blocks, reader)
        return self.norm(hidden[:, -1])

    def run(
        self,
        layers: range,
        hidden: Float[Tensor, "B T H"],
        step: Step,
        blocks: Sequence[tuple[Tensor, Tensor]],
        reader: Reader | None,
    ) -> Float[Tensor, "B T H"]:
        """The hidden states behind some neighbouring layers, given those in front of them; their keys and values are
        written to the blocks of a cache."""
        shape, hidden = hidden.shape, hidden.flatten(0, 1)
        looks = reader.layers if reader is not None else frozenset[int]()
        for index in layers:
            layer = self.layers[index]
            if index in looks:
                hidden = cast(Reader, reader).look(index, hidden.view(shape)).flatten(0, 1)
            found = self._attend(layer.attention_norm(hidden), layer, blocks[index], step)
            hidden = hidden + layer.output(found)
            gate, up = layer.gate_up(layer.feed_forward_norm(hidden)).chunk(2, -1)
            hidden = hidden + layer.down(F.silu(gate) * up)
            if step.shape[1] > 1 and len(hidden) > FEW:
                self._let_go()
        return hidden.view(shape)

    def _let_go(self) -> None:
        """Keep no weights of a file in memory that are not needed for a while."""
        if self._release is not None:
            self._release()

    def logits(self, hidden: Float[Tensor, "B H"]) -> Float[Tensor, "B V"]:
        """What the head makes of hidden states."""
        return self.head(hidden)

    def step(self, tokens: int, cache: TextCache) -> Step:
        """A step of so many tokens a row, which follow those in the cache; it makes room for them there."""
        lengths = cache.lengths
        held = max(lengths) + tokens
        cache.reserve(held)
        places = torch.tensor(lengths)[:, None] + torch.arange(tokens)
        even = min(lengths) == max(lengths)
        # Heads stand behind tokens where there is one, and in front of them where there are more.
        cosines, sines = (one[:, 0] if tokens == 1 else one for one in self._turn(places[:1] if even else places))
        first = tokens > 1 and held == tokens
        mask, seen = None, held
        if tokens == 1:
            seen = _in_steps(held)  # so that a row's sums do not depend on its neighbours
        if not first:
            mask = (torch.arange(seen) <= places[..., None])[:, None]
        rows = torch.arange(len(lengths))

        def write(block: Tensor, new: Tensor) -> None:
            if tokens == 1 and even:
                block[:, :, lengths[0]] = new
            elif tokens == 1:
                block[rows, :, places[:, 0]] = new
            elif even:
                block[:, :, lengths[0] : held] = new
            else:
                block[rows[:, None], :, places] = new.transpose(1, 2)

        return Step((len(lengths), tokens), cosines, sines, mask, write, seen, first)

    def one_token(self, places: Int[Tensor, " B"], room: int) -> Step:
        """A step of one token a row, in shapes that do not depend on where the rows stand.

        Args:
            places: where each row's token stands.
            room: tokens for which a row has room, all of which are looked at, those to come masked.
        """
        cosines, sines = (one[:, 0] for one in self._turn(places[:, None]))
        count = places.shape[0]  # not its length, which an exporter would take for a constant
        rows = torch.arange(count)

        def write(block: Tensor, new: Tensor) -> None:
            block[rows, :, places] = new

        mask = (torch.arange(room) <= places[:, None])[:, None, None]
        return Step((count, 1), cosines, sines, mask, write, room, False)

    def _turn(self, places: Int[Tensor, "B T"]) -> list[Float[Tensor, "B 1 T head_dim"]]:
        """By what rotary positions turn queries and keys: cosines, and sines signed as the halves that they meet."""
        angles = places.float()[..., None] * self.frequencies
        cosines, sines = angles.cos(), angles.sin()
        if self.turned_by is not None:
            cosines, sines = cosines * self.turned_by, sines * self.turned_by
        pairs = (cosines, cosines), (-sines, sines)
        return [torch.cat(pair, -1).unsqueeze(1).to(self.embeddings.dtype) for pair in pairs]

    def _attend(self, x: Float[Tensor, "N H"], layer: _Layer, block: tuple[Tensor, Tensor], step: Step) -> Tensor:
        """What tokens find in the text so far, ``[N, heads · head_dim]``."""
        rows, tokens = step.shape
        split = layer.qkv(x).view(rows, tokens, -1, self.head_dim)
        split = split[:, 0] if tokens == 1 else split.transpose(1, 2)
        query_key, value = split.tensor_split((self.heads + self.kv_heads,), 1)
        if layer.q_norm is not None:
            query, key = query_key.tensor_split((self.heads,), 1)
            normed = layer.q_norm(query), cast(Norm, layer.k_norm)(key)
            query_key = torch.cat(normed, 1)
        query_key = torch.addcmul(query_key * step.cosines, query_key.roll(self.head_dim // 2, -1), step.sines)
        query, key = query_key.tensor_split((self.heads,), 1)
        step.write(block[0], key)
        step.write(block[1], value)
        keys, values = block[0][:, :, : step.held], block[1][:, :, : step.held]
        if tokens == 1:  # the query heads that share keys ask as if they were tokens, and nothing is repeated
            folded = query.view(rows, self.kv_heads, -1, self.head_dim)
            return F.scaled_dot_product_attention(folded, keys, values, step.mask).view(rows, -1)
        looked = F.scaled_dot_product_attention(query, keys, values, step.mask, is_causal=step.causal, enable_gqa=True)
        return looked.transpose(1, 2).reshape(rows * tokens, -1)
