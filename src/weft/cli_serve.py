"""``weft serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from weft.cli_options import load
from weft.errors import WeftError


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    knowledge: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Knowledge bases: a folder of indexed folders, or one itself.")
    ] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Whoever has it may ask; for several, give it again.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keys, one a line. WEFT_API_KEYS holds some as well.")
    ] = None,
    image_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host from which pictures may be fetched; for several, give it again."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="An origin whose pages may call the API; none by default.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Replies that are decoded side by side.")] = 32,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; others get status 429.")] = 64,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a request may take.")] = 120.0,
    cache: Annotated[int, typer.Option(min=0, metavar="MB", help="Read memories that are kept, in megabytes.")] = 256,
    model: Annotated[
        str | None, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.  [default: photos and reader]")
    ] = None,
) -> None:
    """Serve an OpenAI-compatible API, and a page on which one sees what the model looked at.

    **Examples**

    `weft serve`

    `weft serve --knowledge handbooks/ --port 9000`

    `weft serve --host 0.0.0.0 --api-key-file keys.txt`
    """
    from weft.memory_cache import MEGABYTE

    try:
        from weft.server import Settings, create_app
        from weft.server.running import is_loopback
        from weft.server.running import serve as run
        from weft.server.settings import read_keys
    except ModuleNotFoundError as error:
        raise WeftError(f"Serving needs {error.name}; run pip install '.[serve]' in Weft's folder.") from None
    keys = read_keys(api_key or [], api_key_file)
    if not keys and not is_loopback(host):
        typer.echo(f"weft: {host} is open to everyone who reaches it; give --api-key or --api-key-file.", err=True)
    name = "weft" if model is None else Path(model).name
    settings = Settings(
        name=name,
        keys=keys,
        knowledge=knowledge,
        names=("127.0.0.1", "localhost", "::1", host) if is_loopback(host) and not keys else (),
        hosts=tuple(image_host or ()),
        origins=tuple(cors_origin or ()),
        rows=rows,
        waiting=waiting,
        timeout=timeout,
        cache_bytes=cache * MEGABYTE,
    )
    print("weft: loading the model", file=sys.stderr, flush=True)
    run(lambda: create_app(lambda: load(model), settings), host, port)
