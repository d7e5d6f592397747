"""DALL·E 2 as open software: CLIP, the prior, the decoder, the upsamplers, and what people do with them.

    import unclip

    model = unclip.load("icons")
    model.generate("a flat icon of a cactus", n=4, seed=7)[0].save("cactus.png")

Importing the package costs nothing: torch is loaded with the first name that needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from unclip.errors import ConfigError, DataError, RequestError, UnclipError, WeightsError

if TYPE_CHECKING:
    from unclip import inpainting, tasks
    from unclip.glide import GLIDE
    from unclip.pipeline import UnCLIP, load
    from unclip.request import Options

_LATER = {"load": "unclip.pipeline", "UnCLIP": "unclip.pipeline", "GLIDE": "unclip.glide", "Options": "unclip.request"}

__all__ = [
    "GLIDE",
    "ConfigError",
    "DataError",
    "Options",
    "RequestError",
    "UnCLIP",
    "UnclipError",
    "WeightsError",
    "inpainting",
    "load",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name in ("tasks", "inpainting"):
        return importlib.import_module(f"unclip.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'unclip' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return __all__
