"""Words about a picture from a cold process: what ``model.caption`` says, without importing transformers.

Importing transformers takes longer than captioning a photo. For woven models whose language model is a plain Llama,
:class:`Quick` reads the same files, runs the same connector and fusion layers, and computes the decoder in
:class:`Decoder`, identical to transformers' ``LlamaForCausalLM`` in evaluation except for rounding.
:func:`quick` hands on None for every other model, which is then loaded as usual; the tests hold the two to the same
words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from weft.batch import BatchMemory, arrange
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.images import load_image, picture_name
from weft.memory import Placement
from weft.parts import ENCODERS, LANGUAGE_MODEL, WEIGHTS, resolve_named
from weft.rendering import about_a_picture, render
from weft.tasks import LONGEST, Caption
from weft.weaving import Weave, WeaveConfig

Template = Callable[[list[dict[str, str]]], str]
"""What makes a text of messages."""
Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of the text so far for each decoder layer, ``[B, kv_heads, T, head_dim]``."""


def quick(folder: Path) -> Quick | None:
    """A woven model for words about pictures; None where it may be more than this module knows: not a plain Llama, set
    to generate in ways of its own, quantized, with several weaves, or with a chat template that asks for much.

    Args:
        folder: what ``save_pretrained`` wrote.

    Raises:
        PartError: a frozen part can't be found, or is not the right one.
    """
    files = [folder / name for name in ("config.json", "processor_config.json", WEIGHTS)]
    if not all(file.is_file() for file in files):
        return None
    config = json.loads(files[0].read_text(encoding="utf-8"))
    text = config.get("text_config") or {}
    plain = {
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "quantization_config": None,
    }
    if any(text.get(name) != value for name, value in plain.items()) or len(config.get("weaves", {})) != 1:
        return None
    if (text.get("rope_parameters") or {}).get("rope_type") != "default" or not isinstance(text["eos_token_id"], int):
        return None
    part = resolve_named(folder / LANGUAGE_MODEL, config["language_model"], "language model").path
    needed = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", WEIGHTS)
    if not all((part / name).is_file() for name in needed) or not _generates_plainly(part, text["eos_token_id"]):
        return None
    template = _template(part)
    if template is None:
        return None
    return Quick(folder, config, json.loads(files[1].read_text(encoding="utf-8")), part, template)


def _generates_plainly(part: Path, end: int) -> bool:
    """Whether a language model's own settings for generation are transformers' defaults."""
    file = part / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    usual = {
        "_from_model_config",
        "bos_token_id",
        "eos_token_id",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "transformers_version",
        "use_cache",
    }
    return set(settings) <= usual and settings.get("eos_token_id", end) == end


class Quick:
    """A woven model that captions and titles one picture at a time.

    Args:
        folder: what ``save_pretrained`` wrote.
        config: its ``config.json``.
        processor: its ``processor_config.json``.
        part: the folder of its language model.
        template: its chat template.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], processor: dict[str, Any], part: Path, template: Template
    ) -> None:
        from tokenizers import Tokenizer

        (name, fields), dtype = next(iter(config["weaves"].items())), getattr(torch, config["dtype"])
        self.text = config["text_config"]
        self.decoder = Decoder(self.text, load_file(part / WEIGHTS), dtype)
        self.tokenizer = Tokenizer.from_file(str(part / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.template = template
        self.system_prompt = processor["system_prompt"]
        encoder = resolve_named(folder / ENCODERS / name, fields["encoder"], f"encoder of the weave {name!r}")
        self.encoder: VisionEncoder = load_vision_encoder(encoder)
        self.weave = Weave(name, WeaveConfig(**fields))
        learned = load_file(folder / WEIGHTS).items()
        self.weave.load_state_dict({key.removeprefix(f"weaves.{name}."): t for key, t in learned}, assign=True)
        self.weave.eval()

    @torch.inference_mode()
    def say(self, picture: Any, instruction: str, *, beams: int = 3) -> Caption:
        """Follow an instruction about a picture, as :meth:`weft.tasks.Tasks.say` does.

        Raises:
            PictureError: the picture can't be read.
        """
        read = self.weave.read(self.encoder.encode([load_image(picture)]))
        rendered = render(about_a_picture(instruction), self.template, self.system_prompt)
        encoded = self.tokenizer.encode(rendered.text, add_special_tokens=False)
        column = rendered.columns([begin for begin, _ in encoded.offsets])[0]
        placed = arrange(read, Placement.of([[(0, column)]]), self.weave.config.sees)
        assert placed is not None
        found = self._search(encoded.ids, placed, beams)
        return Caption(self.tokenizer.decode(list(found.tokens)).strip(), picture_name(picture), found.total)

    def _search(self, prompt: list[int], memory: BatchMemory, beams: int) -> _Beam:
        """The best continuation: beam search with a length penalty of one, as transformers has it; greedy for one."""
        end, cache = self.text["eos_token_id"], Cache()
        memory = memory.repeat_rows(beams)
        logits = self.decoder(torch.tensor([prompt] * beams), cache, self.weave, memory)[:1]
        running, finished = [_Beam((), 0.0)], list[_Beam]()
        memory = memory.after_prompt()
        for length in range(1, LONGEST + 1):
            chances = logits.float().log_softmax(-1) + torch.tensor([beam.total for beam in running])[:, None]
            best = chances.flatten().topk(1 if beams == 1 else 2 * beams)
            tried = [
                (*divmod(place, chances.shape[1]), total)
                for place, total in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
            ended = [(row, total) for row, token, total in tried[:beams] if token == end]
            finished += [_Beam(running[row].tokens, total, length) for row, total in ended]
            finished = sorted(finished, key=lambda beam: -beam.score)[:beams]
            open_ = torch.tensor([-1e9 if token == end else total for _, token, total in tried])
            going = [tried[index] for index in open_.topk(beams).indices.tolist() if tried[index][1] != end]
            running = [_Beam((*running[row].tokens, token), total, length) for row, token, total in going]
            if not running or (len(finished) == beams and running[0].score <= finished[-1].score):
                break
            parents = torch.tensor([row for row, _, _ in going])
            cache[:] = [(keys[parents], values[parents]) for keys, values in cache]
            tokens = torch.tensor([[token] for _, token, _ in going])
            logits = self.decoder(tokens, cache, self.weave, memory)
        return max(finished + (running if length == LONGEST else []), key=lambda beam: beam.score)


@dataclass(frozen=True)
class _Beam:
    """A continuation, the log-probability of its tokens together, and how many those are, the ending one included."""

    tokens: tuple[int, ...]
    total: float
    length: int = 0

    @property
    def score(self) -> float:
        return self.total / self.length


class Decoder:
    """The Llama decoder (Touvron et al. 2023) over plain tensors, for inference.

    Args:
        config: the language model's configuration.
        weights: its tensors, by the names that transformers gives them.
        dtype: floating-point type to compute in.
    """

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.config = config
        self.weights = {name.removeprefix("model."): tensor.to(dtype) for name, tensor in weights.items()}
        width = config["head_dim"]
        self.frequencies = 1 / config["rope_parameters"]["rope_theta"] ** (torch.arange(0, width, 2) / width)

    def __call__(
        self, ids: Int[Tensor, "B T"], cache: Cache, weave: Weave, memory: BatchMemory
    ) -> Float[Tensor, "B V"]:
        """Logits after the last token.

        Args:
            ids: the tokens that follow those in the cache.
            cache: grows by them; empty at first.
            weave: the fusion layers through which the text reads.
            memory: what it reads.
        """
        past = cache[0][0].shape[2] if cache else 0
        columns = torch.arange(past, past + ids.shape[1])
        visible = memory.visible(columns)
        fusions = {layer: index for index, layer in enumerate(weave.config.layers)}
        hidden = F.embedding(ids, self.weights["embed_tokens.weight"])
        angles = torch.outer(columns.float(), self.frequencies).repeat(1, 2)
        turn = (angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype))
        for layer in range(self.config["num_hidden_layers"]):
            if layer in fusions:
                hidden = memory.fuse(weave.fusion(fusions[layer]), fusions[layer], hidden, visible)
            name = f"layers.{layer}"
            hidden = hidden + self._attend(self._norm(hidden, f"{name}.input_layernorm"), name, layer, cache, turn)
            x = self._norm(hidden, f"{name}.post_attention_layernorm")
            inner = F.silu(self._linear(x, f"{name}.mlp.gate_proj")) * self._linear(x, f"{name}.mlp.up_proj")
            hidden = hidden + self._linear(inner, f"{name}.mlp.down_proj")
        return F.linear(self._norm(hidden[:, -1], "norm"), self.weights["embed_tokens.weight"])

    def _attend(self, x: Tensor, name: str, layer: int, cache: Cache, turn: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = (
            self._linear(x, f"{name}.self_attn.{one}_proj").unflatten(-1, (-1, self.config["head_dim"])).transpose(1, 2)
            for one in "qkv"
        )
        query, key = _rotate(query, *turn), _rotate(key, *turn)
        if len(cache) == layer:
            cache.append((key, value))
        else:
            cache[layer] = tuple(torch.cat(pair, 2) for pair in zip(cache[layer], (key, value), strict=True))  # type: ignore[assignment]
        keys, values = cache[layer]
        causal = query.shape[2] > 1  # the prompt; afterwards each row asks with one token, which sees all before it
        looked = F.scaled_dot_product_attention(query, keys, values, is_causal=causal, enable_gqa=True)
        return self._linear(looked.transpose(1, 2).flatten(2), f"{name}.self_attn.o_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """RMS norm in float32, as transformers computes it."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return self.weights[f"{name}.weight"] * wide.to(x.dtype)


def _rotate(x: Float[Tensor, "B heads T D"], cos: Float[Tensor, "T D"], sin: Float[Tensor, "T D"]) -> Tensor:
    """Rotary positions (Su et al. 2021)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def _template(part: Path) -> Template | None:
    """The chat template of a tokenizer, as a function of messages that ends where the assistant is to speak.

    None where it uses what is transformers' own.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    settings = json.loads((part / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {name: value for name, value in settings.items() if name.endswith("_token")}
    if not all(isinstance(value, (str, type(None))) for value in special.values()):
        return None
    special |= {"tools": None, "documents": None}

    def apply(messages: list[dict[str, str]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True, **special)

    try:
        template = environment.from_string((part / "chat_template.jinja").read_text(encoding="utf-8"))
        apply([{"role": "system", "content": ""}, {"role": "user", "content": "?"}])
    except TemplateError:
        return None
    return apply
