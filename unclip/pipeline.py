"""The whole of unCLIP in a row: prompt -> text embedding -> prior -> z -> decoder -> small image -> upsamplers -> image.

An `UnCLIP` holds the parts of a bundle and the steps between them; what people do with them is in `tasks`. Dimension
letters: B batch, E embedding, K candidates.

Every image draws from generators of its own, one stream per stage, so its noise depends on its seed alone. In exact mode
(the default on a CPU) images also go through the networks one by one, because the order in which a matrix product adds up
depends on the batch: then the same seed gives the same bytes, whatever is asked for beside it. Otherwise batches differ by
less than 2/255.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip import parts
from unclip.clip import Clip
from unclip.device import Precision, autocast, pick_device
from unclip.diffusion.process import q_sample
from unclip.diffusion.schedule import respace
from unclip.errors import RequestError
from unclip.glide import GLIDE
from unclip.images import resize, rgb, square_crop, to_images, to_tensor
from unclip.models.clip import CLIP, CLIPConfig, Text
from unclip.models.known import Known
from unclip.parts import DecoderStage, PriorStage
from unclip.request import AS_SAVED, INVERSION_STEPS, Method, Options, Progress, jobs, named, pick_size, retracing
from unclip.rng import Rng
from unclip.shelf import Network, Shelf, UpsamplerStage
from unclip.stages import OnStep, decoder_network, first_noise, invert, repaint, sample, sample_prior, sample_upsampler
from unclip.tokenizer import Tokenizer
from unclip.weights import source as sources
from unclip.weights.opening import open_model
from unclip.weights.source import ModelSource
from unclip.words import Reader, Reading, Words

# Streams of an image's seed: the prior's candidates come after these.
_DECODER, _UPSAMPLERS, _START, _PRIOR = 0, 1, 15, 16
CANDIDATES = 2  # the prior's samples an image; the better of two is kept (section 2.2)
REFINEMENTS = 1  # of each step of an inversion: 52 dB in place of 38 on the icons decoder in 50 steps


class UnCLIP:
    """The parts of a model on one device. `load` makes one; what it lacks a part for, it refuses when asked."""

    def __init__(self, source: ModelSource, *, device: torch.device, precision: Precision = "auto", offload: bool = False):
        shelf = Shelf(source, device=device, precision=precision, offload=offload)
        self.source = source
        self.name = source.name
        self.device = device
        self.precision: Precision = precision
        self.clip = Network[CLIP, CLIPConfig](shelf, parts.only(shelf, "clip"))
        tokenizer = source.tokenizer(self.clip.cfg.text.context)
        assert isinstance(tokenizer, Tokenizer), "a model with a CLIP has CLIP's tokenizer"
        self.tokenizer = tokenizer
        priors = [*shelf.names("prior"), *shelf.names("laion_prior")]
        self.prior = PriorStage(shelf, priors[0]) if priors else None
        self.decoder = DecoderStage(shelf, "decoder") if shelf.names("decoder") else None
        upsamplers = [UpsamplerStage(shelf, name) for name in shelf.names("upsampler")]
        self.upsamplers = parts.chain(self.name, self.decoder, upsamplers)
        self._null: Text | None = None
        words = source.words()
        self.words = None if words is None else Words.of(words, where=f"{source.where}/words.json")
        parts.check(source.where, self.clip.cfg, tokenizer.end, self.prior, self.decoder)
        if not offload:
            for name in source.networks:
                shelf.network(name)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sides, in pixels, of the images it can make."""
        return (self._decoder().cfg.unet.image_size, *(stage.cfg.high for stage in self.upsamplers))

    @cached_property
    def _reader(self) -> Reader | None:
        return None if self.words is None else Reader(self.words)

    def read(self, prompt: str, options: Options = AS_SAVED) -> Reading:
        """A prompt in the words that it knows (unclip/words): what every task gives to `encode_text`."""
        return Reading(prompt, prompt) if self._reader is None or options.as_typed else self._reader.read(prompt)

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """What CLIP's text encoder gives for B prompts as they are."""
        tokens = self.tokenizer(prompts)
        with self._running():
            text = self.clip.module.encode_text(tokens.ids.to(self.device), tokens.mask.to(self.device))
        return Text(text.pooled.float(), text.states.float(), text.mask)

    def null(self) -> Text:
        """The empty caption's Text, of batch 1: what guidance leads away from."""
        if self._null is None:
            self._null = self.encode_text([""])
        return self._null

    def embed(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """z (B, E) of images of any size; what is outside the middle square is not seen. RequestError without the eyes."""
        vision = self.clip.cfg.vision
        if vision is None:
            raise RequestError(f"{self.name} reads captions only: its repository has no image encoder")
        pixels = self._pixels(images, vision.image_size)
        with self._running():
            return self.clip.module.encode_image(pixels).float()

    def eyes(self) -> Clip:
        """Its CLIP by itself, for what needs nothing else of the model. WeightsError where it only reads."""
        module = self.clip.module
        return Clip(module, self.tokenizer, name=self.name, device=self.device, precision=self.precision)

    def pixels(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """The middle squares of images of any size as the decoder would paint them, x_0 (B, 3, S, S)."""
        return self._pixels(images, self._decoder().cfg.unet.image_size)

    def _pixels(self, images: Image.Image | Sequence[Image.Image], side: int) -> Tensor:
        images = [images] if isinstance(images, Image.Image) else images
        return torch.cat([resize(to_tensor([square_crop(rgb(image))]), side) for image in images]).to(self.device)

    def sample_z(
        self,
        text: Text,
        rng: Rng,
        *,
        options: Options = AS_SAVED,
        candidates: int = CANDIDATES,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The prior's z (B, E): of `candidates` samples a caption, the one whose dot product with `pooled` is largest.

        The candidates of a caption go through the network together, so that they take no more calls than one of them would.
        """
        stage, null = self._prior(), self.null()
        sampling = options.prior(stage.sampling)
        rows, noise = len(text.pooled), rng.fork(*range(_PRIOR, _PRIOR + candidates))
        with self._running():
            zs = sample_prior(stage.module, stage.diffusion, sampling, text.repeat(candidates), null, noise, on_step)
        zs = zs.unflatten(0, (candidates, rows))
        best = (zs * text.pooled).sum(dim=2).argmax(dim=0)
        return zs[best, torch.arange(rows, device=best.device)]

    def decode(
        self,
        z: Tensor,
        rng: Rng,
        *,
        text: Text | None = None,
        x_T: Tensor | None = None,
        layout: Tensor | None = None,
        known: Known | None = None,
        options: Options = AS_SAVED,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Small images (B, 3, S, S) for z (B, E); without `text` the caption is the empty one.

        They start from `x_T` (B, 3, S, S), or from noise of their own, and, if the decoder draws layouts, from `layout`
        (B, 3, s, s), or from that of z. What is `known` of them, at any side, is kept, as `method` says.
        """
        stage, null = self._decoder(), self.null()
        sampling = options.decoder(stage.sampling)
        own, side = rng.fork(_DECODER), stage.cfg.unet.image_size
        with self._running():
            known = None if known is None else known.at(side).rows(len(z))
            x_T = first_noise(sampling, (3, side, side), own) if x_T is None else x_T
            if known is not None and self.method(options) == "repaint":
                network = decoder_network(stage.module, z, text or null.rows(len(z)), null, layout=layout)
                return repaint(network, stage.diffusion, sampling, x_T, own, known, on_step=on_step)
            network = decoder_network(stage.module, z, text or null.rows(len(z)), null, known, layout)
            return sample(network, stage.diffusion, sampling, x_T, own, on_step=on_step, known=known)

    def method(self, options: Options = AS_SAVED) -> Method:
        """How `decode` keeps what is known: as the options say, or else as the decoder was trained to, or by RePaint.

        RequestError where the options want what the decoder was not trained to.
        """
        trained = self._decoder().cfg.inpaint
        if options.method == "trained" and not trained:
            raise RequestError(f"the decoder of {self.name} was not trained to inpaint: take the method repaint")
        return options.method or ("trained" if trained else "repaint")

    def invert(self, x0: Tensor, z: Tensor, *, options: Options = AS_SAVED, on_step: OnStep | None = None) -> Tensor:
        """x_T (B, 3, S, S) of x_0 (B, 3, S, S), given z (B, E) and the empty caption: an image's other half (section 3).

        `decode` comes back to x_0 from it with `request.retracing(options)`. Of the options only the steps matter.
        """
        stage, null = self._decoder(), self.null()
        steps = retracing(Options(steps=options.steps)).steps or INVERSION_STEPS
        with self._running():
            network = decoder_network(stage.module, z, null.rows(len(z)), null)
            return invert(network, stage.diffusion, x0, steps=steps, refinements=REFINEMENTS, on_step=on_step)

    def layout(self, z: Tensor) -> Tensor | None:
        """What the decoder draws from z (B, E) before it begins, small pictures (B, 3, s, s); None where it does not."""
        network, null = self._decoder().module, self.null()
        with self._running():
            return None if network.layout is None else network.layout(z, null.rows(len(z)).pooled)

    def noise(self, rng: Rng) -> Tensor:
        """An x_T (B, 3, S, S) that no other stage draws."""
        side = self._decoder().cfg.unet.image_size
        return rng.fork(_START).normal((3, side, side))

    def noised(self, x0: Tensor, rng: Rng, *, strength: float, options: Options = AS_SAVED) -> tuple[Tensor, Options]:
        """x_0 (B, 3, S, S) after `strength` of the way to noise, and the options that sample from there (2108.01073)."""
        stage = self._decoder()
        schedule = stage.diffusion.noise_schedule()
        steps = respace(schedule, options.decoder(stage.sampling).steps).timesteps.tolist()
        kept = tuple(steps[: max(1, round(strength * len(steps)))])
        return q_sample(schedule, x0, kept[-1], self.noise(rng)), options.model_copy(update={"steps": kept})

    def upsample(
        self,
        x: Tensor,
        size: int,
        rng: Rng,
        *,
        known: Known | None = None,
        options: Options = AS_SAVED,
        progress: Progress | None = None,
    ) -> Tensor:
        """Images (B, 3, size, size) from the decoder's (B, 3, S, S); `size` is one of `sizes`. What is `known` is kept."""
        return self._upsample([x], size, [rng], [known], options, progress)[0]

    def _upsample(
        self,
        xs: list[Tensor],
        size: int,
        rngs: Sequence[Rng],
        knowns: Sequence[Known | None],
        options: Options,
        progress: Progress | None,
    ) -> list[Tensor]:
        """Batches of images, all of them through one upsampler before the next, so that an off-loaded one is loaded once."""
        for index, stage in enumerate(self.upsamplers):
            if stage.cfg.high > size:
                break
            high, sampling = stage.cfg.high, options.upsampler(stage.sampling)
            on_step, stream = named(progress, f"to {high} px"), _UPSAMPLERS + index
            with self._running():
                kept = [None if known is None else known.at(high).rows(len(x)) for x, known in zip(xs, knowns, strict=True)]
                xs = [
                    sample_upsampler(stage.network, stage.diffusion, sampling, x, rng.fork(stream), on_step, known)
                    for x, rng, known in zip(xs, rngs, kept, strict=True)
                ]
        return xs

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
        asked = jobs(prompts, seed, n)
        size = pick_size(self.name, self.sizes, size)
        words, seeds = [job.prompt for job in asked], [job.seed for job in asked]
        given: dict[str, Any] = {"options": options, "exact": exact, "progress": progress}
        text, z = self.imagine(words, seeds, candidates=candidates, **given)
        images = self.paint(z, seeds, text=text, size=size, **given)
        for image, job in zip(images, asked, strict=True):
            image.info["unclip"] = self.settings(job.prompt, job.seed, size, options, candidates)
        return images

    def imagine(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        candidates: int = CANDIDATES,
        options: Options = AS_SAVED,
        exact: bool | None = None,
        progress: Progress | None = None,
    ) -> tuple[Text, Tensor]:
        """The Text of B prompts, as `read`, and the prior's z (B, E) for them, a seed each."""
        if candidates < 1:
            raise RequestError(f"candidates = {candidates}: expected at least 1")
        self._prior()
        batches = self._batches(len(prompts), exact)
        known = [self.read(prompt, options).text for prompt in prompts]
        texts = [self.encode_text(known[rows]) for rows in batches]
        self.null()  # while CLIP is there
        rngs = [Rng(seeds[rows], device=self.device) for rows in batches]
        zs = [
            self.sample_z(text, rng, options=options, candidates=candidates, on_step=named(progress, "prior"))
            for text, rng in zip(texts, rngs, strict=True)
        ]
        return Text(*(torch.cat(parts) for parts in zip(*texts, strict=True))), torch.cat(zs)

    def paint(
        self,
        z: Tensor,
        seeds: Sequence[int],
        *,
        text: Text | None = None,
        x_T: Tensor | None = None,
        layout: Tensor | None = None,
        known: Known | None = None,
        size: int | None = None,
        options: Options = AS_SAVED,
        exact: bool | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """Images of z (B, E), a seed each, as `decode` and `upsample` make them; `size` and `exact` as in `generate`.

        What is `known` of them, a row for each or one for all, is best given at `size`. All go through a stage before the
        next, so that an off-loaded network is loaded once.
        """
        size, batches = pick_size(self.name, self.sizes, size), self._batches(len(z), exact)
        rngs = [Rng(seeds[rows], device=self.device) for rows in batches]
        on_decoder = named(progress, "decoder")
        knowns = [None if known is None else known.rows(len(z)).select(rows) for rows in batches]
        xs = [
            self.decode(
                z[rows],
                rng,
                text=None if text is None else text.select(rows),
                x_T=None if x_T is None else x_T[rows],
                layout=None if layout is None else layout[rows],
                known=kept,
                options=options,
                on_step=on_decoder,
            )
            for rows, rng, kept in zip(batches, rngs, knowns, strict=True)
        ]
        return [image for x in self._upsample(xs, size, rngs, knowns, options, progress) for image in to_images(x)]

    def _batches(self, count: int, exact: bool | None) -> list[slice]:
        """The rows that go through the networks together: in exact mode each alone."""
        exact = self.device.type == "cpu" if exact is None else exact
        size = 1 if exact else max(count, 1)
        return [slice(start, start + size) for start in range(0, count, size)]

    def settings(self, prompt: str, seed: int, size: int, options: Options, candidates: int) -> dict[str, Any]:
        """What makes the image again: kept in `.info` and in the PNG."""
        said = {"prompt": prompt, **self.read(prompt, options).told()}
        said |= {"seed": seed, "size": size, "model": self.name, "candidates": candidates}
        return said | options.model_dump(exclude_none=True)

    def save(self, folder: str | Path, *, name: str | None = None, dtype: torch.dtype | None = None) -> Path:
        """Writes the model as a bundle, each part read again from where it came from; `dtype` None: as it is there."""
        return sources.save(self.source, folder, name=name or Path(folder).resolve().name, dtype=dtype)

    def cut(self, prompts: Sequence[str], options: Options = AS_SAVED) -> list[str]:
        """The prompts that are, as `read`, too long for the text encoder, which sees only their beginning."""
        known = [self.read(prompt, options).text for prompt in prompts]
        return [prompt for prompt, cut in zip(prompts, self.tokenizer(known).cut, strict=True) if cut]

    def _prior(self) -> PriorStage:
        if self.prior is None:
            raise RequestError(f"{self.name} has no prior: it paints from pictures, not from prompts")
        return self.prior

    def _decoder(self) -> DecoderStage:
        if self.decoder is None:
            raise RequestError(f"{self.name} has no decoder: it embeds prompts, and paints nothing")
        return self.decoder

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and the device's autocast."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield


def load(
    model: str | Path = "icons", *, device: str = "auto", precision: Precision = "auto", offload: bool = False
) -> UnCLIP | GLIDE:
    """A model, ready to paint: a shipped one by its name, a folder, or a repository of the Hugging Face hub.

    What is read is said in `weights.opening`. `offload` keeps one network in memory at a time and loads each when it is
    wanted: slower, and enough for Karlo on a machine with 8 GB. Raises WeightsError when there is no such model, or a file
    of it is missing, torn, or does not fit its config.
    """
    opened, where = open_model(model), pick_device(device)
    kind = GLIDE if any(part.kind == "glide" for part in opened.networks.values()) else UnCLIP
    return kind(opened, device=where, precision=precision, offload=offload)
