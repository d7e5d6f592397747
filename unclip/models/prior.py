"""unCLIP's diffusion prior (2204.06125, section 2.2): from a caption to a CLIP image embedding.

Dimension letters: B batch, E embedding, L caption tokens, C text width.

A causal transformer over the sequence [caption states (L), text embedding, timestep, noised z, query]; the state at the
query predicts the un-noised z itself, not the noise. Works in a standardised space, (z - mean) / std per dimension, because
diffusion expects unit variance (Karlo's convention; the paper scales normalised embeddings by 17.2 to the same end). The
statistics are part of the weights, so a prior cannot be sampled in another space than it was trained in; so is how far off
its predictions are, which Analytic-DPM needs. For guidance, a dropped caption is the caption "": its states and its
embedding; the noised z stays.

The transformer being causal, what stands before the timestep sees neither it nor z: `remember` computes the caption's part
once for all steps of a sampler, which then cost three positions instead of L + 4 (at Karlo's size a 27th).
"""

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import Memory, Transformer, gaussian, timestep_embedding
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
        self.query = gaussian(width, std=0.01)
        self.position = gaussian(cfg.context + 4, width, std=0.01)
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

    def forward(self, z_t: Tensor, t: Tensor, text: Text, memory: Memory | None = None) -> Tensor:
        """The standardised z (B, E) predicted from its noised self z_t (B, E) at t (B,) and the caption.

        `memory`: what `remember` gave for this caption, so that it is not read again.
        """
        time = self.time(timestep_embedding(t, self.cfg.width))
        tail = [time, self.z_in(z_t), self.query.expand(len(z_t), -1)]
        sequence = torch.stack([x.to(time.dtype) for x in tail], dim=1) + self.position[-3:]
        if memory is None:
            sequence = torch.cat([self._caption(text), sequence], dim=1)
        mask = _causal(text, 4)
        out = self.transformer(sequence, mask[:, :, -sequence.shape[1] :], only=slice(-1, None), after=memory)
        return self.z_out(self.norm_out(out[:, 0])).to(z_t.dtype)

    def null(self, empty: Text) -> Text:
        """The caption of the unconditional branch, of the empty caption's Text: that itself."""
        return empty

    def remember(self, text: Text) -> Memory:
        """What the caption's L + 1 positions give to the three after them, the same at every step."""
        return self.transformer.remember(self._caption(text), _causal(text, 1))

    def _caption(self, text: Text) -> Tensor:
        """The first L + 1 positions: the caption's states and its embedding, (B, L + 1, C)."""
        states = self.states_in(text.states)
        # The caption may be shorter than the context; its place in the learned positions stays the same.
        length, context = text.states.shape[1], self.cfg.context
        position = torch.cat([self.position[:length], self.position[context : context + 1]])
        return torch.cat([states, self.text_in(text.pooled)[:, None].to(states.dtype)], dim=1) + position


def _causal(text: Text, more: int) -> Tensor:
    """Who sees whom among a caption's positions and `more` after them: (B, 1, T, T), True = seen."""
    seen = torch.cat([text.mask, text.mask.new_ones(len(text.mask), more)], dim=1)[:, None, None]
    length = seen.shape[-1]
    return seen & torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
