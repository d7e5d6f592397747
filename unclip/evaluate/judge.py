"""The judge: a CLIP trained apart, whose features and whose sense of what fits a caption every figure rests on.

GLIDE (2112.10741, section 5.2) shows why it must not be the CLIP that conditions the model: pictures made to please one CLIP
score high with it while people disagree. So a judge that has the same weights as a CLIP of the model is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from unclip.clip import Clip, load_clip, unit
from unclip.errors import RequestError
from unclip.weights import store
from unclip.weights.opening import open_model

SHIPPED = "icons-judge"


class Judge(Protocol):
    """Whoever gives pictures and captions features in one space: rows of unit length, or of zeros for 'nothing there'."""

    name: str
    fingerprint: str
    size: int  # side of the pictures it looks at, px

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Features (N, D) of pictures of any size."""
        ...

    def texts(self, captions: Sequence[str]) -> np.ndarray:
        """Features (M, D) of captions."""
        ...


class ClipJudge:
    """A CLIP as a judge."""

    def __init__(self, clip: Clip):
        self.name, self.fingerprint, self.size = clip.name, clip.fingerprint, clip.size
        self._clip = clip

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        return unit(self._clip.images(pictures)).double().numpy()

    def texts(self, captions: Sequence[str]) -> np.ndarray:
        return unit(self._clip.texts(captions)).double().numpy()


def load_judge(model: str | Path | None, *, judged: str | Path | None = None, device: str = "auto") -> ClipJudge:
    """The judge that is the CLIP of `model`, by default the shipped one, in fp32.

    Raises RequestError when none is given and none is shipped, or when `judged`, the model that it is to judge, is
    conditioned by the same CLIP; WeightsError when there is no such CLIP, or it is not whole.
    """
    if model is None:
        if SHIPPED not in store.shipped_bundles():
            raise RequestError("no judge is shipped with this package: give one, trained apart, with --judge")
        model = SHIPPED
    judge = ClipJudge(load_clip(model, device=device, precision="fp32"))
    if judged is not None:
        refuse_the_models_own(judge, judged)
    return judge


def refuse_the_models_own(judge: ClipJudge, model: str | Path) -> None:
    """RequestError when a CLIP of `model` has the judge's weights."""
    for part in open_model(model).networks.values():
        if part.kind == "clip" and store.fingerprint(part.read()) == judge.fingerprint:
            raise RequestError(
                f"the judge {judge.name} is the CLIP that conditions {model} (fingerprint {judge.fingerprint[:12]}): "
                "a model cannot judge itself, give a CLIP trained apart with --judge"
            )
