"""What a picture keeps of how it was made: the task, its settings, and the pictures and prompts that it was made of.

It stands in `.info["unclip"]` and goes into the file (`images.save_png`); `unclip info` reads it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

from unclip.images import rgb
from unclip.pipeline import UnCLIP
from unclip.request import Options


def parent(source: Image.Image | str) -> dict[str, Any]:
    """What a picture's settings keep of one that it was made of: file, sha256, settings; of a prompt: its words.

    A picture that came from no file has the sha256 of its upright RGB bytes, under "pixels".
    """
    if isinstance(source, str):
        return {"prompt": source}
    own = source.info.get("unclip")
    name = source.info.get("source") or {"pixels": hashlib.sha256(rgb(source).tobytes()).hexdigest()}
    return {**name, "settings": own} if isinstance(own, dict) else dict(name)


def prompted(model: UnCLIP, prompt: str | None, options: Options) -> dict[str, str | None]:
    """What a picture's settings keep of its prompt: as it was typed and, where that differs, as the model read it."""
    return {"prompt": prompt, **({} if prompt is None else model.read(prompt, options).told())}


def tell(
    model: str,
    task: str,
    pictures: list[Image.Image],
    each: Sequence[dict[str, Any]],
    options: Options,
    parents: Sequence[dict[str, Any]],
) -> list[Image.Image]:
    """The pictures, with what makes each of them again; what is None among `each` is left out."""
    asked = options.model_dump(exclude_none=True)
    for picture, own in zip(pictures, each, strict=True):
        kept = {key: value for key, value in own.items() if value is not None}
        picture.info["unclip"] = {"task": task, **kept, "model": model, **asked, "parents": [*parents]}
    return pictures
