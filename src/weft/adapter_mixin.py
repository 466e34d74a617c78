"""What transformers asks of a model about adapters, asked of the language model, where a woven model's are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.adapter_files import put_adapter
from weft.adapters import (
    DEFAULT,
    active_adapters,
    put_new_adapter,
    remove_adapter,
    switch_adapters,
    use_adapters,
    without_wrapper,
)


class AdapterMixin:
    """Adapters of a woven model: those of its language model, saved with it and loaded with it.

    They are PEFT's, and are not looked for in the weaves, which learn by themselves.
    """

    language_model: Any

    def load_adapter(
        self, peft_model_id: str | Path, adapter_name: str = DEFAULT, *, is_trainable: bool = False
    ) -> None:
        """Put an adapter that PEFT has written in place, made on the language model or on the woven model.

        Args:
            peft_model_id: its folder, or a Hub id.
            adapter_name: what to call it.
            is_trainable: whether it learns on.

        Raises:
            PartError: it is missing, or was made for another model.
            WeftError: there is one of this name, or PEFT is not installed.
        """
        put_adapter(without_wrapper(self.language_model), peft_model_id, adapter_name, learns=is_trainable)

    def add_adapter(self, adapter_config: Any, adapter_name: str = DEFAULT) -> None:
        """Put a new adapter of PEFT's in place, to be learned.

        Raises:
            WeftError: the language model can't have it; the message says why.
        """
        put_new_adapter(without_wrapper(self.language_model), adapter_config, adapter_name)

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Let these adapters have a say, and no others.

        Raises:
            WeftError: there is none of this name.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        use_adapters(without_wrapper(self.language_model), names)

    def active_adapters(self) -> list[str]:
        """The adapters that have a say."""
        return active_adapters(without_wrapper(self.language_model))

    def enable_adapters(self) -> None:
        """Let adapters have a say."""
        switch_adapters(without_wrapper(self.language_model), True)

    def disable_adapters(self) -> None:
        """Compute without adapters, which stay in place."""
        switch_adapters(without_wrapper(self.language_model), False)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Take adapters away.

        Raises:
            WeftError: there is none of this name.
        """
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            remove_adapter(without_wrapper(self.language_model), name)
