"""AdamW (1711.05101): what it decays, and how fast it learns when."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Decay = Literal["cosine", "linear", "constant", "wsd"]


def make_optimizer(
    module: nn.Module, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> torch.optim.AdamW:
    """Fused AdamW over the trained parameters: those of `decayed_names` shrink, the others do not."""
    decayed = decayed_names(module)
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    groups = [
        {"params": [p for name, p in trained.items() if name in decayed], "weight_decay": weight_decay},
        {"params": [p for name, p in trained.items() if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps, fused=True)


def decayed_names(module: nn.Module) -> set[str]:
    """The parameters that weight decay shrinks: matrices and kernels, which a module calls `...weight`.

    Not norms, biases and gains (1-D), embedding tables, and bare parameters such as positions and learned tokens: pulling
    those to zero moves a function's offset, not its slope.
    """
    tables = {id(part.weight) for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))}
    return {
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim >= 2 and name.endswith("weight") and id(parameter) not in tables
    }


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the step alone: changing `steps` midway bends the rest, and loses nothing.

    Linear warm-up over `warmup` steps, then from `peak` to `final * peak` at the last step:
    cosine: half a period; linear: straight; constant: stays at `peak`;
    wsd: stays at `peak`, then straight over the last `cooldown` share of the steps (warm-up, stable, decay; 2404.06395).
    """

    steps: int
    peak: float
    warmup: int = 0
    decay: Decay = "cosine"
    final: float = 0.0
    cooldown: float = 0.2

    def __call__(self, step: int) -> float:
        """The rate of step `step` (from 0): the first warm-up step already moves."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        return self.peak * (self.final + (1 - self.final) * self._height(step))

    def _height(self, step: int) -> float:
        """1 at the end of warm-up, 0 at the last step and after."""
        start = self.warmup if self.decay != "wsd" else max(self.warmup, round(self.steps * (1 - self.cooldown)))
        done = min(max((step - start) / max(self.steps - start, 1), 0.0), 1.0)
        if self.decay == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * done)) if self.decay == "cosine" else 1 - done
