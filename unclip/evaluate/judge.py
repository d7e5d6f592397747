"""The judge: a CLIP trained apart, whose features and whose sense of what fits a caption every figure rests on.

GLIDE (2112.10741, section 5.2) shows why it must not be the CLIP that conditions the model: pictures made to please one CLIP
score high with it while people disagree. So a judge that has the same weights as a CLIP of the model is refused.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.config import Config
from unclip.errors import ConfigError, RequestError, WeightsError
from unclip.images import resize_image, rgb, to_tensor
from unclip.models.clip import CLIP, CLIPConfig
from unclip.tokenizer import Tokenizer
from unclip.weights import store

SHIPPED = "icons-judge"
PART = "clip"
BATCH = 128


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


class ClipPart(Config):
    """What a bundle keeps in a CLIP's config.json."""

    model: CLIPConfig


class ClipJudge:
    """A CLIP and its own tokenizer as a judge."""

    def __init__(self, clip: CLIP, tokenizer: Tokenizer, *, name: str, device: torch.device | str = "cpu"):
        self.name = name
        self.fingerprint = fingerprint(clip.state_dict())
        if clip.cfg.vision is None:
            raise WeightsError(f"the judge {name} reads captions only: give a CLIP with an image encoder")
        self.size = clip.cfg.vision.image_size
        self._clip = clip.eval().to(device)
        self._tokenizer = tokenizer
        self._device = device

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        rows = []
        for start in range(0, len(pictures), BATCH):
            x = to_tensor([self._sized(rgb(picture)) for picture in pictures[start : start + BATCH]])
            rows.append(self._clip.encode_image(x.to(self._device)))
        return _unit(torch.cat(rows))

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> np.ndarray:
        rows = []
        for start in range(0, len(captions), BATCH):
            tokens = self._tokenizer(captions[start : start + BATCH])
            rows.append(self._clip.encode_text(tokens.ids.to(self._device), tokens.mask.to(self._device)).pooled)
        return _unit(torch.cat(rows))

    def _sized(self, picture: Image.Image) -> Image.Image:
        return picture if picture.size == (self.size, self.size) else resize_image(picture, self.size)


def _unit(features: Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).double().cpu().numpy()


def load_judge(
    folder: str | Path | None, *, bundle: str | Path | None = None, device: torch.device | str = "cpu"
) -> ClipJudge:
    """The judge in a bundle's part `clip`, by default the shipped one.

    Raises RequestError when none is given and none is shipped, or when `bundle`, the model to be judged, is conditioned by
    the same CLIP; WeightsError when the folder holds no whole judge.
    """
    if folder is None:
        if SHIPPED not in store.shipped_bundles():
            raise RequestError("no judge is shipped with this package: give the folder of one, trained apart, with --judge")
        folder = SHIPPED
    path = store.find_bundle(folder)
    config, state = store.load_part(path, PART)
    try:
        cfg = ClipPart.parse(config, where=f"{path / PART / store.CONFIG}").model
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    clip = store.build(lambda: CLIP(cfg), state, where=str(path / PART))
    tokenizer = Tokenizer.from_json(store.read_tokenizer(path), context=cfg.text.context)
    judge = ClipJudge(clip, tokenizer, name=store.read_manifest(path).name, device=device)
    if bundle is not None:
        refuse_the_models_own(judge, store.find_bundle(bundle))
    return judge


def refuse_the_models_own(judge: ClipJudge, bundle: Path) -> None:
    """RequestError when a CLIP of `bundle` has the judge's weights."""
    for name, part in store.read_manifest(bundle).parts.items():
        if part.kind == "clip" and fingerprint(store.load_part(bundle, name)[1]) == judge.fingerprint:
            raise RequestError(
                f"the judge {judge.name} is the CLIP that conditions {bundle} (fingerprint {judge.fingerprint[:12]}): "
                "a model cannot judge itself, give a CLIP trained apart with --judge"
            )


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """sha256 of a network's names, shapes and weights, rounded to bf16 so that the precision of a file is no disguise."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().to(torch.bfloat16).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
