"""What charts and diagrams in Office files say: titles, labels and values, and the words in their shapes."""

from __future__ import annotations

from typing import Any

from weft.formats.package import Package, elements, local
from weft.formats.story import Story


def diagram(package: Package, name: str) -> list[str]:
    """The words in a diagram's shapes, in order."""
    return Story(package, name).blocks if name in package else []


def chart(package: Package, name: str) -> list[str]:
    """A chart's titles, and its values as a table: a row for each label, a column for each series."""
    if name not in package:
        return []
    root = package.root(name)
    lines = ["".join(_all(paragraph, "t")) for paragraph in elements(root, "p")]
    columns: list[tuple[str, list[str], list[str]]] = []
    for series in elements(root, "ser"):
        values = {local(child): _all(child, "v") for child in series}
        labels = values.get("cat") or values.get("xVal") or []
        columns.append((" ".join(values.get("tx", [])), labels, values.get("val") or values.get("yVal") or []))
    if columns:
        lines.append("\t".join(["", *(title for title, _, _ in columns)]).rstrip("\t"))
        for row in range(max(len(values) for _, _, values in columns)):
            label = next((labels[row] for _, labels, _ in columns if row < len(labels)), "")
            lines.append("\t".join([label, *(values[row] if row < len(values) else "" for _, _, values in columns)]))
    text = "\n".join(line for line in lines if line.strip())
    return [text] if text else []


def _all(root: Any, name: str) -> list[str]:
    return [element.text or "" for element in elements(root, name)]
