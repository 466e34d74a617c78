"""Lets transformers learn of woven models whichever of the two packages is imported first.

Importing transformers takes a second or more, which ``import weft`` and the command line's ``--help`` should not cost;
and registering with it needs it imported. So the registration waits for whoever imports transformers first.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def register() -> None:
    """Make woven models known to transformers, unless Weft's own modules are just being imported."""
    if not any(_being_imported(name) for name in list(sys.modules) if name.startswith("weft.")):
        importlib.import_module("weft.auto")


def register_when_imported(package: str = "transformers") -> None:
    """Call :func:`register` as soon as a package is imported, or now if it is."""
    if package in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _Waiting(package))


def _being_imported(name: str) -> bool:
    return getattr(getattr(sys.modules[name], "__spec__", None), "_initializing", False)


class _Waiting(importlib.abc.MetaPathFinder):
    """Finds one package as anyone would, and registers once it has been executed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(importlib.abc.Loader):
    """A loader that registers afterwards."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        register()
