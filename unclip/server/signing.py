"""Urls of pictures that whoever holds one can open, for an hour: HMAC-SHA256 over the picture's id and the time it ends.

The secret is drawn once and kept in the data folder, so that a url outlives a restart of the server.
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path

from unclip.errors import ConfigError
from unclip.files import write_bytes
from unclip.server.errors import ApiError

_BYTES = 32


class Signer:
    """Signs and checks; `seconds` is how long a url is good."""

    def __init__(self, secret: bytes, seconds: int):
        self._secret, self._seconds = secret, seconds

    def url(self, base: str, image: str, suffix: str = "png") -> str:
        """The absolute url of a stored picture, or of whatever has this name below /pictures, below `base`."""
        expires = int(time.time()) + self._seconds
        return f"{base}/pictures/{image}.{suffix}?expires={expires}&signature={self._signature(image, expires)}"

    def check(self, image: str, expires: str, signature: str) -> None:
        """ApiError 403 unless we have signed this and the time has not come. The signature is looked at first."""
        known = re.fullmatch(r"[0-9]{1,12}", expires) is not None
        right = self._signature(image, int(expires) if known else 0)
        if not hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace")) or not known:
            raise ApiError(403, "The signature of this url is not valid.", code="invalid_signature")
        if time.time() > int(expires):
            raise ApiError(403, "This url has expired.", code="url_expired")

    def _signature(self, image: str, expires: int) -> str:
        return hmac.new(self._secret, f"{image}\n{expires}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def load_secret(data: Path) -> bytes:
    """The secret in the data folder, made when there is none; ConfigError when it cannot be read or kept."""
    path = data / "secret"
    try:
        if not path.exists():
            write_bytes(path, secrets.token_bytes(_BYTES))
            os.chmod(path, 0o600)
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot keep the secret that signs urls in {path}: {error.strerror or error}") from None
    if len(secret) != _BYTES:
        raise ConfigError(f"{path} holds {len(secret)} bytes, expected {_BYTES}: remove it, and a new one is made")
    return secret
