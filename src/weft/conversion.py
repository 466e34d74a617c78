"""Converts a frozen part's original file to a folder as transformers writes them: safetensors, and no pickles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path


def convert_language_model(source: Path, target: Path) -> None:
    """GGUF to bfloat16 safetensors, tokenizer included."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def convert_vision_encoder(source: Path, target: Path) -> None:
    """A state dict in a pickle, of which nothing but tensors is read, to safetensors."""
    import torch
    from safetensors.torch import save_file

    state = torch.load(source, map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps({"model_type": "efficientnet-lite2"}) + "\n", encoding="utf-8")


def copy_sentence_encoder(source: Path, target: Path) -> None:
    """It is a folder as transformers writes them already."""
    for file in source.parent.iterdir():
        if file.suffix in (".json", ".txt", ".safetensors"):
            shutil.copy(file, target)


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "language model": convert_language_model,
    "vision encoder": convert_vision_encoder,
    "sentence encoder": copy_sentence_encoder,
}
"""What to do with each kind of part: from its file, into a folder."""
