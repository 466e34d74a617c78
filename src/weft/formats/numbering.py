"""The numbers of numbered paragraphs in Word files: lists, headings, clauses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from weft.formats.numerals import numeral
from weft.formats.package import Package, attribute, local


@dataclass
class Level:
    """How one level of a list is numbered: from where, in which numerals, within which text (``%1.%2``)."""

    start: int = 1
    kind: str = "decimal"
    text: str = ""
    legal: bool = False


@dataclass
class Style:
    """What a paragraph's style says of it: its numbering, the style that it stands on, and whether it is hidden."""

    base: str = ""
    number: str | None = None
    level: int | None = None
    hidden: bool = False


@dataclass
class Numbering:
    """The lists of a document, and how far each has been counted.

    Attributes:
        lists: of each list's id, its levels.
        shared: of each list's id, the id of what it counts together with.
        styles: the styles of paragraphs and characters.
    """

    lists: dict[str, dict[int, Level]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    styles: dict[str, Style] = field(default_factory=dict)
    _counts: dict[str, dict[int, int]] = field(default_factory=dict)
    _restarted: set[tuple[str, int]] = field(default_factory=set)
    _overridden: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, package: Package, main: str) -> Numbering:
        """The lists and styles of a Word file."""
        self = cls()
        names = {kind: name for kind, name in package.related(main).values() if name in package}
        if "styles" in names:
            for element in package.root(names["styles"]):
                if local(element) == "style":
                    self.styles[attribute(element, "styleId")] = _style(element)
        if "numbering" in names:
            self._read(package.root(names["numbering"]))
        return self

    def _read(self, root: Any) -> None:
        abstract: dict[str, dict[int, Level]] = {}
        links: dict[str, str] = {}
        for element in root:
            if local(element) == "abstractNum":
                name = attribute(element, "abstractNumId")
                levels = [child for child in element if local(child) == "lvl"]
                abstract[name] = {_number(level, "ilvl"): _level(level) for level in levels}
                links.update((name, _value(child)) for child in element if local(child) == "numStyleLink")
        for element in root:
            if local(element) != "num":
                continue
            name = attribute(element, "numId")
            origin = next((_value(child) for child in element if local(child) == "abstractNumId"), "")
            levels_ = dict(abstract.get(origin, {}))
            for override in (child for child in element if local(child) == "lvlOverride"):
                at = _number(override, "ilvl")
                for child in override:
                    if local(child) == "lvl":
                        levels_[at] = _level(child)
                    elif local(child) == "startOverride":
                        old = levels_.get(at, Level())
                        levels_[at] = Level(_number(child, "val", 1), old.kind, old.text, old.legal)
                        self._overridden.setdefault(name, set()).add(at)
            self.lists[name], self.shared[name] = levels_, origin
        for name, origin in self.shared.items():
            if origin in links:  # its levels are those of the list that a style names
                target = self.styles.get(links[origin], Style()).number or ""
                self.lists[name] = self.lists[name] or self.lists.get(target, {})

    def mark(self, number: str | None, level: int | None, style: str) -> str:
        """What stands before a paragraph, which is counted by that; empty for one without a number.

        Args:
            number: the id of its list, if it names one itself.
            level: its level, if it names one itself.
            style: its style, whose list it is in otherwise.
        """
        seen: set[str] = set()
        while (number is None or level is None) and style in self.styles and style not in seen:
            seen.add(style)
            number = self.styles[style].number if number is None else number
            level = self.styles[style].level if level is None else level
            style = self.styles[style].base
        level = level or 0
        how = self.lists.get(number or "", {}).get(level)
        if number is None or how is None or how.kind == "none":
            return ""
        counts = self._counts.setdefault(self.shared[number], {})
        if level in self._overridden.get(number, ()) and (number, level) not in self._restarted:
            self._restarted.add((number, level))
            counts.pop(level, None)
        counts[level] = counts[level] + 1 if level in counts else how.start
        for deeper in [other for other in counts if other > level]:
            del counts[deeper]
        if how.kind == "bullet":
            return "- "
        levels = self.lists[number]

        def counted(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            one = levels.get(at, Level())
            kind = "decimal" if how.legal and at != level else one.kind
            return numeral(counts.get(at, one.start), kind)

        written = re.sub(r"%(\d)", counted, how.text).strip()
        return f"{written} " if written else ""


def _value(element: Any) -> str:
    return attribute(element, "val")


def _number(element: Any, name: str, default: int = 0) -> int:
    value = attribute(element, name)
    return int(value) if re.fullmatch(r"-?\d{1,9}", value) else default


def _level(element: Any) -> Level:
    level = Level(start=0)
    for child in element:
        if local(child) == "start":
            level.start = _number(child, "val")
        elif local(child) == "numFmt":
            level.kind = _value(child)
        elif local(child) == "lvlText":
            level.text = _value(child)
        elif local(child) == "isLgl":
            level.legal = is_on(child)
    return level


def _style(element: Any) -> Style:
    style = Style()
    for child in element:
        if local(child) == "basedOn":
            style.base = _value(child)
        elif local(child) == "pPr":
            style.number, style.level = list_of(child)
        elif local(child) == "rPr":
            style.hidden = any(local(one) == "vanish" and is_on(one) for one in child)
    return style


def list_of(properties: Any) -> tuple[str | None, int | None]:
    """The list that a paragraph's properties name, and its level."""
    number = level = None
    for child in properties:
        if local(child) == "numPr":
            for one in child:
                if local(one) == "numId":
                    number = _value(one)
                elif local(one) == "ilvl":
                    level = _number(one, "val")
    return number, level


def is_on(element: Any) -> bool:
    """Whether a switch is on: it is there, and not said to be off."""
    return attribute(element, "val", "true") not in ("false", "0", "off", "none")
