"""Weft over HTTP: OpenAI's API, and a page on which one sees what the model looked at.

>>> from weft.server import create_app
>>> app = create_app(weft.load)
"""

from weft.server.app import create_app
from weft.server.settings import Settings

__all__ = ["Settings", "create_app"]
