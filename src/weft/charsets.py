"""Bytes as text, whichever encoding they are in, and what had to be guessed or replaced on the way.

:func:`decode` is given the bytes of a text file. It knows no format: what the text means is for others to say.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

from weft.errors import DataError

REPLACEMENT = "\ufffd"
"""What stands for bytes that mean nothing, and for half surrogate pairs."""
SAMPLE = 2**16
"""Bytes that an encoding is guessed from, about."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's mark does, and so comes first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PYTHON_NAMES = {"Shift_JIS": "cp932", "GBK": "gb18030", "EUC-KR": "cp949", "ISO-8859-8-I": "iso8859-8"}
"""Encodings that browsers, and so Mozilla's detector, mean more by than Python does."""
_LATIN = re.compile(r"windows-125[024]|iso-8859-\d+", re.IGNORECASE)
"""Encodings of single bytes in which most letters of a text are ASCII."""
_CONTROL = bytes(sorted({*range(32)} - {*b"\b\t\n\v\f\r\x1a\x1b"}))
_ZEROS = re.compile(rb"\0+")
_HIGH = bytes(range(128, 256))
_FIRST_HIGH = re.compile(rb"[\x80-\xff]")
_ACCENTED = b"\xc2\xc3"
"""What most accented letters begin with in UTF-8; in Windows-1252, Â and Ã."""
_CAPITAL_WITHIN = re.compile("[a-z][À-ÖØ-Þ]")
"""What letters in UTF-8 look like, read as Windows-1252, where their second byte is missing."""
_ESCAPED = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as Python has them in names of files."""
HALF = re.compile("[\ud800-\udfff]")
"""Half a character: a surrogate that is no pair, which no UTF-8 holds and no tokenizer takes."""


@dataclass(frozen=True)
class Decoded:
    """A text that was bytes.

    Attributes:
        text: the text, its line ends as ``\\n``.
        notes: what was guessed, replaced or left out, each as the end of a sentence about the file.
    """

    text: str
    notes: tuple[str, ...] = ()


def decode(data: bytes) -> Decoded:
    """Bytes as text: by their byte order mark, as UTF-8, or as what they look most like.

    A wrong byte in UTF-8 costs one character. Lines of another encoding among lines in UTF-8 (logs, files that were
    joined) are read as such.

    Raises:
        DataError: they are no text.
    """
    text, notes = _decoded(data)
    return Decoded(text.replace("\r\n", "\n").replace("\r", "\n"), tuple(notes))


def sound(text: str) -> str:
    """A text without halves of surrogate pairs, which no file and no index can hold; its length stays what it is."""
    return HALF.sub(REPLACEMENT, text)


def printable(name: object) -> str:
    """A file's name as text that can be printed and stored, bytes that are no UTF-8 as ``\\xe9``."""
    return sound(_ESCAPED.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", str(name)))


def _decoded(data: bytes) -> tuple[str, list[str]]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replacing(data[len(mark) :], encoding)
    wide = _wide(data)
    if wide:
        text, notes = _replacing(data, wide)
        return text, [*notes, f"was read as {wide.upper()}, which it looks like"]
    notes = []
    zeros, gaps = data.count(0), len(_ZEROS.findall(data))
    if zeros:
        data = data.replace(b"\0", b"")
        notes.append(f"had {zeros:,} zero bytes in its text, which were left out")
    if 20 * (_controls(data) + gaps) > len(data):
        raise DataError("it holds zero bytes or control characters, and is no text")
    try:
        if b"\x1b$" in data:
            return data.decode("iso2022_jp"), [*notes, "was read as ISO-2022-JP, which it looks like"]
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("utf-8"), notes
    except UnicodeDecodeError:
        text, more = _mended(data)
        return text, notes + more


def _replacing(data: bytes, encoding: str) -> tuple[str, list[str]]:
    """Bytes in a known encoding, those that mean nothing in it replaced and counted."""
    text = data.decode(encoding, "replace")
    wrong = text.count(REPLACEMENT) - data.count(REPLACEMENT.encode(encoding))
    return text, [_replaced(wrong, encoding)] if wrong > 0 else []


def _replaced(count: int, encoding: str) -> str:
    what = "one place that is" if count == 1 else f"{count:,} places that are"
    return f"has {what} no {encoding.upper()}, replaced by {REPLACEMENT}"


def _wide(data: bytes) -> str | None:
    """The kind of UTF-16 that bytes without a mark are in, if any: every other byte of ASCII characters is zero."""
    sample = data[:SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(data) % 2 or not even + odd or 10 * min(even, odd) > max(even, odd):
        return None
    if 5 * (even + odd) < len(sample) and _is_narrow(sample.replace(b"\0", b"")):
        return None
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
    strange = sum(character < " " and character not in "\t\n\r\f" for character in text) + text.count(REPLACEMENT)
    return encoding if 100 * strange <= len(text) else None


def _is_narrow(data: bytes) -> bool:
    """Whether bytes make sense one by one: hardly any are control characters, or wrong in UTF-8."""
    sound = len(data.decode("utf-8", "ignore").encode())
    return 20 * _controls(data) <= len(data) and 20 * (len(data) - sound) <= len(data)


def _controls(data: bytes) -> int:
    return len(data) - len(data.translate(None, _CONTROL))


def _mended(data: bytes) -> tuple[str, list[str]]:
    """Bytes that are not quite UTF-8, or not at all."""
    if _begins_or_ends_within_a_character(data):
        return _replacing(data, "utf-8")
    lines = data.split(b"\n")
    kinds = [_kind(line) for line in lines]
    others = [line for line, kind in zip(lines, kinds, strict=True) if kind == "other"]
    in_utf8 = sum(kind == "utf-8" for kind in kinds)
    guess = _guess(others) if others else ""
    mixed = in_utf8 and (bool(_LATIN.fullmatch(guess)) or 4 * in_utf8 >= len(others))
    if not mixed and others:
        text = data.decode(_python(guess), "replace")
        wrong = text.count(REPLACEMENT)
        return text, [f"was read as {guess}, which it looks like", *([_replaced(wrong, guess)] if wrong else [])]
    read, count, wrong = [], 0, 0
    for line, kind in zip(lines, kinds, strict=True):
        latin = _latin(line, guess) if kind == "other" and _LATIN.fullmatch(guess) else None
        if latin is not None:
            count += 1
            read.append(latin)
            continue
        read.append(line.decode("utf-8", "replace"))
        wrong += read[-1].count(REPLACEMENT) - line.count(REPLACEMENT.encode())
    notes = []
    if count:
        what = "one line that is" if count == 1 else f"{count:,} lines that are"
        notes.append(f"has {what} no UTF-8, read as {guess}")
    if wrong:
        notes.append(_replaced(wrong, "utf-8"))
    return "\n".join(read), notes


def _begins_or_ends_within_a_character(data: bytes) -> bool:
    """Whether bytes are UTF-8 but for a first or last character of which a part is missing."""
    first = next((place for place in range(min(4, len(data))) if data[place] & 0xC0 != 0x80), 0)
    whole = data[first:].decode("utf-8", "ignore")
    if whole.isascii() and data[-1] not in _ACCENTED:  # a last é of Windows-1252 begins a character in UTF-8
        return False
    written = whole.encode()
    return len(data) - first - len(written) < 4 and data.startswith(written, first)


def _kind(line: bytes) -> Literal["ascii", "utf-8", "other"]:
    """What a line is in, for the most part."""
    if line.isascii():
        return "ascii"
    high = len(line) - len(line.translate(None, _HIGH))
    kept = line.decode("utf-8", "ignore").encode()
    return "utf-8" if 2 * (len(kept) - len(kept.translate(None, _HIGH))) >= high else "other"


def _guess(lines: list[bytes]) -> str:
    """The encoding that lines look most like, by Mozilla's detector, as browsers name it."""
    from chardetng_py import EncodingDetector

    sample, size = [], 0
    for line in lines:
        first = _FIRST_HIGH.search(line)
        begin = max(0, first.start() - 100) if first else 0
        sample.append(line[begin : begin + SAMPLE])
        size += len(sample[-1])
        if size > SAMPLE:
            break
    detector = EncodingDetector()
    detector.feed(b"\n".join(sample), last=True)
    return str(detector.guess(tld=None, allow_utf8=False))


def _python(name: str) -> str:
    return _PYTHON_NAMES.get(name, name)


def _latin(line: bytes, encoding: str) -> str | None:
    """A line in an encoding of single bytes; None where it is rather a line in UTF-8 that has lost some bytes."""
    if any(lead in line for lead in _ACCENTED):
        return None
    try:
        text = line.decode(_python(encoding))
    except UnicodeDecodeError:
        return None
    return None if _CAPITAL_WITHIN.search(text) else text
