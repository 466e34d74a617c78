"""Small woven models for tests: random language models and encoders of real classes, and weaves that do something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from devices import DEVICE
from families import language_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ViTConfig, ViTImageProcessorPil, ViTModel

from weft.encoders import TransformersEncoder, VisionEncoder, encoder_from_model
from weft.making import weave
from weft.memory import Memory
from weft.model import WeftModel


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte of ASCII, and a plain chat template."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {chr(code): code for code in range(3, 127)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        chat_template="{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}",
    )


def encoder(width: int = 24, seed: int = 0, **options: Any) -> VisionEncoder:
    """A random ViT that makes nine patches of a picture of 24 by 24 pixels."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=24, patch_size=8
    )
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    return encoder_from_model(ViTModel(config, add_pooling_layer=False), processor, **options)


def parts_on_disk(folder: Path) -> tuple[Path, Path]:
    """A language model with its tokenizer, and an encoder, each in a folder of its own."""
    language_model("llama").save_pretrained(folder / "lm")
    tokenizer().save_pretrained(folder / "lm")
    encoder().save_pretrained(folder / "vit")
    return folder / "lm", folder / "vit"


def woven(family: str | PreTrainedModel = "llama", *, opened: bool = True, seed: int = 0, **options: Any) -> WeftModel:
    """A small woven model; with ``opened`` its weave does what one that has learned does: change the logits."""
    base = language_model(family, seed) if isinstance(family, str) else family
    torch.manual_seed(seed + 1)
    options = {"start": 1, "every": 1, "feed_forward": 16, **options}
    model = weave(base, vision=encoder(seed=seed), **options).eval().to(base.device)
    return open_weave(model, options.get("name", "photos")) if opened else model


@torch.no_grad()
def open_weave(model: WeftModel, name: str = "photos", seed: int = 7) -> WeftModel:
    """Give a weave random weights."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.weaves[name].parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * 0.3 if parameter.ndim > 1 else 1 + 0.1 * noise)
    return model


def memory(items: int = 2, tokens: int = 9, width: int = 24, seed: int = 3) -> Memory:
    """Random features, on the device of the tests."""
    features = torch.randn(items, tokens, width, generator=torch.Generator().manual_seed(seed))
    return Memory(features.to(DEVICE), ())


def begin_tokenizer() -> PreTrainedTokenizerFast:
    """The same with a token that begins every passage."""
    made = tokenizer()
    made.bos_token = "<s>"
    return made


def reader(family: str | PreTrainedModel = "llama", *, opened: bool = True, seed: int = 0, **options: Any) -> WeftModel:
    """A small woven model that reads texts by itself; with ``opened`` its weave does what one that has learned does."""
    base = language_model(family, seed) if isinstance(family, str) else family
    torch.manual_seed(seed + 1)
    options = {"start": 1, "every": 1, "copy_width": 16, "tokenizer": begin_tokenizer(), **options}
    model = weave(base, text="language-model", **options).eval().to(base.device)
    return open_weave(model, options.get("name", "reader")) if opened else model


class NamingEncoder(TransformersEncoder):
    """An encoder that was trained with a classifier: of its four classes, two are the same animal."""

    NOUNS = ("cat", "cup", "dog", "dog")

    def __init__(self, plain: VisionEncoder) -> None:
        super().__init__(plain.model, plain.processor, id=plain.id, sha256=plain.sha256)
        self.head = nn.Linear(plain.width, len(self.NOUNS))
        nn.init.normal_(self.head.weight, std=0.5, generator=torch.Generator().manual_seed(5))
        self.head.requires_grad_(False)

    @property
    def classifier(self) -> tuple[nn.Linear, list[str]]:
        return self.head, list(self.NOUNS)


def naming(family: str | PreTrainedModel = "llama", *, opened: bool = True, seed: int = 0, **options: Any) -> WeftModel:
    """A small woven model that reads, and may copy, the names of what its pictures show."""
    base = language_model(family, seed) if isinstance(family, str) else family
    torch.manual_seed(seed + 1)
    options = {"start": 1, "every": 1, "feed_forward": 16, "copy_width": 16, "labels": "encoder", **options}
    model = weave(base, vision=NamingEncoder(encoder(seed=seed)), tokenizer=tokenizer(), **options).eval()
    return open_weave(model, options.get("name", "photos")) if opened else model
