"""What `unclip serve` is told: one frozen config from which the app, the engine and the workers take what is theirs.

It listens on loopback unless told otherwise, and on nothing else without a key. Sizes are in bytes, times in seconds.
"""

import ipaddress
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from unclip.config import Config
from unclip.errors import ConfigError

ALIAS = "dall-e-2"  # what every old client asks for
STUB = "stub"  # the model that paints by arithmetic, for tests

MEGABYTE = 1 << 20
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _range(given: Any) -> Any:
    """3, "3" or "1-4" as the least and the most."""
    if isinstance(given, tuple):
        return given
    found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", str(given))
    least, most = map(int, (found[1], found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise ValueError("expected a number, as 2, or a range, as 1-4")
    return least, most


Range = Annotated[tuple[int, int], BeforeValidator(_range)]

_INDEX_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)  # it stands in urls


def _named(given: Any) -> Any:
    """A mapping as it is, and a list of NAME=PATH or PATH, whose name is its stem, as one."""
    if isinstance(given, list | tuple):
        pairs = [_name_and_path(str(each)) for each in given]
        given = dict(pairs)
        if len(given) < len(pairs):
            raise ValueError("two indices have one name: give them as NAME=PATH")
    for name in given if isinstance(given, dict) else ():
        if not _INDEX_NAME.fullmatch(str(name)):
            raise ValueError(f"{str(name)!r} cannot be a name: expected letters, digits, _ . and -; give it as NAME=PATH")
    return given


def _name_and_path(given: str) -> tuple[str, str]:
    name, separator, path = given.partition("=")
    return (name, path) if separator and _INDEX_NAME.fullmatch(name) else (Path(given).stem, given)


Indices = Annotated[dict[str, Path], BeforeValidator(_named)]


class Limits(Config):
    """How much of anything one caller, or all of them, may have."""

    image_bytes: Annotated[int, Field(ge=1)] = 4 * MEGABYTE
    """A picture sent to /v1: less than this."""
    upload_bytes: Annotated[int, Field(ge=1)] = 16 * MEGABYTE
    """A picture sent by the page."""
    json_bytes: Annotated[int, Field(ge=1)] = 64 << 10
    connections: Annotated[int, Field(ge=1)] = 512
    """That stand at one time."""
    head_seconds: Positive = 20.0
    """Until a request's line and headers have to be there, counted from the connection or its last answer."""
    body_seconds: Positive = 60.0
    """Until a request's body has to be there."""
    send_seconds: Positive = 120.0
    """Until a client has to have read a piece of an answer, 256 kB."""
    request_seconds: Positive = 1800.0
    """How long a call to /v1 waits for its pictures; less when the client says that it waits less."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 300
    """Calls of one key that make a job."""
    searches_per_minute: Annotated[int, Field(ge=1)] = 3000
    """Searches of one key."""
    searches: Annotated[int, Field(ge=1)] = 64
    """That wait for their answer at one time."""
    search_seconds: Positive = 30.0
    """Until a search is answered, or a picture of an index is there; what takes longer is given up."""
    streams: Annotated[int, Field(ge=1)] = 256
    """Event streams that are open at one time."""
    url_seconds: Annotated[int, Field(ge=1)] = 3600
    """How long a picture's url is good."""


class ServerConfig(Config):
    model: str = "icons"
    """What `dall-e-2` is here: a shipped model, a folder, a repository of the hub, or `stub`."""
    models: dict[str, str] = Field(default_factory=dict)
    """More models, by the names that requests give: name -> shipped model, folder, or repository."""
    indices: Indices = Field(default_factory=dict)
    """What can be searched: name -> folder of an index; or a list of NAME=PATH, or of paths, whose stems are the names."""
    clips: dict[str, str] = Field(default_factory=dict)
    """With which CLIP an index is searched, name -> CLIP, where that is not the one that its own manifest names."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any that is free."""
    keys: tuple[SecretStr, ...] = ()
    """With keys every request needs one, and sees only what was made with it. Without, everybody here is the owner."""
    hosts: tuple[str, ...] = ()
    """Names besides loopback's by which this server may be called, as a proxy in front of it has them."""
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call it, as https://example.org; none: no CORS."""
    public_url: str | None = None
    """How urls of pictures begin, where that is not how the request came."""
    data: Path = Path("unclip-data")
    """The folder of the database and the pictures."""

    device: str = "auto"
    exact: bool | None = None
    """Paint each picture alone, byte for byte the same at any load; None: the engine decides."""
    batch: Annotated[int, Field(ge=1, le=64)] | None = None
    """Most pictures that share one network call; None: the engine decides."""
    queue: Annotated[int, Field(ge=1)] = 64
    """Jobs that may wait."""
    replicas: Range | None = None
    """Paint in so many replicas on a Ray cluster, in a range as many as there is work for; None: in processes here."""
    ray_address: str | None = None
    """Host and port of that cluster's head, or `auto` for the one that this machine is part of; None: RAY_ADDRESS, or a
    Ray of our own on this machine."""
    replica_cpus: Annotated[int, Field(ge=1)] | None = None
    """CPU cores of a replica; None: on a cluster one, here what there is, shared out."""
    stub_step_seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long the stub takes for a step."""
    heartbeat_seconds: Positive = 30.0
    """A worker that is silent for so long is hung."""
    grace_seconds: Annotated[float, Field(ge=0)] = 30.0
    """What running jobs get to finish when the server is told to stop."""

    blocked_words: Path | None = None
    """A file of words and phrases, one a line, that no prompt may hold; None: every prompt passes."""
    settings_in_pictures: bool = True
    """PNGs that leave carry the prompt, seed and settings that made them."""
    signature: bool = False
    """A row of small coloured squares in the lower right corner of every picture that leaves."""
    azure: bool = False
    """Also answer to Azure's paths and `api-key` header."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _is_safe(self) -> "ServerConfig":
        if not is_loopback(self.host) and not self.keys:
            raise ConfigError(
                f"host {self.host} can be reached by others and no key is set: "
                "give --api-key (or UNCLIP_API_KEY), or listen on 127.0.0.1"
            )
        if self.replicas is None and (self.ray_address or self.replica_cpus):
            raise ConfigError("ray_address and replica_cpus are about replicas: give their number too, as --replicas 2")
        if self.replicas is not None and "," in self.device:
            raise ConfigError(f"device {self.device}: a replica paints on one device, leave the choice to Ray")
        for key in self.keys:
            _check_key(key.get_secret_value())
        for name in self.models:
            if name == ALIAS or not name.strip():
                raise ConfigError(f"models: {name!r} cannot be a name: {ALIAS} is what `model` stands for")
        for name in self.clips:
            if name not in self.indices:
                raise ConfigError(f"clips: there is no index {name!r}, only {', '.join(self.indices) or 'none at all'}")
        return self

    @property
    def served(self) -> dict[str, str]:
        """Every model by the names that requests may give: `dall-e-2`, its own name, then the others."""
        return {ALIAS: self.model, self.model: self.model, **self.models}


def is_loopback(host: str) -> bool:
    """Whether a host's name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_key(key: str) -> None:
    if len(key) < 8 or not key.isascii() or any(unicodedata.category(letter)[0] in "ZC" for letter in key):
        raise ConfigError("a key is too weak or cannot be sent: expected at least 8 visible ASCII characters")
