"""What people would use instead: llama.cpp, and other models with eyes.

The models with eyes have random weights: their time does not depend on what they have learned. Those that have a
decoder of Llama's kind are given the geometry of the default language model; the others keep their own.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from measuring import QUICK, seconds

VOCABULARY = 49_280
"""The default language model's, and places for what the peers add."""
PROMPT = 16
"""Tokens of a prompt."""
TOKENS = 64
"""Tokens that are decoded."""


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp in an environment of its own, with the file of the default language model in four bits.

    Attributes:
        folder: the environment.
        threads: threads that it may use.
    """

    folder: Path
    threads: int

    def measure(self, rows: int, prompt: int = PROMPT) -> dict[str, float]:
        """Milliseconds for a prompt, and a step, of some rows, and memory at its peak in MB, all of a new process.

        Raises:
            RuntimeError: it isn't there, or can't run on this processor.
        """
        files = list(self.folder.rglob("*.gguf"))
        if not files:
            raise RuntimeError(f"{self.folder} holds no language model; see the Makefile")
        script = Path(__file__).with_name("llama_steps.py")
        sizes = {"rows": rows, "threads": self.threads, "prompt": prompt, "steps": TOKENS}
        options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        command = [str(self.folder / "bin" / "python"), str(script), str(files[0]), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode < 0:
            raise RuntimeError(f"ended by {signal.Signals(-done.returncode).name}")
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        return json.loads(done.stdout)

    def step(self, rows: int) -> Callable[[], float]:
        """Something that runs and says how many milliseconds a step of some rows took."""
        return lambda: self.measure(rows)["step"]

    def prompt(self, tokens: int) -> Callable[[], float]:
        """The same for a prompt of so many tokens, of one row."""
        return lambda: self.measure(1, tokens)["prompt"]


@dataclass(frozen=True)
class Eyes:
    """A model with eyes, and a photo with the question about it.

    Attributes:
        model: the model.
        inputs: what it generates from.
    """

    model: Any
    inputs: dict[str, Any]

    def say(self, tokens: int) -> float:
        """Milliseconds to so many tokens about the photo."""
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        return 1000 * seconds(lambda: self.model.generate(**self.inputs, **options))


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


def vision_geometry(**more: Any) -> dict[str, Any]:
    """A ViT-B's geometry."""
    return {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "patch_size": 16, **more}


def question(first: int) -> torch.Tensor:
    """Tokens that stand for a picture, and a prompt."""
    return torch.cat((torch.full((1, first), VOCABULARY - 1), torch.arange(100, 100 + PROMPT)[None]), 1)


def made(kind: Any, config: Any) -> Any:
    """A model with random weights, none of which has ever been in another type: its memory is measured as well."""
    torch.set_default_dtype(QUICK)
    try:
        return kind(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def smolvlm(tiles: int) -> Eyes:
    """SmolVLM-256M about a photo in tiles of 512 by 512 pixels, of which each becomes 64 tokens."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    vision = vision_geometry(num_attention_heads=12, image_size=512)
    text = {"model_type": "llama", **text_geometry()}
    config = Idefics3Config(vision_config=vision, text_config=text, scale_factor=4, image_token_id=VOCABULARY - 1)
    ids = question(64 * tiles)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, tiles, 3, 512, 512, dtype=QUICK),
    }
    return Eyes(made(Idefics3ForConditionalGeneration, config), inputs)


def mllama() -> Eyes:
    """Mllama with the default language model's geometry, 8 cross-attention layers and a ViT-B."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    vision = vision_geometry(
        num_global_layers=1,
        attention_heads=12,
        image_size=224,
        max_num_tiles=1,
        intermediate_layers_indices=[3, 7],
        vision_output_dim=768 * 3,
        supported_aspect_ratios=[[1, 1]],
    )
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = text_geometry(cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 37], num_hidden_layers=38, **ends)
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=VOCABULARY - 1)
    ids = question(1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 1, 1, 3, 224, 224, dtype=QUICK),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, 1, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, ids.shape[1], 1, 1, dtype=torch.long),
    }
    return Eyes(made(MllamaForConditionalGeneration, config), inputs)


def encoder_decoder() -> Eyes:
    """A ViT-B whose patches every layer of a GPT-2 looks at, of which captioners are made; it takes no question."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    vision = ViTConfig(**vision_geometry(num_attention_heads=12, image_size=224))
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, GPT2Config())
    model = made(VisionEncoderDecoderModel, config)
    model.generation_config.decoder_start_token_id = model.generation_config.pad_token_id = 0
    return Eyes(model, {"pixel_values": torch.randn(1, 3, 224, 224, dtype=QUICK)})


def blip() -> Eyes:
    """BLIP base, a captioner: a ViT-B at 384 by 384 pixels, and a BERT-B that decodes; it takes no question."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    vision = vision_geometry(num_attention_heads=12, image_size=384)
    config = BlipConfig(text_config={"encoder_hidden_size": 768}, vision_config=vision)
    model = made(BlipForConditionalGeneration, config)
    return Eyes(model, {"pixel_values": torch.randn(1, 3, 384, 384, dtype=QUICK)})


EYES: dict[str, Callable[[], Eyes]] = {
    "Mllama at this geometry": cache(mllama),
    "SmolVLM-256M's geometry, a photo in one tile": cache(lambda: smolvlm(1)),
    "VisionEncoderDecoder, ViT-B and GPT-2": cache(encoder_decoder),
    "BLIP base": cache(blip),
}
"""Models with eyes, each made when it is first asked for."""
