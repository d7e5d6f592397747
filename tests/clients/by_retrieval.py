"""clip-retrieval's client, by itself: its package's own module brings the whole back end, which is not installed."""

import importlib.util
import json
import sys
import types
from typing import Any


def client() -> Any:
    """The module clip_retrieval.clip_client, as `import` finds it afterwards too."""
    found = importlib.util.find_spec("clip_retrieval")
    assert found is not None
    package = types.ModuleType("clip_retrieval")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["clip_retrieval"] = package
    return importlib.import_module("clip_retrieval.clip_client")


def answered(module: Any, asked: dict[str, Any]) -> Any:
    how = {**asked["client"], **({"modality": module.Modality.TEXT} if asked.get("captions") else {})}
    try:
        return module.ClipClient(**how).query(**asked["query"])
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    module = client()
    if len(sys.argv) > 1:  # a program that imports it
        exec(compile(sys.stdin.read(), "snippet", "exec"), {"__name__": "__main__"})
    else:
        json.dump([answered(module, asked) for asked in json.load(sys.stdin)], sys.stdout)
