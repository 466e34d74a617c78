"""Files that are there in full or not at all, and what is wrong with those that can't be written or read.

:func:`whole` is given the name of a file and hands on another to write to, which takes its place when it is complete.
:func:`read_tensors` reads a safetensors file, and :func:`read_fields` a JSON file of settings, that may be damaged.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from weft.errors import PartError, WeftError


@contextmanager
def whole(path: Path, *, settled: bool = False) -> Iterator[Path]:
    """The file to write to in place of one that is to be there in full or not at all.

    Args:
        path: the file; its folder is made.
        settled: whether it is to be on the disk itself before it takes its place, so that a machine that loses its
            power keeps either the old file or the new one.

    Raises:
        WeftError: it can't be written; nothing of it is left.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if settled:
                _settle(partial)
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is there in full or not at all; errors as for :func:`whole`."""
    with whole(path) as partial:
        partial.write_bytes(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it, what keeps a file from being written is said in a sentence.

    Raises:
        WeftError: it can't be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise WeftError(
            f"{path} can't be written ({why}); make room, or give a folder that you may write to."
        ) from None


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed for it.

    Raises:
        WeftError: it is a folder, or can't be written.
    """
    if path.is_dir():
        raise WeftError(f"{path} is a folder; give the name of a file.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.touch()
        partial.unlink()


@contextmanager
def reading(path: Path, help: str) -> Iterator[None]:
    """Within it, what is wrong with files of a model that are read is said in a sentence.

    Args:
        path: the file, or their folder.
        help: what to do where one is damaged, as the end of a sentence.

    Raises:
        PartError: one is missing, cut off or otherwise damaged.
    """
    try:
        yield
    except (OSError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PartError(f"{path} {_damage(error)}; {help}") from None


def read_tensors(file: Path, help: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; arguments and errors as for :func:`reading`."""
    with reading(file, help):
        return load_file(file)


def read_fields(file: Path, help: str) -> dict[str, Any]:
    """The object in a JSON file of settings; arguments and errors as for :func:`reading`."""
    with reading(file, help):
        fields = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise PartError(f"{file} is damaged: it holds no object; {help}")
    return fields


def _damage(error: Exception) -> str:
    """What is wrong with a file, as the middle of a sentence."""
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, OSError):
        return f"can't be read ({error.strerror or error})"
    return "is damaged: it was cut off, or not written in full"


def _settle(file: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())
