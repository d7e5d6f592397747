"""`unclip serve`: the page, the OpenAI Images API of dall-e-2, and the job engine under them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import socket

    from unclip.server.config import ServerConfig

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    overrides: list[str] = typer.Argument(None, help="Anything else of the server's config, as limits.streams=64."),
    model: str = typer.Option(None, "--model", "-m", help="What dall-e-2 is: a shipped model, a folder, or a repository."),
    index: list[str] = typer.Option(
        None, "--index", help="An index to search, PATH or NAME=PATH (unclip search index makes one); may be repeated."
    ),
    host: str = typer.Option(None, "--host", help="Address to listen on; 127.0.0.1 unless given, others need a key."),
    port: int = typer.Option(None, "--port", "-p", help="Port to listen on; 8000 unless given, 0 for any that is free."),
    data: Path = typer.Option(None, "--data", help="Folder of the pictures and the queue; unclip-data unless given."),
    key: list[str] = typer.Option(
        None, "--api-key", envvar="UNCLIP_API_KEY", help="Key that callers need; may be repeated."
    ),
    allowed_host: list[str] = typer.Option(None, "--allow-host", help="A name by which this server may be called."),
    allowed_origin: list[str] = typer.Option(None, "--allow-origin", help="A site whose pages may call this server."),
    public_url: str = typer.Option(None, "--public-url", help="How pictures' urls begin, behind a proxy."),
    device: str = typer.Option(None, "--device", help="auto, cpu, cuda or mps."),
    replicas: str = typer.Option(
        None, "--replicas", help="Paint in so many replicas on a Ray cluster: 2, or 1-4 for as many as there is work for."
    ),
    ray_address: str = typer.Option(None, "--ray-address", help="That cluster: host:port, or auto; none: one of our own."),
    blocked_words: Path = typer.Option(None, "--blocked-words", help="File of words that no prompt may hold, one a line."),
    config: Path = typer.Option(None, "--config", "-c", help="A yaml file of the server's config."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No line for each request."),
) -> None:
    """Serve the web page at / and the API at /v1 until stopped; print the address when it answers.

    Example: unclip serve --model icons --index photos.index --port 8000
    """
    from unclip.config import apply_overrides, read_yaml
    from unclip.server.config import ServerConfig

    given: dict[str, Any] = {
        "model": model,
        "indices": index,
        "host": host,
        "port": port,
        "data": data,
        "keys": key,
        "hosts": allowed_host,
        "origins": allowed_origin,
        "public_url": public_url,
        "device": device,
        "replicas": replicas,
        "ray_address": ray_address,
        "blocked_words": blocked_words,
    }
    values = apply_overrides(read_yaml(config) if config else {}, overrides or [])
    values |= {name: value for name, value in given.items() if value not in (None, [])}
    _run(ServerConfig.parse(values, where=str(config or "serve")), quiet=quiet)


def _run(config: "ServerConfig", *, quiet: bool) -> None:
    """Serves until SIGINT or SIGTERM; ConfigError for an address that is taken, a data folder or a model that cannot be."""
    import logging
    import sys

    from unclip.server.app import make_app
    from unclip.server.engine import Engine
    from unclip.server.run import Server
    from unclip.server.store import Store

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what it would say, we say
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a line for each broken form, which anybody can send
    logging.getLogger("unclip.server").setLevel(logging.WARNING if quiet else logging.INFO)
    with _listening(config) as listener:
        store = Store(config.data)
        try:
            server = Server(make_app(config, store, Engine(config, store)), listener)
            server.run_until_stopped(lambda address: print(address, flush=True))
        finally:
            store.close()


def _listening(config: "ServerConfig") -> "socket.socket":
    import socket

    from unclip.errors import ConfigError

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "there is no such address"
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {reason}") from None
