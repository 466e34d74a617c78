"""Language models of many families, built small and at random from their real classes."""

from __future__ import annotations

import torch
from devices import DEVICE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

COMMON = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
GPT = {**COMMON, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
NEOX = {**COMMON, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

FAMILIES: dict[str, dict] = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "qwen3_moe": {**LLAMA, **MOE},
    "gemma2": {**LLAMA, "sliding_window": 8},
    "gemma3_text": {**LLAMA, "sliding_window": 8},
    "mistral": {**LLAMA, "sliding_window": None},
    "phi": LLAMA,
    "phi3": {**LLAMA, "pad_token_id": 0},
    "gpt2": GPT,
    "opt": {**NEOX, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128},
    "gpt_neox": {**NEOX, "max_position_embeddings": 128},
    "gptj": {**GPT, "rotary_dim": 4},
    "smollm3": LLAMA,
    "olmo2": LLAMA,
    "granite": LLAMA,
    "falcon": {**NEOX, "max_position_embeddings": 128},
    "bloom": {**COMMON, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "stablelm": LLAMA,
    "cohere": LLAMA,
    "mamba": {**COMMON, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8},
}
"""Configuration of each family, by its model type."""


def language_model(family: str, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A small random model of a family, in evaluation mode, on the device of the tests."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**FAMILIES[family], **changes})
    return AutoModelForCausalLM.from_config(config).eval().to(DEVICE)
