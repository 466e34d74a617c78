"""What a woven model stands on and what was woven, as transformers keeps it: ``config.json``."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig


class WeftConfig(PreTrainedConfig):
    """What a woven model stands on and what was woven.

    Args:
        text_config: the language model's own configuration.
        language_model: the frozen language model: ``{"id": ..., "sha256": ...}``.
        weaves: for each weave, by name, the fields of a :class:`~weft.weaving.WeaveConfig`.
    """

    model_type = "weft"
    has_no_defaults_at_init = True

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        language_model: dict[str, str] | None = None,
        weaves: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.language_model = language_model or {}
        weaves = weaves or {}
        order = kwargs.pop("order", None) or list(weaves)  # JSON is written with its keys sorted
        self.weaves = {name: weaves[name] for name in order}
        super().__init__(**kwargs)

    @property
    def keys_to_ignore_at_inference(self) -> list[str]:
        """What trainers do not gather of outputs when they evaluate: as of the language model's, and caches."""
        return [*getattr(self.text_config, "keys_to_ignore_at_inference", ()), "cache"]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; the folder a language model was loaded from is nobody else's business."""
        fields = super().to_dict()
        fields["order"] = list(self.weaves)
        if isinstance(fields.get("text_config"), dict):
            fields["text_config"].pop("_name_or_path", None)
        return fields
