"""What people do instead of weaving: what a row holds stands in the language model's prompt, as tokens of it.

:class:`Prompted` is LLaVA (Liu et al. 2023) on the frozen parts of a woven model: a projector makes tokens of a
picture's features, and the language model reads them like words. With LoRA (Hu et al. 2021) it learns to; texts need no
projector, and LoRA is all there is. :class:`Sizes` makes it as large as a weave, so that as many parameters learn.

A place that a picture takes in a prompt is a token of a number beyond the vocabulary; see :func:`with_places`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from weft.data import Batch
from weft.fastpath import Vocabulary, own_attention
from weft.fusion import Connector
from weft.model import WeftModel
from weft.narrow_head import head_of
from weft.weaving import WeaveConfig


@dataclass(frozen=True)
class Sizes:
    """What of a prompted model learns.

    Attributes:
        inner: inner width of the projector; 0 for none.
        rank: of LoRA on every matrix of every decoder layer; 0 for none.
    """

    inner: int
    rank: int

    @classmethod
    def matching(cls, parameters: int, model: WeftModel, config: WeaveConfig, *, lora: bool) -> Sizes:
        """The sizes at which about as many parameters learn.

        Beside LoRA the projector is as wide inside as the language model, as LLaVA's is, and takes up what a whole rank
        more would be too much for; without LoRA it takes up everything.

        Args:
            parameters: how many.
            model: the woven model on whose parts it is to stand.
            config: of the weave that it is compared with, whose connector it has.
            lora: whether LoRA is to learn.
        """
        a_rank = sum(one.in_features + one.out_features for one in _matrices(model.language_model)) if lora else 0
        if config.reads == "texts":
            return cls(0, max(1, round(parameters / a_rank)))
        narrow, wide = (_count(_connector(config, width)) for width in (1, 2))
        a_width, rest = wide - narrow, parameters - (2 * narrow - wide)
        rank = max(1, (rest - config.hidden_size * a_width) // a_rank) if lora else 0
        return cls(max(1, round((rest - rank * a_rank) / a_width)), rank)


class Prompted:
    """A language model whose prompts hold pictures, or texts.

    Args:
        model: the woven model on whose frozen parts it stands. Its language model is given LoRA where that is to learn,
            and is of no other use then.
        name: the weave that it is compared with.
        sizes: what learns.

    Attributes:
        learned: what learns, in float32.
    """

    def __init__(self, model: WeftModel, name: str, sizes: Sizes) -> None:
        self.language_model, self.sizes = cast(Any, model.language_model), sizes
        config = model.weave(name).config
        device = self.language_model.device
        self.learned = nn.Module()
        self.connector = _connector(config, sizes.inner).to(device) if sizes.inner else None
        self.learned.connector = self.connector
        if sizes.rank:
            _put_lora(self.language_model, sizes.rank, config.dropout)
            pairs = [one for one in self.language_model.named_parameters() if "lora_" in one[0]]
            for _, parameter in pairs:
                parameter.data = parameter.data.float()
            self.learned.lora = nn.ParameterDict({name.replace(".", "-"): one for name, one in pairs})
        self.learned.requires_grad_(True)
        self.table = self.language_model.get_input_embeddings()
        self.head = self.language_model.get_output_embeddings()

    @property
    def words(self) -> int:
        """Words of the vocabulary: the number of the first place for a picture."""
        return self.table.num_embeddings

    @property
    def parameters(self) -> int:
        """How many learn."""
        return _count(self.learned)

    def train(self, mode: bool = True) -> None:
        """Let what learns drop some of its values, or not."""
        self.learned.train(mode)
        if self.sizes.rank:
            self.language_model.train(mode)

    def loss(
        self,
        batch: Batch,
        features: Float[Tensor, "M N D"] | None,
        vocabulary: Vocabulary | None = None,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Cross-entropy, summed over the batch's learned tokens.

        Args:
            batch: rows with places for what they hold.
            features: of their pictures, in order; None where they hold none.
            vocabulary: the words to choose among; None for all.
            label_smoothing: share of each target spread over them.
        """
        inputs = {**batch.inputs, "input_ids": None, "inputs_embeds": self.embedded(batch.input_ids, features)}
        with own_attention(self.language_model):
            states = self.language_model.base_model(**inputs).last_hidden_state
        predicting = states.flatten(0, 1)[batch.predicting].to(self.head.weight.dtype)
        if vocabulary is not None:
            words = vocabulary.draw(predicting.device)
            logits = F.linear(predicting, *head_of(self.head, words)).float()
            return vocabulary.losses(logits, batch.targets, label_smoothing).sum()
        logits = self.head(predicting).float()
        return F.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=label_smoothing)

    def embedded(self, ids: Int[Tensor, "B T"], features: Float[Tensor, "M N D"] | None) -> Float[Tensor, "B T H"]:
        """Tokens as the first layer takes them: words from the language model's table, pictures from the projector."""
        places = ids >= self.words
        found = self.table(ids.masked_fill(places, 0))
        if features is not None and self.connector is not None:
            found[places] = self.connector(features).flatten(0, 1)[ids[places] - self.words].to(found.dtype)
        return found

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """The language model's tensors, by its own names, with what LoRA has learned added to them."""
        layers = _lora_layers(self.language_model)
        deltas = {f"{name}.base_layer.weight": layer.get_delta_weight("default") for name, layer in layers}
        found = {}
        for name, tensor in self.language_model.state_dict().items():
            if "lora_" not in name:
                added = tensor.float() + deltas[name].float() if name in deltas else tensor
                found[name.replace(".base_layer", "")] = added.to(tensor.dtype)
        return found

    def fold(self) -> None:
        """Add to the language model's matrices what LoRA has learned, for good: it is a plain one again."""
        for name, layer in _lora_layers(self.language_model):
            layer.merge()
            self.language_model.set_submodule(name, layer.get_base_layer())
        self.learned = nn.Module()
        self.learned.connector, self.sizes = self.connector, Sizes(self.sizes.inner, 0)
        self.language_model.eval().requires_grad_(False)

    def frozen_connector(self, dtype: torch.dtype) -> Connector | None:
        """The projector as it is now, for use."""
        if self.connector is None:
            return None
        return copy.deepcopy(self.connector).eval().requires_grad_(False).to("cpu", dtype)

    def save(self, file: Path) -> None:
        """Write what was learned (safetensors)."""
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: one.detach().contiguous() for name, one in self.learned.named_parameters()}, file)

    @torch.no_grad()
    def load(self, file: Path) -> None:
        """Read what :meth:`save` wrote."""
        tensors = load_file(file)
        for name, parameter in self.learned.named_parameters():
            parameter.copy_(tensors[name])


def with_places(prompt: Sequence[int], columns: Sequence[int], first: int, tokens: int) -> list[int]:
    """A prompt with places for its pictures.

    Args:
        prompt: its tokens.
        columns: for each picture the token in front of which it stands.
        first: the number of the first place.
        tokens: places of a picture.
    """
    found = list(prompt)
    for picture in reversed(range(len(columns))):
        found[columns[picture] : columns[picture]] = range(first + picture * tokens, first + (picture + 1) * tokens)
    return found


def _connector(config: WeaveConfig, inner: int) -> Connector:
    """A weave's connector with LLaVA-1.5's MLP of two layers in place of its projection."""
    made = Connector(
        config.memory_size,
        config.hidden_size,
        tokens=config.memory_tokens,
        layers=config.connector_layers,
        heads=config.connector_heads,
        feed_forward=config.connector_feed_forward,
        dropout=config.dropout,
    )
    ends = nn.Linear(config.memory_size, inner), nn.GELU(), nn.Linear(inner, config.hidden_size)
    made.proj = cast(Any, nn.Sequential(*ends))
    return made


def _put_lora(language_model: Any, rank: int, dropout: float) -> None:
    """Put LoRA on every matrix but the head."""
    from peft import LoraConfig, inject_adapter_in_model  # which takes memory, and is imported where it is needed

    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules="all-linear")
    inject_adapter_in_model(config, language_model)


def _lora_layers(language_model: Any) -> list[tuple[str, Any]]:
    """The matrices that LoRA is on, by name."""
    return [(name, one) for name, one in language_model.named_modules() if hasattr(one, "get_delta_weight")]


def _matrices(language_model: Any) -> list[nn.Linear]:
    """Those that LoRA can be put on: all but the head."""
    head = language_model.get_output_embeddings()
    return [one for one in language_model.modules() if isinstance(one, nn.Linear) and one is not head]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
