"""Pictures of requests: from data URLs, and from hosts that the operator allows by name.

What is fetched over http(s) is limited in size, time and redirects. Names are resolved here and the address that was
checked is the one that is connected to, so that no name leads to a private address between the two.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import ipaddress
import socket
import warnings
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import anyio
import httpcore
from PIL import Image

from weft.errors import PictureError
from weft.images import MAX_PIXELS
from weft.server.errors import ApiError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are taken from strangers; Pillow knows many more."""
REDIRECTS = 3
"""How often a host may send on."""
SECONDS = 10.0
"""For fetching a picture, all in all."""


def check_picture(data: bytes, pixels: int) -> None:
    """Look at the head of a picture, without decoding it.

    Raises:
        PictureError: it is none of the formats that are taken, or has more pixels than ``pixels``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, height = Image.open(io.BytesIO(data), formats=FORMATS).size
    except Image.DecompressionBombError:
        raise PictureError(f"The picture has more than {pixels:,} pixels, which is the limit; scale it down.") from None
    except Exception:  # Pillow raises many kinds where a file is damaged
        raise PictureError(f"The picture is none of {', '.join(FORMATS)}; send one of these.") from None
    if width * height > pixels:
        raise PictureError(f"The picture has {width} by {height} pixels; {pixels:,} is the limit. Scale it down.")


def fetch(url: str, hosts: Iterable[str], *, size: int = 20 * 2**20, pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a picture on the network, from hosts that are named alone.

    Args:
        url: where it is, http(s); or a data URL.
        hosts: the names of hosts from which pictures may be fetched, none of which may lead to a private address.
        size: bytes that it may have.
        pixels: pixels that it may have.

    Raises:
        PictureError: the URL is of another host, or what it leads to is no picture, too large, or can't be fetched.

    Example:
        >>> model.caption(fetch("https://example.org/dog.jpg", hosts=["example.org"]))
    """
    try:
        return asyncio.run(Pictures(hosts, size, pixels).get(url))
    except ApiError as error:
        raise PictureError(str(error)) from None


class Pictures:
    """Finds the pictures that requests name.

    Args:
        hosts: hosts from which pictures may be fetched.
        size: bytes that a picture may have.
        pixels: pixels that it may have.
    """

    def __init__(self, hosts: Iterable[str], size: int, pixels: int) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self.size, self.pixels = size, pixels

    async def get(self, url: str) -> bytes:
        """The bytes of a picture.

        Raises:
            ApiError: the URL is none that may be used, or what it leads to is too large or can't be fetched.
            PictureError: it leads to no picture, or to one of too many pixels.
        """
        scheme = url[:16].partition(":")[0].lower()
        if scheme == "data":
            data = _inline(url)
        elif scheme in ("http", "https"):
            data = await self._fetch(url)
        else:
            raise _refused("A picture is given as a data URL, or as an http(s) URL of a host that the server allows.")
        await asyncio.to_thread(check_picture, data, self.pixels)
        return data

    async def _fetch(self, url: str) -> bytes:
        url = _in_ascii(url)
        try:
            with anyio.fail_after(SECONDS):
                async with httpcore.AsyncConnectionPool(network_backend=_GuardedNetwork()) as pool:
                    for _ in range(REDIRECTS + 1):
                        self._check(url)
                        async with pool.stream("GET", url, headers={"accept": "image/*"}) as response:
                            if response.status not in (301, 302, 303, 307, 308):
                                return await self._body(url, response)
                            url = _in_ascii(urljoin(url, _header(response, b"location")))
        except TimeoutError:
            raise _refused(f"{_host(url)} took longer than {SECONDS:.0f} seconds to send the picture.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError):
            raise _refused(f"{_host(url)} can't be reached, or does not answer as a web server does.") from None
        raise _refused(f"{_host(url)} sends on more than {REDIRECTS} times.")

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.username is not None:
            raise _refused("A picture's URL starts with http:// or https:// and holds no user name.")
        if (parts.hostname or "").lower() not in self.hosts:
            raise _refused(f"Pictures are not fetched from {_host(url)!r}; send the picture itself, as a data URL.")

    async def _body(self, url: str, response: httpcore.Response) -> bytes:
        if response.status != 200:
            raise _refused(f"{_host(url)} answers {response.status} for the picture.")
        data = bytearray()
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > self.size:
                raise _refused(f"The picture at {_host(url)} has more than {self.size:,} bytes, which is the limit.")
        return bytes(data)


def _inline(url: str) -> bytes:
    """What a data URL holds."""
    head, comma, body = url.partition(",")
    if not comma:
        raise _refused("A data URL has a comma before its data: data:image/jpeg;base64,...")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _refused("The picture's data URL holds no valid base64.") from None


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not private, loopback, link-local or reserved."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return mapped.is_global and not mapped.is_multicast


class _GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, and to the very address that was checked."""

    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """As httpcore has it."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(one[4][0]) for one in found]
        if not addresses or not all(map(is_public, addresses)):
            raise _refused(f"{host} is no public address; pictures are not fetched from there.")
        return await self._network.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """As httpcore has it."""
        await asyncio.sleep(seconds)


def _in_ascii(url: str) -> str:
    """A URL with what is not ASCII in it escaped."""
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "that URL"
    except ValueError:
        return "that URL"


def _refused(message: str) -> ApiError:
    return ApiError(400, message, "invalid_image_url", "messages")
