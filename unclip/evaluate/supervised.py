"""What CLIP is measured against where labels are known: its own image encoder taught the labels, and a line on its z.

CLIP's paper sets zero-shot CLIP beside networks that were trained on labels (2103.00020, section 3.3), and a linear probe on
its features beside both (3.2). The first is an `Objective` for `train.loop`: an encoder of the same shape, whose projection
has a row a class instead of a row a dimension. Letters: N pictures, K classes, E embedding, S their side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.data.order import Order
from unclip.device import autocast
from unclip.images import from_pixels
from unclip.models.clip import CLIPConfig, VisionEncoder

BATCH = 256


@dataclass(frozen=True)
class Labelled:
    """Pictures, uint8 (N, S, S, 3), which may be mapped, each with what it shows; None: not one thing, passed over."""

    pixels: np.ndarray
    labels: Sequence[str | None]

    @cached_property
    def rows(self) -> list[int]:
        """Those that have a label."""
        return [row for row, label in enumerate(self.labels) if label is not None]

    @property
    def classes(self) -> list[str]:
        """Every label, sorted: a class's number is its place."""
        return sorted({label for label in self.labels if label is not None})


class LabelObjective:
    """Teaches an image encoder of `model`'s shape the labels of `pictures`; `valid`, of labels among those, says how far."""

    def __init__(self, model: CLIPConfig, pictures: Labelled, valid: Labelled, seed: int = 0):
        assert model.vision is not None, "what is taught labels looks at pictures"
        self.pictures, self.valid = pictures, valid
        self.classes = pictures.classes
        self.order = Order(len(pictures.rows), seed)
        self._class = {label: number for number, label in enumerate(self.classes)}
        self.module: nn.Module = VisionEncoder(model.vision, len(self.classes), model.act, model.mean, model.std)

    def prepare(self, say: Callable[[str], object]) -> None:
        return None

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        rows = np.array([self.pictures.rows[self.order(position)] for position in positions])
        return {"images": torch.from_numpy(self.pictures.pixels[rows]), "label": self._numbers(self.pictures, rows)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        logits = self.module(batch["images"].movedim(-1, 1).float() / 127.5 - 1).float()
        right = (logits.detach().argmax(1) == batch["label"]).float().mean()
        return F.cross_entropy(logits, batch["label"]), {"accuracy": right}

    def preview(self, module: nn.Module) -> None:
        return None

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Of the pictures in `valid`: the share whose label comes first, and the mean loss."""
        rows = np.array(self.valid.rows)
        truth = self._numbers(self.valid, rows)
        logits = scores(module, from_pixels(self.valid.pixels[rows]))
        right = (logits.argmax(1) == truth).float().mean()
        return {"top1": float(right), "loss": float(F.cross_entropy(logits, truth))}

    def _numbers(self, pictures: Labelled, rows: np.ndarray) -> Tensor:
        return torch.tensor([self._class[pictures.labels[row] or ""] for row in rows])


def scores(module: nn.Module, x: Tensor) -> Tensor:
    """What a network says of pictures (N, 3, S, S) in [-1, 1], fp32 on the CPU; in bf16 where the hardware has it."""
    device = next(module.parameters()).device
    with torch.inference_mode(), autocast(device):
        return torch.cat([module(part.to(device)).float().cpu() for part in x.split(BATCH)])


def linear_probe(z: Tensor, label: Tensor, classes: int, *, decay: float, steps: int = 100) -> nn.Linear:
    """Logistic regression on features z (N, E), label (N,) of so many classes, by L-BFGS from zero (CLIP, appendix A.3).

    The loss is the mean cross-entropy and decay / 2 of the square of the weights of features of mean 0 and variance 1.
    """
    mean, std = z.mean(0), z.std(0).clamp(min=1e-6)
    features = (z - mean) / std
    probe = nn.Linear(z.shape[1], classes)
    for parameter in probe.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(features), label) + decay / 2 * probe.weight.square().sum()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    with torch.no_grad():
        probe.weight.div_(std)
        probe.bias.sub_(probe.weight @ mean)
    return probe.requires_grad_(False)
