"""What `unclip serve` is told: one frozen config from which the app, the engine and the workers take what is theirs.

It listens on loopback unless told otherwise, and on nothing else without a key. Sizes are in bytes, times in seconds.
"""

import ipaddress
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from unclip.config import Config
from unclip.errors import ConfigError

ALIAS = "dall-e-2"  # what every old client asks for
STUB = "stub"  # the model that paints by arithmetic, for tests

MEGABYTE = 1 << 20
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Limits(Config):
    """How much of anything one caller, or all of them, may have."""

    image_bytes: Annotated[int, Field(ge=1)] = 4 * MEGABYTE
    """A picture sent to /v1: less than this."""
    upload_bytes: Annotated[int, Field(ge=1)] = 16 * MEGABYTE
    """A picture sent by the page."""
    json_bytes: Annotated[int, Field(ge=1)] = 64 << 10
    body_seconds: Positive = 60.0
    """Until a request's body has to be there."""
    request_seconds: Positive = 1800.0
    """How long a call to /v1 waits for its pictures; less when the client says that it waits less."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 300
    """Calls of one key that make a job."""
    streams: Annotated[int, Field(ge=1)] = 256
    """Event streams that are open at one time."""
    url_seconds: Annotated[int, Field(ge=1)] = 3600
    """How long a picture's url is good."""


class ServerConfig(Config):
    model: str = "icons"
    """What `dall-e-2` is here: a shipped model, a folder, a repository of the hub, or `stub`."""
    models: dict[str, str] = Field(default_factory=dict)
    """More models, by the names that requests give: name -> shipped model, folder, or repository."""
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
        for key in self.keys:
            _check_key(key.get_secret_value())
        for name in self.models:
            if name == ALIAS or not name.strip():
                raise ConfigError(f"models: {name!r} cannot be a name: {ALIAS} is what `model` stands for")
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
