"""The whole of unCLIP in a row: prompt -> text embedding -> prior -> z -> decoder -> small image -> upsamplers -> image.

An `UnCLIP` holds the parts of a bundle and the steps between them; what people do with them is in `tasks`. Dimension
letters: B batch, E embedding, K candidates.

Every image draws from generators of its own, one stream per stage, so its noise depends on its seed alone. In exact mode
(the default on a CPU) images also go through the networks one by one, because the order in which a matrix product adds up
depends on the batch: then the same seed gives the same bytes, whatever is asked for beside it. Otherwise batches differ by
less than 2/255.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from unclip.config import Config
from unclip.device import Precision, autocast, pick_device, store_as_multiplied
from unclip.diffusion.process import DiffusionConfig
from unclip.diffusion.samplers import Step
from unclip.errors import RequestError, WeightsError
from unclip.images import resize, rgb, square_crop, to_images, to_tensor
from unclip.models.clip import CLIP, CLIPConfig, Text
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.rng import Rng
from unclip.stages import (
    OnStep,
    PriorSamplerName,
    SamplerName,
    SamplingConfig,
    sample_decoder,
    sample_prior,
    sample_upsampler,
)
from unclip.tokenizer import Tokenizer
from unclip.weights import store

Progress = Callable[[str, Step], None]
"""Told the stage's name and its step; raising in it cancels."""

Module = TypeVar("Module", bound=nn.Module)
# Streams of an image's seed: the prior's candidates come after these.
_DECODER, _UPSAMPLERS, _PRIOR = 0, 1, 16
CANDIDATES = 2  # the prior's samples an image; the better of two is kept (section 2.2)


@dataclass(frozen=True)
class Stage(Generic[Module]):
    """A diffusion network with what it takes to sample it."""

    module: Module
    diffusion: DiffusionConfig
    sampling: SamplingConfig


class Options(Config):
    """What a caller may change of a bundle's sampling settings; None keeps the bundle's."""

    steps: int | str | None = None
    guidance: float | None = Field(default=None, ge=0)
    prior_steps: int | str | None = None
    prior_guidance: float | None = Field(default=None, ge=0)
    prior_sampler: PriorSamplerName | None = None
    upsampler_steps: int | str | None = None
    sampler: SamplerName | None = None

    def decoder(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, self.steps, self.guidance, self.sampler)

    def prior(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, self.prior_steps, self.prior_guidance, self.prior_sampler)

    def upsampler(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, self.upsampler_steps, None, None)


AS_SAVED = Options()


class UnCLIP:
    """The parts of a bundle on one device. `load` makes one."""

    def __init__(
        self,
        name: str,
        clip: CLIP,
        tokenizer: Tokenizer,
        prior: Stage[Prior],
        decoder: Stage[Decoder],
        upsamplers: Sequence[Stage[Upsampler]],
        *,
        device: torch.device,
        precision: Precision = "auto",
    ):
        self.name = name
        self.clip = clip
        self.tokenizer = tokenizer
        self.prior = prior
        self.decoder = decoder
        self.upsamplers = _chain(name, decoder.module.cfg.unet.image_size, upsamplers)
        self.device = device
        self.precision: Precision = precision

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sides, in pixels, of the images it can make."""
        return (self.decoder.module.cfg.unet.image_size, *(stage.module.cfg.high for stage in self.upsamplers))

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """What CLIP's text encoder gives for B prompts."""
        tokens = self.tokenizer(prompts)
        with self._running():
            text = self.clip.encode_text(tokens.ids.to(self.device), tokens.mask.to(self.device))
        return Text(text.pooled.float(), text.states.float(), text.mask)

    def embed(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """z (B, E) of images of any size; what is outside the middle square is not seen."""
        images = [images] if isinstance(images, Image.Image) else images
        side = self.clip.cfg.vision.image_size
        pixels = torch.cat([resize(to_tensor([square_crop(rgb(image))]), side) for image in images])
        with self._running():
            return self.clip.encode_image(pixels.to(self.device)).float()

    def sample_z(
        self,
        text: Text,
        rng: Rng,
        *,
        options: Options = AS_SAVED,
        candidates: int = CANDIDATES,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The prior's z (B, E): of `candidates` samples a caption, the one whose dot product with `pooled` is largest."""
        sampling = options.prior(self.prior.sampling)
        null = self.encode_text([""])
        best, best_score = None, None
        for candidate in range(candidates):
            with self._running():
                z = sample_prior(
                    self.prior.module, self.prior.diffusion, sampling, text, null, rng.fork(_PRIOR + candidate), on_step
                )
            score = (z * text.pooled).sum(dim=1)
            if best is None or best_score is None:
                best, best_score = z, score
            else:
                better = score > best_score
                best, best_score = torch.where(better[:, None], z, best), torch.where(better, score, best_score)
        assert best is not None
        return best

    def decode(
        self, z: Tensor, rng: Rng, *, text: Text | None = None, options: Options = AS_SAVED, on_step: OnStep | None = None
    ) -> Tensor:
        """Small images (B, 3, S, S) for z (B, E); without `text` the caption is the empty one."""
        null = self.encode_text([""])
        text = text or Text(*(part.expand(len(z), *part.shape[1:]) for part in null))
        stage = self.decoder
        with self._running():
            return sample_decoder(
                stage.module, stage.diffusion, options.decoder(stage.sampling), z, text, null, rng.fork(_DECODER), on_step
            )

    def upsample(
        self, x: Tensor, size: int, rng: Rng, *, options: Options = AS_SAVED, progress: Progress | None = None
    ) -> Tensor:
        """Images (B, 3, size, size) from the decoder's (B, 3, S, S); `size` is one of `sizes`."""
        for index, stage in enumerate(self.upsamplers):
            if stage.module.cfg.high > size:
                break
            on_step = _named(progress, f"to {stage.module.cfg.high} px")
            sampling = options.upsampler(stage.sampling)
            with self._running():
                x = sample_upsampler(stage.module, stage.diffusion, sampling, x, rng.fork(_UPSAMPLERS + index), on_step)
        return x

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        n: int = 1,
        seed: int | Sequence[int] = 0,
        size: int | None = None,
        options: Options = AS_SAVED,
        candidates: int = CANDIDATES,
        exact: bool | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """`n` images a prompt, those of the first prompt first; each carries its settings in `.info["unclip"]`.

        Image i of a prompt has seed `seed + i`; a sequence gives the seed of each prompt's first image. `size` is one of
        `sizes`, the largest up to 256 px by default. `exact`: one image at a time, see the module; None: on a CPU.
        Raises RequestError for no prompt or one that is no text, n < 1, a size that cannot be made, or as many seeds as
        there are not prompts.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
        _check_request(prompts, seeds, n, candidates)
        size = self._check_size(size)
        jobs = [(prompt, first + i) for prompt, first in zip(prompts, seeds, strict=True) for i in range(n)]
        exact = self.device.type == "cpu" if exact is None else exact
        batches = [[job] for job in jobs] if exact else [jobs]
        images: list[Image.Image] = []
        for batch in batches:
            images += self._paint(batch, size, options, candidates, progress)
        return images

    def _paint(
        self, jobs: list[tuple[str, int]], size: int, options: Options, candidates: int, progress: Progress | None
    ) -> list[Image.Image]:
        rng = Rng([seed for _, seed in jobs], device=self.device)
        text = self.encode_text([prompt for prompt, _ in jobs])
        z = self.sample_z(text, rng, options=options, candidates=candidates, on_step=_named(progress, "prior"))
        x = self.decode(z, rng, text=text, options=options, on_step=_named(progress, "decoder"))
        images = to_images(self.upsample(x, size, rng, options=options, progress=progress))
        for image, (prompt, seed) in zip(images, jobs, strict=True):
            image.info["unclip"] = self.settings(prompt, seed, size, options, candidates)
        return images

    def settings(self, prompt: str, seed: int, size: int, options: Options, candidates: int) -> dict[str, Any]:
        """What makes the image again: kept in `.info` and in the PNG."""
        changed = options.model_dump(exclude_none=True)
        return {"prompt": prompt, "seed": seed, "size": size, "model": self.name, "candidates": candidates, **changed}

    def cut(self, prompts: Sequence[str]) -> list[str]:
        """The prompts that are too long for the text encoder, which sees only their beginning."""
        return [prompt for prompt, cut in zip(prompts, self.tokenizer(prompts).cut, strict=True) if cut]

    def _check_size(self, size: int | None) -> int:
        if size is None:
            return max(side for side in self.sizes if side <= max(256, self.sizes[0]))
        if size not in self.sizes:
            raise RequestError(f"{self.name} cannot make {size} px: it makes {', '.join(map(str, self.sizes))}")
        return size

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and the device's autocast."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield


def load(model: str | Path = "icons", *, device: str = "auto", precision: Precision = "auto") -> UnCLIP:
    """A bundle, by the name of a shipped one or by its folder, ready to paint.

    Raises WeightsError when there is no such bundle, or a file of it is missing, torn, or does not fit its config.
    """
    folder = store.find_bundle(model)
    where = pick_device(device)
    manifest = store.read_manifest(folder)
    missing = {"clip", "prior", "decoder"} - set(manifest.parts)
    if missing:
        raise WeightsError(
            f"{folder} lacks {', '.join(sorted(missing))}: it cannot paint; it has {', '.join(manifest.parts)}"
        )

    parts = {name: _load_part(folder, name, entry.kind, where, precision) for name, entry in manifest.parts.items()}
    clip = parts["clip"]
    tokenizer = Tokenizer.from_json(store.read_tokenizer(folder), context=clip.cfg.text.context)
    painter = UnCLIP(
        manifest.name,
        clip,
        tokenizer,
        parts["prior"],
        parts["decoder"],
        [parts[name] for name, entry in manifest.parts.items() if entry.kind == "upsampler"],
        device=where,
        precision=precision,
    )
    _check_parts(painter, folder)
    return painter


_NETWORKS: dict[str, tuple[Callable[[Any], nn.Module], type[Config]]] = {
    "clip": (CLIP, CLIPConfig),
    "prior": (Prior, PriorConfig),
    "decoder": (Decoder, DecoderConfig),
    "upsampler": (Upsampler, UpsamplerConfig),
}


def _load_part(folder: Path, name: str, kind: str, device: torch.device, precision: Precision) -> Any:
    """The CLIP, or the Stage of a diffusion network, that a bundle holds under `name`."""
    where = f"{folder}/{name}/config.json"
    if kind not in _NETWORKS:
        raise WeightsError(f"{folder}: the part {name} is of the unknown kind {kind!r}, expected {', '.join(_NETWORKS)}")
    make, config = _NETWORKS[kind]
    values, state = store.load_part(folder, name)

    def section(key: str, config: type[Config]) -> Any:
        if key not in values:
            raise WeightsError(f"{where}: the key {key} is missing")
        return config.parse(values[key], where=f"{where}: {key}")

    cfg = section("model", config)
    module = store.build(lambda: make(cfg), state, where=f"{folder}/{name}")
    module.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # nn.Module.to's fourth form
    module.eval().requires_grad_(False)
    store_as_multiplied(module, device, precision)
    if kind == "clip":
        return module
    return Stage(module, section("diffusion", DiffusionConfig), section("sampling", SamplingConfig))


def _check_parts(model: UnCLIP, folder: Path) -> None:
    """WeightsError unless the parts speak of the same embeddings, captions and tokens."""
    clip, prior, decoder = model.clip.cfg, model.prior.module.cfg, model.decoder.module.cfg
    pairs = [
        ("prior.embed", prior.embed, "clip.embed", clip.embed),
        ("prior.text_embed", prior.text_embed, "clip.embed", clip.embed),
        ("prior.text_width", prior.text_width, "clip.text.width", clip.text.width),
        ("decoder.embed", decoder.embed, "clip.embed", clip.embed),
        ("decoder.text_embed", decoder.text_embed, "clip.embed", clip.embed),
        ("decoder.text_width", decoder.text_width, "clip.text.width", clip.text.width),
        ("clip.end_token", clip.end_token, "the tokenizer's", model.tokenizer.end),
    ]
    for name, given, other, expected in pairs:
        if given != expected:
            raise WeightsError(f"{folder}: {name} is {given}, but {other} is {expected}: the parts are of different models")
    if prior.context < clip.text.context:
        raise WeightsError(
            f"{folder}: prior.context is {prior.context}, too short for clip.text.context {clip.text.context}"
        )


def _chain(name: str, side: int, upsamplers: Sequence[Stage[Upsampler]]) -> list[Stage[Upsampler]]:
    """The upsamplers in the order they are run in, from the decoder's `side` up; WeightsError where one does not join."""
    ordered = sorted(upsamplers, key=lambda stage: stage.module.cfg.high)
    for stage in ordered:
        if stage.module.cfg.low != side:
            raise WeightsError(
                f"{name}: an upsampler takes {stage.module.cfg.low} px, but what is before it makes {side} px"
            )
        side = stage.module.cfg.high
    return ordered


def _check_request(prompts: Sequence[str], seeds: Sequence[int], n: int, candidates: int) -> None:
    if not prompts:
        raise RequestError("no prompt: give at least one, which may be empty")
    if n < 1 or candidates < 1:
        raise RequestError(f"n = {n} and candidates = {candidates}: expected at least 1 each")
    if len(seeds) != len(prompts):
        raise RequestError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one seed, or one for each prompt")


def _changed(
    sampling: SamplingConfig, steps: int | str | None, guidance: float | None, sampler: PriorSamplerName | None
) -> SamplingConfig:
    values = sampling.model_dump()
    if steps is not None:
        values["steps"] = steps
    if sampler is not None:
        values["sampler"] = sampler
    if guidance is not None:
        values["guidance"]["scale"] = guidance
    return SamplingConfig.parse(values, where="options")


def _named(progress: Progress | None, stage: str) -> OnStep | None:
    return None if progress is None else lambda step: progress(stage, step)
