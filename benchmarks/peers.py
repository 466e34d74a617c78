"""What people would use instead: llama.cpp, and models with eyes at the geometry of the default language model.

The models with eyes have random weights: their time does not depend on what they have learned. llama.cpp runs in a
process of its own, with the file of the default language model in four bits.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 49_280
"""The default language model's, and places for what the peers add."""

_LLAMA = """
import json, sys, time
from llama_cpp import Llama
file, threads, prompt, tokens = sys.argv[1], *map(int, sys.argv[2:])
model = Llama(file, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
ids = list(range(100, 100 + prompt))
model.eval(ids)
model.reset()
started = time.perf_counter()
model.eval(ids)
first = time.perf_counter() - started
started = time.perf_counter()
for number in range(tokens):
    model.eval([200 + number])
print(json.dumps([1000 * first, 1000 * (time.perf_counter() - started) / tokens]))
"""


def llama_cpp(python: Path, file: Path, threads: int, prompt: int, tokens: int) -> tuple[float, float]:
    """Milliseconds to read a prompt, and then for each token.

    Args:
        python: interpreter of the environment in which llama-cpp-python is installed.
        file: the language model as GGUF.
        threads: threads that it may use.
        prompt: tokens of the prompt.
        tokens: tokens to decode.
    """
    command = [str(python), "-c", _LLAMA, str(file), str(threads), str(prompt), str(tokens)]
    first, each = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return first, each


def text_geometry(**more: Any) -> dict[str, Any]:
    """The default language model's geometry."""
    return {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192,
        **more,
    }


def smolvlm() -> Callable[[], Any]:
    """The first token of SmolVLM-256M's geometry about one tile of 512 by 512 pixels, which become 64 tokens."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    text = {"model_type": "llama", **text_geometry()}
    config = Idefics3Config(vision_config=vision, text_config=text, scale_factor=4, image_token_id=VOCABULARY - 1)
    model = Idefics3ForConditionalGeneration(config).to(torch.bfloat16).eval()
    ids = torch.cat((torch.full((1, 64), VOCABULARY - 1), torch.arange(100, 116)[None]), 1)
    pixels = torch.randn(1, 1, 3, 512, 512, dtype=torch.bfloat16)
    options = {"max_new_tokens": 1, "do_sample": False}
    return lambda: model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, **options)


def mllama() -> Callable[[], Any]:
    """The first token of Mllama with the default language model's geometry, 8 cross-attention layers and a ViT-B."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_global_layers": 1,
        "attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
        "max_num_tiles": 1,
        "intermediate_layers_indices": [3, 7],
        "vision_output_dim": 768 * 3,
        "supported_aspect_ratios": [[1, 1]],
    }
    text = text_geometry(cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 37], num_hidden_layers=38, pad_token_id=0)
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=VOCABULARY - 1)
    model = MllamaForConditionalGeneration(config).to(torch.bfloat16).eval()
    ids = torch.cat((torch.full((1, 1), VOCABULARY - 1), torch.arange(100, 116)[None]), 1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 1, 1, 3, 224, 224, dtype=torch.bfloat16),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, 1, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, ids.shape[1], 1, 1, dtype=torch.long),
    }
    return lambda: model.generate(**inputs, max_new_tokens=1, do_sample=False)
