"""Kinds of picture files: those that are read, and what those are that are not, to be told by name.

Files are known by how they begin, whatever they are called; a name's ending counts where that says nothing. Formats
that Pillow reads by running another program (EPS), or only knows by name, are not among those that are read.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

from PIL import Image

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "MPO", "JPEG2000", "HEIF"),
    *("DIB", "ICO", "CUR", "ICNS", "PCX", "DCX", "PSD", "QOI", "SGI", "SUN", "DDS", "FITS", "XBM", "XPM", "TGA"),
)
"""Pillow's names of the formats that are read."""
_READ = """
    jpg jpeg jpe jfif png apng gif bmp dib tif tiff webp avif avifs mpo jp2 j2k jpc jpf jpx j2c heic heif hif pbm pgm
    ppm pnm pfm ico cur icns pcx dcx psd qoi sgi rgb rgba bw ras dds fits fit xbm xpm tga
"""
PICTURES = frozenset(f".{ending}" for ending in _READ.split())
"""What the names of such pictures end in."""
HEAD = 512
"""Bytes of a file by which it is known."""
HEIF_READERS = ("pi_heif", "pillow_heif")
"""Packages that let Pillow read HEIC, whichever is installed; the first has no encoder, and nothing under the GPL."""

RAW = "a camera's raw picture; develop it, or export it as JPEG"
"""What a camera's raw picture is, for the end of a sentence."""
_DRAWING = "a drawing (SVG, EPS, WMF, ...) without pixels; export it as PNG"
_PDF = "a document (PDF); save the page as a picture"
_VIDEO = "a video; save a frame of it as a picture"
_HDR = "a picture of a format that Pillow does not read; save it as PNG or JPEG"
_ENDINGS = {
    RAW: "3fr ari arw cr2 cr3 crw dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
    _DRAWING: "svg svgz eps ps ai emf wmf cdr dxf",
    _VIDEO: "mp4 m4v mov avi mkv webm mpg mpeg wmv 3gp",
    _HDR: "exr hdr jxl dcm dicom xcf kra heics",
    _PDF: "pdf",
}
_KINDS = {f".{ending}": kind for kind, endings in _ENDINGS.items() for ending in endings.split()}
_BEGINNINGS = (
    (b"%PDF-", _PDF),
    (b"%!PS", _DRAWING),
    (b"\xc5\xd0\xd3\xc6", _DRAWING),
    (b"\xd7\xcd\xc6\x9a", _DRAWING),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIRO", RAW),
    (b"IIRS", RAW),
    (b"IIU\0", RAW),
    (b"FOVb", RAW),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"v/1\x01", _HDR),
    (b"#?RADIANCE", _HDR),
    (b"\xff\x0a", _HDR),
    (b"\0\0\0\x0cJXL ", _HDR),
    (b"gimp xcf", _HDR),
)
_TIFF = "a TIFF of a kind that Pillow does not read (numbers of 64 bits, floats in colour, ...); save it with 8 bits"
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIC = ("heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1")
_VIDEOS = ("isom", "iso2", "mp41", "mp42", "M4V ", "qt  ", "3gp4", "3gp5", "avc1")
_DNG_VERSION = 50706
"""The tag of a TIFF that makes it a camera's raw picture."""


def unread_kind(head: bytes, name: str = "") -> str:
    """What a file is that is no picture to be read, and what to do about it, as the end of a sentence; empty where that
    can't be told.

    Args:
        head: its first :data:`HEAD` bytes.
        name: what it is called.
    """
    brand = head[8:12].decode("latin-1") if head[4:8] == b"ftyp" else ""
    if brand in _HEIC:
        return _heic()
    if brand == "crx " or (head[8:10] == b"CR" and head[:2] in (b"II", b"MM")):
        return RAW
    if brand in _VIDEOS or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return _VIDEO
    if head[128:132] == b"DICM":
        return _HDR
    if b"<svg" in head.lower() and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _DRAWING
    known = next((kind for start, kind in _BEGINNINGS if head.startswith(start)), "") or _KINDS.get(_ending(name), "")
    return known or (_TIFF if head.startswith(_TIFFS) else "")


def shows_something(kind: str) -> bool:
    """Whether what :func:`unread_kind` says is that of a picture, though of one that is not read."""
    return kind != "" and kind not in (_VIDEO, _PDF)


def is_raw(image: Image.Image, name: str) -> bool:
    """Whether what Pillow took for a TIFF is a camera's raw picture, of which it sees the thumbnail."""
    tags: Any = getattr(image, "tag_v2", None)
    return tags is not None and (_DNG_VERSION in tags or _KINDS.get(_ending(name)) == RAW)


def known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_heif() -> bool:
    """Let Pillow read HEIC, if a package for it is installed; returns whether it does now."""
    for package in HEIF_READERS:
        if "HEIF" not in Image.OPEN and find_spec(package) is not None:
            import_module(package).register_heif_opener()
    return "HEIF" in Image.OPEN


def is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIC does, or as AVIF does that says no more than that it is of its family."""
    return head[4:8] == b"ftyp" and head[8:12].decode("latin-1") in _HEIC


def _heic() -> str:
    if "HEIF" in Image.OPEN:
        return ""
    return "a HEIC picture, for which a package is missing; run pip install pi-heif, or save it as JPEG"


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()
