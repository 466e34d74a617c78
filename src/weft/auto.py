"""Makes woven models known to transformers: ``AutoConfig``, ``AutoProcessor``, ``AutoModelForImageTextToText``."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from weft.config import WeftConfig
from weft.model import WeftModel
from weft.processing import WeftProcessor

AutoConfig.register("weft", WeftConfig, exist_ok=True)
AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)
AutoModelForImageTextToText.register(WeftConfig, WeftModel, exist_ok=True)
