"""docs/server.md lists the server's config as it is."""

import re
from pathlib import Path
from typing import Any

from unclip.server.config import ServerConfig

DOCS = Path(__file__).parents[1] / "docs" / "server.md"


def test_the_table_of_the_config_has_every_key_and_its_default():
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`(.*)`)? \| .+ \|$", DOCS.read_text(encoding="utf-8"), re.M)
    config = ServerConfig().model_dump(mode="json")
    limits = config.pop("limits")
    config |= {f"limits.{name}": value for name, value in limits.items()}
    assert dict(rows) == {name: shown(value) for name, value in config.items()}


def shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in (None, [], {}) else str(default)
