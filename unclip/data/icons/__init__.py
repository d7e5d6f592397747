"""The icons set: emoji artwork in four styles, captioned, split and composed into scenes; data that anybody can build."""

from unclip.data.icons.build import prepare
from unclip.data.icons.stream import IconStream

__all__ = ["IconStream", "prepare"]
