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
    `fork(stage)`, so that adding steps to one stage never shifts the noise of the next. Of several streams the generators of
    all images stand one after the other, stream by stream.
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu", streams: Sequence[int] = (0,)):
        self.seeds = tuple(int(seed) for seed in seeds)
        self.device = torch.device(device)
        keys = [mix(seed, stream) & _LARGEST_SEED for stream in streams for seed in self.seeds]
        self._generators = [torch.Generator().manual_seed(key) for key in keys]

    def __len__(self) -> int:
        return len(self._generators)

    def fork(self, *streams: int) -> "Rng":
        """The same images' generators for another stream, or several; independent of what was drawn so far."""
        return Rng(self.seeds, device=self.device, streams=streams)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise (B, *shape), float32, on `device`."""
        rows = [torch.randn(tuple(shape), generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self.device)
