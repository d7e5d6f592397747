"""Who answers a suite: a function from items to a picture each, of any size. A model in two ways, or anybody else's."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from unclip.errors import RequestError
from unclip.evaluate.suite import Item
from unclip.images import to_images
from unclip.pipeline import UnCLIP
from unclip.request import AS_SAVED, Options
from unclip.rng import Rng

Painter = Callable[[Sequence[Item]], list[Image.Image]]
Progress = Callable[[int, int], None]


def from_prompts(model: UnCLIP, size: int, options: Options = AS_SAVED) -> Painter:
    """The whole chain at `size` px: prompt, prior, decoder, upsamplers. It sees prompts and seeds alone.

    Prompts go to the model as they are: a held-out thing, which it has no word for, is not to be read as another.
    """
    as_typed = options.model_copy(update={"as_typed": True})

    def paint(items: Sequence[Item]) -> list[Image.Image]:
        prompts, seeds = [item.prompt for item in items], [item.seed for item in items]
        return model.generate(prompts, seed=seeds, size=size, options=as_typed, exact=False)

    return paint


def from_true_z(model: UnCLIP, size: int, options: Options = AS_SAVED) -> Painter:
    """The decoder, given the z of the real render in place of the prior's: what a perfect prior would bring.

    Raises RequestError for a size that the model cannot make.
    """
    if size not in model.sizes:
        raise RequestError(f"{model.name} cannot make {size} px: it makes {', '.join(map(str, model.sizes))}")

    def paint(items: Sequence[Item]) -> list[Image.Image]:
        rng = Rng([item.seed for item in items], device=model.device)
        text = model.encode_text([item.prompt for item in items])
        x = model.decode(model.embed([item.real for item in items]), rng, text=text, options=options)
        return to_images(model.upsample(x, size, rng, options=options))

    return paint


@torch.inference_mode()
def paint_all(painter: Painter, items: Sequence[Item], *, batch: int, progress: Progress | None = None) -> list[Image.Image]:
    """A picture for each item, `batch` at a time."""
    pictures: list[Image.Image] = []
    for start in range(0, len(items), batch):
        pictures += painter(items[start : start + batch])
        if progress is not None:
            progress(len(pictures), len(items))
    return pictures
