"""unCLIP's diffusion prior (2204.06125, section 2.2): from a caption to a CLIP image embedding.

Dimension letters: B batch, E embedding, L caption tokens, C text width.

A causal transformer over the sequence [caption states (L), text embedding, timestep, noised z, query]; the state at the
query predicts the un-noised z itself, not the noise. Works in a standardised space, (z - mean) / std per dimension, because
diffusion expects unit variance (Karlo's convention; the paper scales normalised embeddings by 17.2 to the same end). The
statistics are part of the weights, so a prior cannot be sampled in another space than it was trained in; so is how far off
its predictions are, which Analytic-DPM needs. For guidance, a dropped caption is the caption "": its states and its
embedding; the noised z stays.
"""

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import Transformer, timestep_embedding
from unclip.models.clip import Text

X0_ERROR_KNOTS = 32  # timesteps at which the error is kept


class PriorConfig(Config):
    embed: PositiveInt
    text_embed: PositiveInt
    text_width: PositiveInt
    context: PositiveInt  # L
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _divides(self) -> "PriorConfig":
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even, and {self.heads} heads must divide it")
        return self


SIZES = {
    "micro": PriorConfig(embed=32, text_embed=32, text_width=32, context=16, width=32, layers=2, heads=2),
    "icons": PriorConfig(embed=256, text_embed=256, text_width=256, context=24, width=256, layers=4, heads=4),
    # Table 3: width 2048, 24 blocks, 32 heads, 256 tokens of context.
    "paper": PriorConfig(embed=1024, text_embed=1024, text_width=1024, context=256, width=2048, layers=24, heads=32),
}


class Prior(nn.Module):
    z_mean: Tensor
    z_std: Tensor
    x0_error: Tensor

    def __init__(self, cfg: PriorConfig):
        super().__init__()
        self.cfg = cfg
        width = cfg.width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.states_in = nn.Linear(cfg.text_width, width)
        self.text_in = nn.Linear(cfg.text_embed, width)
        self.z_in = nn.Linear(cfg.embed, width)
        self.query = nn.Parameter(0.01 * torch.randn(width))
        self.position = nn.Parameter(0.01 * torch.randn(cfg.context + 4, width))
        self.transformer = Transformer(width, cfg.layers, cfg.heads)
        self.norm_out = nn.LayerNorm(width)
        self.z_out = nn.Linear(width, cfg.embed)
        # NaN until set: a prior without statistics must fail loudly, not return noise.
        self.register_buffer("z_mean", torch.full((cfg.embed,), float("nan")))
        self.register_buffer("z_std", torch.full((cfg.embed,), float("nan")))
        self.register_buffer("x0_error", torch.full((X0_ERROR_KNOTS,), float("nan")))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """The mean and standard deviation (E,) of the training images' z."""
        self.z_mean.copy_(mean)
        self.z_std.copy_(std)

    def set_x0_error(self, errors: Tensor) -> None:
        """What `diffusion.samplers.measure_x0_error` found at X0_ERROR_KNOTS timesteps; only Analytic-DPM asks for it."""
        self.x0_error.copy_(errors)

    def standardise(self, z: Tensor) -> Tensor:
        return (z - self.z_mean) / self.z_std

    def restore(self, z: Tensor) -> Tensor:
        """The inverse of `standardise`: back to CLIP's raw embedding."""
        return z * self.z_std + self.z_mean

    def forward(self, z_t: Tensor, t: Tensor, text: Text) -> Tensor:
        """The standardised z (B, E) predicted from its noised self z_t (B, E) at t (B,) and the caption."""
        time = self.time(timestep_embedding(t, self.cfg.width))
        tail = [self.text_in(text.pooled), time, self.z_in(z_t), self.query.expand(len(z_t), -1)]
        states = self.states_in(text.states)
        sequence = torch.cat([states, *(x[:, None].to(states.dtype) for x in tail)], dim=1)
        # The caption may be shorter than the context; its place in the learned positions stays the same.
        length, context = text.states.shape[1], self.cfg.context
        position = torch.cat([self.position[:length], self.position[context:]])
        seen = torch.cat([text.mask, text.mask.new_ones(len(z_t), 4)], dim=1)[:, None, None]
        causal = torch.ones(sequence.shape[1], sequence.shape[1], dtype=torch.bool, device=z_t.device).tril()
        out = self.transformer(sequence + position, seen & causal, only=slice(-1, None))
        return self.z_out(self.norm_out(out[:, 0])).to(z_t.dtype)
