"""From what somebody writes to what an index is asked: which CLIP, and sentences, pictures and weights as one vector."""

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unclip.clip import Clip, load_clip, unit
from unclip.errors import ConfigError, RequestError, UnclipError, WeightsError
from unclip.images import read_picture
from unclip.search.layout import Index
from unclip.search.query import check_clip, mixed


def clip_of(index: Index, model: str | None = None, *, device: str = "auto") -> Clip:
    """The CLIP that `model` names, or else the one that the index says it was made with, on a device.

    ConfigError for an index that does not say, WeightsError where there is no such CLIP, DataError when it is another.
    """
    if model is None and index.manifest is None:
        raise ConfigError(f"{index.folder} does not say which CLIP made it: name that with --clip")
    if model is not None:
        clip = load_clip(model, device=device)
    else:
        assert index.manifest is not None, "else a model was named"
        made_by = index.manifest.clip
        try:
            clip = load_clip(made_by.name, device=device)
        except UnclipError as error:
            raise WeightsError(
                f"{index.folder} was made with the CLIP {made_by.name} ({made_by.fingerprint[:12]}), which that name "
                f"does not open: {error}; say where it is with --clip"
            ) from None
    check_clip(index, clip)
    return clip


def embed_mix(
    clip: Clip, sentences: Sequence[str], pictures: Sequence[str | Path] = (), weights: Sequence[float] = ()
) -> Tensor:
    """The unit vector (E,) of some sentences and picture files, which `weights` weigh in that order, 1 each without any.

    RequestError for nothing to look for, an empty sentence, a picture that cannot be read, other weights than there are
    parts, one that is no number, and for weights at which all cancels out.
    """
    count = len(sentences) + len(pictures)
    if weights and len(weights) != count:
        raise RequestError(
            f"{len(weights)} weights for {count} parts: expected one for each sentence, then one for each picture, or none"
        )
    if not all(map(math.isfinite, weights)):
        raise RequestError(
            f"a weight of {next(weight for weight in weights if not math.isfinite(weight))}: expected numbers"
        )
    words = embed_each(clip, sentences) if sentences else []
    z = [*words, *clip.images([read_picture(path) for path in pictures])]
    return mixed(list(zip(z, weights or [1.0] * count, strict=True)))


def embed_each(clip: Clip, sentences: Sequence[str]) -> Tensor:
    """The unit vectors (Q, E) of some sentences. RequestError for none, and for an empty one."""
    if not sentences or any(not sentence.strip() for sentence in sentences):
        raise RequestError("an empty query: expected words to look for")
    return unit(clip.texts(sentences))
