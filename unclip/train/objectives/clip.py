"""Training CLIP: pictures and captions of a pool, the contrastive loss, retrieval on a pool that was held out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from unclip.config import Config
from unclip.data.order import Order
from unclip.data.pool import Pool
from unclip.errors import ConfigError
from unclip.images import from_pixels, grid, to_images
from unclip.models.clip import CLIP, CLIPConfig
from unclip.seeds import mix
from unclip.tokenizer import Tokenizer

CHOICES = 100  # captions to choose among: right by chance 1 %
SHOWN = 6  # captions in the preview, each with as many pictures
NOBODYS = -1  # in place of a caption's number: no picture of the pool has it


class ClipData(Config):
    pool: Path
    valid: Path | None = None
    seed: int = 0
    wrong: int = Field(0, ge=0)
    """So many of the captions that a sample calls wrong (its meta's `wrong`) stand beside the right one, if it has any."""


class ClipObjective:
    """Trains a CLIP of `model`'s shape on `data.pool`."""

    def __init__(self, model: CLIPConfig, data: ClipData, tokenizer: Tokenizer):
        self.pool = Pool(data.pool)
        self.valid = None if data.valid is None else Pool(data.valid)
        if model.vision is None:
            raise ConfigError("model.vision is null: a CLIP is trained on pictures, give it an image encoder")
        if self.pool.size != model.vision.image_size:
            raise ConfigError(
                f"the pool {data.pool} is {self.pool.size} px, but model.vision.image_size is {model.vision.image_size}"
            )
        if tokenizer.vocab > model.text.vocab:
            raise ConfigError(f"the tokenizer has {tokenizer.vocab} entries, but model.text.vocab is {model.text.vocab}")
        if tokenizer.end != model.end_token:
            raise ConfigError(f"the tokenizer ends a caption with {tokenizer.end}, but model.end_token is {model.end_token}")
        self.tokenizer = tokenizer
        self.module = CLIP(model)
        self.order = Order(len(self.pool), data.seed)
        self._seed, self._wrong = data.seed, data.wrong
        self._distinct = {caption: index for index, caption in enumerate(dict.fromkeys(self.pool.captions))}

    def prepare(self, say: Callable[[str], object]) -> None:
        return None

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        rows = [self.order(position) for position in positions]
        captions = [self.pool.samples[row]["caption"] for row in rows]
        for position, row in zip(positions, rows, strict=True):
            wrong = self.pool.samples[row]["meta"].get("wrong", [])
            captions += Random(mix(self._seed, position)).sample(wrong, min(self._wrong, len(wrong)))
        ids, mask, _ = self.tokenizer(captions)
        length = int(mask.sum(1).max())  # columns that are padding in every row cost time and change nothing
        return {
            "images": self.pool.pixels(rows),
            "caption": torch.tensor([self._distinct.get(caption, NOBODYS) for caption in captions]),
            "ids": ids[:, :length],
            "mask": mask[:, :length],
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        z = self.module.encode_image(batch["images"].movedim(-1, 1).float() / 127.5 - 1)
        text = self.module.encode_text(batch["ids"], batch["mask"])
        same = batch["caption"][: len(z), None] == batch["caption"]
        loss = self.module.loss(z, text.pooled, same)
        with torch.no_grad():
            best = self.module.logits(z, text.pooled).argmax(dim=1)
            right = same[torch.arange(len(best), device=best.device), best].float().mean()
        return loss, {"accuracy": right, "logit_scale": self.module.logit_scale.detach().exp()}

    def evaluate(self, module: CLIP) -> dict[str, float]:
        """Right caption among 100, image to text and back, on each split that the validation pool's samples name."""
        if self.valid is None:
            return {}
        z, pooled = self._encode(module, self.valid)
        splits = [sample["meta"].get("split", "valid") for sample in self.valid.samples]
        figures = {}
        for split in dict.fromkeys(splits):
            rows = torch.tensor([index for index, name in enumerate(splits) if name == split])
            image_to_text, text_to_image = retrieval(module, z[rows], pooled[rows])
            figures |= {f"{split}/image_to_text": image_to_text, f"{split}/text_to_image": text_to_image}
        return figures

    def preview(self, module: CLIP) -> Image.Image | None:
        """Each row: the pictures that a caption finds first in the validation pool."""
        if self.valid is None:
            return None
        z, pooled = self._encode(module, self.valid)
        step = max(1, len(self.valid) // SHOWN)
        queries = list(range(0, len(self.valid), step))[:SHOWN]
        found = module.logits(z, pooled[queries]).T.argsort(dim=1, descending=True)[:, :SHOWN]
        pictures = [image for row in found for image in to_images(from_pixels(self.valid.images[row.numpy()]))]
        captions = [
            self.valid.captions[query] if not column else "" for query in queries for column in range(found.shape[1])
        ]
        return grid(pictures, SHOWN, captions)

    def _encode(self, module: CLIP, pool: Pool) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(pool.captions)
        device = next(module.parameters()).device
        z, pooled = [], []
        for start in range(0, len(pool), 256):
            rows = slice(start, start + 256)
            z.append(module.encode_image(pool.tensor(range(*rows.indices(len(pool)))).to(device)).float().cpu())
            pooled.append(module.encode_text(tokens.ids[rows].to(device), tokens.mask[rows].to(device)).pooled.float().cpu())
        return torch.cat(z), torch.cat(pooled)


def retrieval(clip: CLIP, z: Tensor, pooled: Tensor, choices: int = CHOICES) -> tuple[float, float]:
    """The share of images whose caption, and of captions whose image, is ranked first among `choices`; over whole groups."""
    choices = min(choices, len(z))
    logits = [clip.logits(z[s : s + choices], pooled[s : s + choices]) for s in range(0, len(z) - choices + 1, choices)]
    truth = torch.arange(choices, device=logits[0].device)
    image_to_text = torch.stack([(group.argmax(1) == truth).float().mean() for group in logits]).mean()
    text_to_image = torch.stack([(group.argmax(0) == truth).float().mean() for group in logits]).mean()
    return float(image_to_text), float(text_to_image)
