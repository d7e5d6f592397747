"""One random generator per image, so that a picture depends on its own seed and on nothing drawn beside it.

Noise is drawn on the CPU in float32 whatever the device, then moved: the same seed starts from the same noise everywhere.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unclip.seeds import mix

_LARGEST_SEED = (1 << 63) - 1  # what a torch generator takes


class Rng:
    """Generators for a batch of B images; `normal` draws row b from image b's own generator.

    `device` is where the draws are delivered. A stage that needs its own stream (prior, decoder, an upsampler) takes
    `fork(stage)`, so that adding steps to one stage never shifts the noise of the next.
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu", stream: int = 0):
        self.seeds = tuple(int(seed) for seed in seeds)
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(mix(seed, stream) & _LARGEST_SEED) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def fork(self, stream: int) -> "Rng":
        """The same images' generators for another stream; independent of what was drawn so far."""
        return Rng(self.seeds, device=self.device, stream=stream)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise (B, *shape), float32, on `device`."""
        rows = [torch.randn(tuple(shape), generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self.device)
