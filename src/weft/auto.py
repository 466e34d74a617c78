"""Makes woven models known to transformers' Auto classes."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from weft.config import WeftConfig
from weft.model import WeftModel
from weft.processing import WeftProcessor
from weft.woven_tokenizer import WeftTokenizer

AutoConfig.register("weft", WeftConfig, exist_ok=True)
AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)
AutoModelForImageTextToText.register(WeftConfig, WeftModel, exist_ok=True)
AutoModelForCausalLM.register(WeftConfig, WeftModel, exist_ok=True)
AutoTokenizer.register(WeftConfig, WeftTokenizer, exist_ok=True)
