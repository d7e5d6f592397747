"""GLIDE (2112.10741) in a row: prompt -> small image -> large image. UnCLIP's ancestor has no CLIP, no prior and no z.

A `GLIDE` holds two networks and the tokens they share; each reads the caption with a transformer of its own. It is asked as
`pipeline.UnCLIP` is, and keeps its promises: an image's noise depends on its seed alone, and in exact mode (the default on a
CPU) its bytes do too. `sample_glide` is one stage, and the way to fill a hole in a picture with the inpainting networks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip.device import Precision, autocast
from unclip.errors import RequestError, WeightsError
from unclip.images import to_images
from unclip.models.clip import Text
from unclip.models.glide import Glide, GlideConfig
from unclip.models.glide_tokenizer import GlideTokenizer
from unclip.models.known import Known
from unclip.request import AS_SAVED, Job, Options, Progress, jobs, named, pick_size
from unclip.rng import Rng
from unclip.shelf import Shelf, Stage
from unclip.stages import OnStep, SamplingConfig, both_branches, first_noise, sample
from unclip.weights.source import ModelSource

GlideStage = Stage[Glide, GlideConfig]

_BASE, _UPSAMPLER = 0, 1  # streams of an image's seed


def sample_glide(
    stage: GlideStage,
    sampling: SamplingConfig,
    text: Text,
    null: Text,
    rng: Rng,
    *,
    low: Tensor | None = None,
    known: Known | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images (B, 3, S, S) in [-1, 1] for captions of batch B; `null` is the empty caption's Text, of batch 1 or B.

    `low` (B, 3, h, w) is what an upsampler enlarges. `known` is what an inpainting network keeps, image (B, 3, S, S) and
    mask (B, 1, S, S): every predicted x_0 is the picture's own there, and so is the result. RequestError for one that does
    not fit.
    """
    module = stage.module
    side, count = module.cfg.unet.image_size, len(text.pooled)
    condition = None if low is None else module.enlarge(low)
    shape = (3, side, side) if condition is None else tuple(condition.shape[1:])
    if known is not None:
        _check_known(known, module.cfg, (count, *shape))

    def network(x: Tensor, t: Tensor) -> Tensor:
        guided = len(x) > count  # the conditional rows, and then the unconditional ones
        enlarged = condition if condition is None or not guided else torch.cat([condition, condition])
        kept = known if known is None or not guided else known.twice()
        return module(x, t, both_branches(text, null, len(x)), enlarged, kept)

    noise = first_noise(sampling, shape, rng)
    return sample(network, stage.diffusion, sampling, noise, rng, on_step=on_step, known=known)


class GLIDE:
    """A base network, an upsampler and their tokens on one device; WeightsError where they do not go together."""

    def __init__(self, source: ModelSource, *, device: torch.device, precision: Precision = "auto", offload: bool = False):
        shelf = Shelf(source, device=device, precision=precision, offload=offload)
        stages = [GlideStage(shelf, name) for name in shelf.names("glide")]
        painting = [stage for stage in stages if not stage.cfg.inpaint]
        base, *upsamplers = sorted(painting or stages, key=lambda stage: stage.cfg.unet.image_size)
        if len(upsamplers) > 1:
            raise WeightsError(f"{source.where} has {len(upsamplers)} upsamplers, expected one at most")
        self.source = source
        self.name = source.name
        self.base = base
        self.upsampler = upsamplers[0] if upsamplers else None
        self.inpainting = [stage for stage in stages if stage.cfg.inpaint]
        """The networks that fill holes, the small one first: for `sample_glide`."""
        tokenizer = source.tokenizer(base.cfg.text.context)
        assert isinstance(tokenizer, GlideTokenizer), "a model with GLIDE's networks has GLIDE's tokenizer"
        self.tokenizer = tokenizer
        self.device = device
        self.precision: Precision = precision
        _check_parts(self.name, tokenizer, base.cfg, None if self.upsampler is None else self.upsampler.cfg)
        if not offload:
            for name in source.networks:
                shelf.network(name)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sides, in pixels, of the images it can make."""
        stages = [self.base] if self.upsampler is None else [self.base, self.upsampler]
        return tuple(stage.cfg.unet.image_size for stage in stages)

    def encode_text(self, stage: GlideStage, prompts: Sequence[str]) -> Text:
        """What the text transformer of that stage's network gives for B prompts."""
        tokens = self.tokenizer(prompts)
        with self._running():
            text = stage.module.encode_text(tokens.ids.to(self.device), tokens.mask.to(self.device))
        return Text(text.pooled.float(), text.states.float(), text.mask)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        n: int = 1,
        seed: int | Sequence[int] = 0,
        size: int | None = None,
        options: Options = AS_SAVED,
        exact: bool | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """`n` images a prompt, those of the first prompt first; each carries its settings in `.info["unclip"]`.

        Image i of a prompt has seed `seed + i`; a sequence gives the seed of each prompt's first image. `size` is one of
        `sizes`, the largest up to 256 px by default. `exact`: one image at a time, so that its bytes depend on nothing
        beside it; None: on a CPU. Raises RequestError for no prompt or one that is no text, n < 1, a size that cannot be
        made, as many seeds as there are not prompts, or options for a prior, which there is none.
        """
        asked = jobs(prompts, seed, n)
        if (options.prior_steps, options.prior_guidance, options.prior_sampler) != (None, None, None):
            raise RequestError(f"{self.name} is a GLIDE and has no prior: leave the prior's options out")
        size = pick_size(self.name, self.sizes, size)
        exact = self.device.type == "cpu" if exact is None else exact
        images = self._paint([[job] for job in asked] if exact else [asked], size, options, progress)
        for image, job in zip(images, asked, strict=True):
            image.info["unclip"] = self.settings(job.prompt, job.seed, size, options)
        return images

    def _paint(self, batches: list[list[Job]], size: int, options: Options, progress: Progress | None) -> list[Image.Image]:
        """The images of batches of jobs; stage by stage, so that an off-loaded network is loaded once for all."""
        rngs = [Rng([job.seed for job in batch], device=self.device) for batch in batches]
        prompts = [[job.prompt for job in batch] for batch in batches]
        sampling, on_step = options.decoder(self.base.sampling), named(progress, "base")
        xs = [
            self._sample(self.base, sampling, given, rng.fork(_BASE), None, on_step)
            for given, rng in zip(prompts, rngs, strict=True)
        ]
        if self.upsampler is not None and size > self.sizes[0]:
            sampling, on_step = options.upsampler(self.upsampler.sampling), named(progress, f"to {size} px")
            xs = [
                self._sample(self.upsampler, sampling, given, rng.fork(_UPSAMPLER), x, on_step)
                for given, rng, x in zip(prompts, rngs, xs, strict=True)
            ]
        return [image for x in xs for image in to_images(x)]

    def settings(self, prompt: str, seed: int, size: int, options: Options) -> dict[str, Any]:
        """What makes the image again: kept in `.info` and in the PNG."""
        return {"prompt": prompt, "seed": seed, "size": size, "model": self.name, **options.model_dump(exclude_none=True)}

    def cut(self, prompts: Sequence[str]) -> list[str]:
        """The prompts that are too long for the text transformers, which see only their beginning."""
        return [prompt for prompt, cut in zip(prompts, self.tokenizer(prompts).cut, strict=True) if cut]

    def _sample(
        self,
        stage: GlideStage,
        sampling: SamplingConfig,
        prompts: Sequence[str],
        rng: Rng,
        low: Tensor | None,
        on_step: OnStep | None,
    ) -> Tensor:
        text, null = self.encode_text(stage, prompts), self.encode_text(stage, [""])
        with self._running():
            return sample_glide(stage, sampling, text, null, rng, low=low, on_step=on_step)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and the device's autocast."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield


def _check_known(known: Known, cfg: GlideConfig, shape: tuple[int, ...]) -> None:
    if not cfg.inpaint:
        raise RequestError(
            "a known part was given to a network that fills no holes: take an inpainting one, or leave it out"
        )
    expected = (shape, (shape[0], 1, *shape[2:]))
    given = tuple(tuple(part.shape) for part in known)
    if given != expected:
        raise RequestError(
            f"the known image and mask are {given[0]} and {given[1]}, expected {expected[0]} and {expected[1]}"
        )


def _check_parts(name: str, tokenizer: GlideTokenizer, base: GlideConfig, upsampler: GlideConfig | None) -> None:
    """WeightsError unless the parts speak of the same tokens and sides."""
    if base.low is not None:
        raise WeightsError(f"{name}: the base network enlarges {base.low} px: expected one that paints from nothing")
    for part, cfg in (("base", base), ("upsampler", upsampler)):
        if cfg is None:
            continue
        given, expected = (tokenizer.vocab, tokenizer.context), (cfg.text.vocab, cfg.text.context)
        if given != expected:
            raise WeightsError(
                f"{name}: the tokenizer has {given[0]} tokens and context {given[1]}, but the {part} expects "
                f"{expected[0]} and {expected[1]}: they are of different models"
            )
    if upsampler is not None and upsampler.low != base.unet.image_size:
        raise WeightsError(f"{name}: the upsampler takes {upsampler.low} px, but the base makes {base.unet.image_size} px")
