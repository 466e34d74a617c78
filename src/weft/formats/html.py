"""Pages of HTML as browsers show them.

The tokens are those of the HTML standard (libxml2 2.14, through lxml), read one after the other without a tree, so
that time and memory grow with the page alone, however deep it is. What a browser hides is left out: scripts, styles,
templates, what is ``hidden`` or not displayed by its own style. The text in place of a picture (``alt``) is read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from contextlib import suppress

from weft.characters import superscript
from weft.charsets import Decoded, decode
from weft.formats.flow import BLOCK, LINE, SPACE, Flow
from weft.formats.numerals import BY_SIGN, numeral

_BLOCKS = frozenset(
    """address article aside blockquote body caption center details dialog div dl fieldset figcaption figure footer
    form frameset h1 h2 h3 h4 h5 h6 header hgroup hr html main menu nav noframes ol p plaintext pre search section
    table ul xmp""".split()  # noqa: SIM905
)
_LINES = frozenset("dd dt legend option optgroup summary tbody tfoot thead".split())  # noqa: SIM905
_APART = frozenset("button input meter progress select textarea".split())  # noqa: SIM905
_VERBATIM = frozenset("listing plaintext pre textarea xmp".split())  # noqa: SIM905
_LEFT_OUT = frozenset(
    """annotation annotation-xml area audio canvas datalist defs desc embed iframe link meta metadata noembed
    noscript object param rp script source style template track video""".split()  # noqa: SIM905
)
_BETWEEN = {"mfrac": "/", "msup": "^", "msub": "_"}
"""What stands between the two parts of an element of MathML."""
_STYLED_AWAY = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))\b", re.IGNORECASE)
_DECLARED = re.compile(
    rb"""<meta[^>]*?charset\s*=\s*["']?\s*([\w.:-]+) | <\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE | re.VERBOSE,
)


def page_text(markup: str) -> str:
    """What a page says: its title, unless it begins with that anyway, and what it shows."""
    from lxml import etree

    page = _Page()
    parser = etree.HTMLParser(target=page, huge_tree=True, remove_comments=True, remove_pis=True)
    if markup.strip():
        parser.feed(re.sub(r"^\s*<\?xml[^>]*\?>", "", markup))
        parser.close()
    title, body = " ".join("".join(page.title).split()), str(page.flow).strip("\n ")
    return f"{title}\n\n{body}".strip() if title and not body.startswith(title) else body


def markup(data: bytes) -> Decoded:
    """A page's bytes as text: in the encoding that it declares, if that fits it, or else in what fits it best.

    Raises:
        DataError: they are no text.
    """
    import webencodings

    declared = _DECLARED.search(data[:4096])
    encoding = webencodings.lookup((declared[1] or declared[2]).decode("ascii")) if declared else None
    if encoding is not None and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        # Who can read the declaration as ASCII does not have UTF-16, whatever it says (HTML standard 13.2.3.2).
        codec = codecs.lookup("utf-8") if encoding.name.startswith("utf-16") else encoding.codec_info
        with suppress(UnicodeDecodeError):
            return Decoded(codec.decode(data)[0])
    return decode(data)


class _Page:
    """A page as lxml tells of it, token by token."""

    def __init__(self) -> None:
        self.flow, self.title = Flow(), list[str]()
        self.hidden = 0  # elements that are open, from the outermost hidden one on
        self.open: list[str] = []
        self.verbatim = self.foreign = 0
        self.lists: list[tuple[str, int]] = []  # of each open list: how it counts, and the number that comes next
        self.raised: list[list[str]] = []
        self.operands: list[int] = []  # of each open fraction or power of MathML, how many parts it has had
        self.naming = False
        self.begun = False  # whether a verbatim element has just begun

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self.hidden or self._hides(tag, attributes):
            self.hidden += 1
            return
        flow = self.flow
        if self.open and self.open[-1] in _BETWEEN:
            self.operands[-1] += 1
            flow.words(_BETWEEN[self.open[-1]] if self.operands[-1] == 2 else "")
        self.open.append(tag)
        if tag in _BETWEEN:
            self.operands.append(0)
        if tag == "title":
            self.naming = True
        elif tag == "br":
            flow.line_end()
        elif tag == "table":
            flow.table()
        elif tag == "tr":
            flow.row()
        elif tag in ("td", "th"):
            flow.cell()
        elif tag == "li":
            flow.item(self._mark(attributes))
        elif tag in ("ol", "ul", "menu"):
            flow.apart(LINE if self.lists else BLOCK)
            start = attributes.get("start", "")
            kind = BY_SIGN.get(attributes.get("type", "1"), "decimal") if tag == "ol" else ""
            self.lists.append((kind, int(start) if re.fullmatch(r"-?\d{1,9}", start) else 1))
        else:
            self._apart(tag)
        if tag in _VERBATIM:
            self.verbatim += 1
            self.begun = True
        elif tag in ("svg", "math"):
            self.foreign += 1
        elif tag in ("sup", "sub"):
            self.raised.append([])
        elif tag == "q":
            flow.words("“")
        elif tag == "rt":
            flow.words("(")
        elif tag == "img" or (tag == "input" and attributes.get("type", "text").lower() == "image"):
            self._insert(attributes.get("alt", ""))
        elif tag == "input" and attributes.get("type", "text").lower() not in ("checkbox", "radio", "password", "file"):
            self._insert(attributes.get("value", ""))

    def end(self, tag: str) -> None:
        if self.hidden:
            self.hidden -= 1
            return
        self.open.pop()
        flow = self.flow
        if tag in _BETWEEN:
            self.operands.pop()
        if tag in _VERBATIM:
            self.verbatim -= 1
        elif tag in ("svg", "math"):
            self.foreign -= 1
        elif tag in ("sup", "sub"):
            text = "".join(self.raised.pop())
            before = next((piece for piece in reversed(flow.pieces) if piece), "") if not flow.gap else ""
            self.data(superscript(text, before) if tag == "sup" else text)
        elif tag == "q":
            flow.words("”")
        elif tag == "rt":
            flow.words(")")
        if tag == "title":
            self.naming = False
        elif tag == "table":
            flow.table_end()
        elif tag == "li":
            flow.item_end()
        elif tag in ("ol", "ul", "menu"):
            self.lists.pop()
            flow.apart(LINE if self.lists else BLOCK)
        elif tag not in ("tr", "td", "th", "br"):
            self._apart(tag)

    def data(self, text: str) -> None:
        if self.hidden:
            return
        if self.naming:
            self.title.append(text)
        elif self.raised:
            self.raised[-1].append(text)
        elif self.verbatim:
            text = text.replace("\r\n", "\n")
            text = text[1:] if self.begun and text.startswith("\n") else text
            if text:
                self.flow.verbatim(text)
            self.begun = False
        elif not (self.open and self.open[-1] in ("table", "tbody", "thead", "tfoot", "tr") and not text.strip()):
            self.flow.words(text)

    def close(self) -> None:
        pass

    def _hides(self, tag: str, attributes: Mapping[str, str]) -> bool:
        if tag in _LEFT_OUT or (tag == "dialog" and "open" not in attributes) or (tag == "title" and self.foreign):
            return True
        if attributes.get("hidden", "until-found").lower() != "until-found":
            return True
        if tag == "input" and attributes.get("type", "").lower() == "hidden":
            return True
        return "style" in attributes and _STYLED_AWAY.search(attributes["style"]) is not None

    def _apart(self, tag: str) -> None:
        if tag in _LINES:
            self.flow.apart(LINE)
        elif tag in _BLOCKS:
            self.flow.apart(BLOCK)
        elif tag in _APART:
            self.flow.apart(SPACE)

    def _insert(self, text: str) -> None:
        if text.strip():
            self.flow.apart(SPACE)
            self.data(text)
            self.flow.apart(SPACE)

    def _mark(self, attributes: Mapping[str, str]) -> str:
        if not self.lists or not self.lists[-1][0]:
            return "- "
        kind, number = self.lists[-1]
        value = attributes.get("value", "")
        number = int(value) if re.fullmatch(r"-?\d{1,9}", value) else number
        self.lists[-1] = kind, number + 1
        return f"{numeral(number, kind)}. "
