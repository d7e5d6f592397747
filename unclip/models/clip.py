"""CLIP (2103.00020): an image encoder and a text encoder trained to agree, whose image embedding z is what unCLIP inverts.

Dimension letters: B batch, P patches, L tokens of context, C width, E embedding.

- Vision: ViT (2010.11929) with a class token and CLIP's extra layer norm before the blocks; the class token's last state,
  normed and projected without bias, is z.
- Text: a causal transformer; the state at the first [end] token, normed and projected, is the text embedding; all normed
  states are kept for the prior and the decoder (unCLIP, section 2).
- Loss: the symmetric softmax of section 2.3 or the pairwise sigmoid of SigLIP (2303.15343). FLIP's patch dropout
  (2212.00794) keeps a random subset of the patches while training.

Differs from the paper: sizes of our own beside its ViTs; ResNets are not built. unCLIP trained its CLIP with SAM; we do not.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import Activation, Transformer, gaussian

Triple = tuple[float, float, float]


class VisionConfig(Config):
    image_size: PositiveInt
    patch: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    mlp_ratio: float = Field(default=4.0, gt=0)
    patch_dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides(self) -> "VisionConfig":
        if self.image_size % self.patch or self.width % self.heads:
            raise ValueError(
                f"{self.patch} must divide image_size {self.image_size} and {self.heads} heads width {self.width}"
            )
        return self


class TextConfig(Config):
    context: int = Field(ge=3)  # [start], one piece, [end]
    vocab: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _divides(self) -> "TextConfig":
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide width {self.width}")
        return self


class CLIPConfig(Config):
    embed: PositiveInt
    vision: VisionConfig | None  # None: captions only, as in the repositories of published priors
    text: TextConfig
    act: Activation = "gelu"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    end_token: int = 2  # of the tokenizers that we train; 49407 in CLIP's own
    mean: Triple = (0.5, 0.5, 0.5)  # of pixels in [0, 1]; these defaults make the normalisation the identity on [-1, 1]
    std: Triple = (0.5, 0.5, 0.5)


OPENAI_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Triple = (0.26862954, 0.26130258, 0.27577711)

SIZES = {
    "micro": CLIPConfig(
        embed=32,
        vision=VisionConfig(image_size=32, patch=8, width=32, layers=2, heads=2),
        text=TextConfig(context=16, vocab=640, width=32, layers=2, heads=2),
    ),
    "icons": CLIPConfig(
        embed=256,
        vision=VisionConfig(image_size=64, patch=8, width=256, layers=6, heads=4),
        text=TextConfig(context=24, vocab=4096, width=256, layers=4, heads=4),
    ),
    # unCLIP appendix C: ViT-H/16 at 256 px, 32 blocks of 1280; text 24 causal blocks of 1024; 1024 dimensions.
    "paper": CLIPConfig(
        embed=1024,
        vision=VisionConfig(image_size=256, patch=16, width=1280, layers=32, heads=16),
        text=TextConfig(context=77, vocab=49408, width=1024, layers=24, heads=16),
        mean=OPENAI_MEAN,
        std=OPENAI_STD,
    ),
}


class Text(NamedTuple):
    """What the text encoder gives: pooled (B, E), states (B, L, C) after the last norm, mask (B, L) bool, True on tokens."""

    pooled: Tensor
    states: Tensor
    mask: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Text":
        return Text(self.pooled.to(device, dtype), self.states.to(device, dtype), self.mask.to(device))

    def rows(self, count: int) -> "Text":
        """For so many captions, from one."""
        return Text(*(part.expand(count, *part.shape[1:]) for part in self))

    def repeat(self, times: int) -> "Text":
        """All captions, so many times over, (times * B)."""
        return Text(*(torch.cat([part] * times) for part in self))

    def select(self, index: Tensor | slice) -> "Text":
        return Text(self.pooled[index], self.states[index], self.mask[index])


class VisionEncoder(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> z (B, E)."""

    def __init__(self, cfg: VisionConfig, embed: int, act: Activation, mean: Triple, std: Triple):
        super().__init__()
        self.cfg = cfg
        self.rescale = [((0.5 - m) / s, 0.5 / s) for m, s in zip(mean, std, strict=True)]  # (x + 1) / 2, then normalise
        grid = cfg.image_size // cfg.patch
        scale = cfg.width**-0.5
        self.patches = nn.Conv2d(3, cfg.width, cfg.patch, stride=cfg.patch, bias=False)
        self.cls = gaussian(cfg.width, std=scale)
        self.position = gaussian(grid * grid + 1, cfg.width, std=scale)
        self.norm_in = nn.LayerNorm(cfg.width)
        self.transformer = Transformer(cfg.width, cfg.layers, cfg.heads, mlp_ratio=cfg.mlp_ratio, act=act)
        self.norm_out = nn.LayerNorm(cfg.width)
        self.project = nn.Linear(cfg.width, embed, bias=False)
        nn.init.normal_(self.project.weight, std=scale)

    def forward(self, images: Tensor) -> Tensor:
        offset, factor = (torch.tensor(c, device=images.device).view(3, 1, 1) for c in zip(*self.rescale, strict=True))
        tokens = self.patches(images * factor + offset).flatten(2).transpose(1, 2) + self.position[1:]
        if self.training and self.cfg.patch_dropout > 0:
            tokens = self._keep_some(tokens)
        cls = (self.cls + self.position[0]).to(tokens.dtype).expand(len(tokens), 1, -1)
        states = self.transformer(self.norm_in(torch.cat([cls, tokens], dim=1)), only=slice(0, 1))
        return self.project(self.norm_out(states[:, 0]))

    def _keep_some(self, tokens: Tensor) -> Tensor:
        keep = max(1, round(tokens.shape[1] * (1 - self.cfg.patch_dropout)))
        order = torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)[:, :keep]
        return tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1]))


class TextEncoder(nn.Module):
    """Token ids (B, L) with a mask (B, L) -> Text."""

    def __init__(self, cfg: TextConfig, embed: int, act: Activation, end_token: int):
        super().__init__()
        self.cfg = cfg
        self.end_token = end_token
        self.token = nn.Embedding(cfg.vocab, cfg.width)
        self.position = gaussian(cfg.context, cfg.width, std=0.01)
        self.transformer = Transformer(cfg.width, cfg.layers, cfg.heads, act=act)
        self.norm_out = nn.LayerNorm(cfg.width)
        self.project = nn.Linear(cfg.width, embed, bias=False)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.project.weight, std=cfg.width**-0.5)

    def forward(self, ids: Tensor, mask: Tensor) -> Text:
        x = self.token(ids) + self.position[: ids.shape[1]]
        # Causal attention alone keeps padding, which follows [end], out of every state that anybody reads.
        states = self.norm_out(self.transformer(x, causal=True))
        end = (ids == self.end_token).int().argmax(dim=1)
        pooled = self.project(states[torch.arange(len(ids), device=ids.device), end])
        return Text(pooled, states, mask)


class CLIP(nn.Module):
    def __init__(self, cfg: CLIPConfig):
        super().__init__()
        self.cfg = cfg
        self.vision = None if cfg.vision is None else VisionEncoder(cfg.vision, cfg.embed, cfg.act, cfg.mean, cfg.std)
        self.text = TextEncoder(cfg.text, cfg.embed, cfg.act, cfg.end_token)
        # Temperature 0.07 (CLIP) or 1/10 with bias -10 (SigLIP), both kept as logarithms.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07) if cfg.loss == "softmax" else math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if cfg.loss == "sigmoid" else None

    def encode_image(self, images: Tensor) -> Tensor:
        """z (B, E), raw: not normalised. Only a CLIP that has an image encoder has it."""
        assert self.vision is not None, "this CLIP reads captions only"
        return self.vision(images)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Text:
        return self.text(ids, mask)

    def logits(self, z: Tensor, pooled: Tensor) -> Tensor:
        """Scaled cosine similarities (B images, B texts), fp32. The scale is capped at 100, as in the paper."""
        z, pooled = F.normalize(z.float(), dim=-1), F.normalize(pooled.float(), dim=-1)
        logits = self.logit_scale.clamp(max=math.log(100.0)).exp() * z @ pooled.T
        return logits if self.logit_bias is None else logits + self.logit_bias

    def loss(self, z: Tensor, pooled: Tensor, same: Tensor | None = None) -> Tensor:
        """Contrastive loss of B matching pairs, a scalar in fp32.

        `pooled` (B + W, E): the B images' texts, then W others that are wrong, near misses of the right ones, say: an image
        has to tell its own from these too (NegCLIP, 2210.01936, section 4). `same` (B, B + W) bool marks texts that are true
        of another image as well (equal captions in a batch): the softmax shares its target among them, the sigmoid calls
        them positive.
        """
        with torch.autocast(z.device.type, enabled=False):
            logits = self.logits(z, pooled)
            eye = torch.eye(*logits.shape, device=logits.device, dtype=torch.bool)
            positive = (eye if same is None else same | eye).to(logits.dtype)
            if self.cfg.loss == "sigmoid":
                return -F.logsigmoid(logits * (2 * positive - 1)).sum() / len(logits)
            rows = F.cross_entropy(logits, positive / positive.sum(1, keepdim=True))
            own, true = logits[:, : len(z)].T, positive[:, : len(z)].T
            columns = F.cross_entropy(own, true / true.sum(1, keepdim=True))
            return (rows + columns) / 2
