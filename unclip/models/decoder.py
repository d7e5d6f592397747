"""unCLIP's decoder (2204.06125, section 2.1): a diffusion U-Net that paints an image from its CLIP embedding and a caption.

Dimension letters: B batch, E embedding, L caption tokens, C text width, K image tokens (4).

- z is projected and added to the timestep embedding, and projected to K tokens that stand before the caption's tokens; the
  U-Net's attention sees both.
- Classifier-free guidance is trained by dropping z in 10 % and the caption in 50 % of the samples, independently. A dropped
  z becomes a learned embedding; a dropped caption is the caption "", so the network needs no second null.
- The caption comes from CLIP's own text encoder, frozen (Karlo's way), which is precomputed once; or from a transformer of
  the decoder's own (`text`, the paper's way), whose last token's state is added to the timestep embedding too.
- Beyond the paper, for small models (`layout`): an MLP draws a small picture from z and the caption, the best guess of what
  is to come, and the U-Net finds it beside x_t, as upsamplers have theirs. It is trained first, alone, in minutes. Without
  it all of the layout has to come out of channel-wise scales and shifts, through many layers: after 147,000 pictures the
  icons decoder, asked about pure noise, was further off than linear regression from z (docs/log.md).
- A decoder for `inpaint` sees the known part of the picture and where that is beside x_t, and paints all of it where nothing
  is known: one network for both, where GLIDE has two. These inputs begin at zero, so a trained decoder can take them on.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import timestep_embedding
from unclip.models import known as knowns
from unclip.models.clip import Text, TextConfig, TextEncoder
from unclip.models.known import Known
from unclip.models.unet import UNet, UNetConfig


class LayoutConfig(Config):
    side: PositiveInt  # of the small picture
    width: PositiveInt  # of the MLP that draws it
    depth: PositiveInt = 1  # its hidden layers


class DecoderConfig(Config):
    unet: UNetConfig
    embed: PositiveInt  # E, of z
    text_width: PositiveInt  # C, of the caption's states
    text_embed: PositiveInt  # of the caption's pooled embedding
    image_tokens: PositiveInt = 4
    layout: LayoutConfig | None = None
    inpaint: bool = False  # the known part of the picture and its mask stand beside x_t
    text: TextConfig | None = None  # a text transformer of the decoder's own; None: CLIP's states are handed in

    @model_validator(mode="after")
    def _consistent(self) -> "DecoderConfig":
        if self.unet.context_width is None:
            raise ValueError("the decoder's unet needs a context_width for the caption's tokens")
        channels = 3 + 3 * (self.layout is not None) + knowns.CHANNELS * self.inpaint
        if self.unet.in_channels != channels:
            raise ValueError(
                f"unet.in_channels is {self.unet.in_channels}, expected {channels}: "
                f"3, a layout's 3, inpainting's {knowns.CHANNELS}"
            )
        if self.text is not None and self.text.width != self.text_width:
            raise ValueError(f"text_width {self.text_width} differs from the text transformer's width {self.text.width}")
        return self


SIZES = {
    "micro": DecoderConfig(
        unet=UNetConfig(
            image_size=32, channels=32, mult=(1, 2), depth=1, attention=(16,), head_channels=32, context_width=32, fold=2
        ),
        embed=32,
        text_width=32,
        text_embed=32,
    ),
    "icons": DecoderConfig(
        unet=UNetConfig(
            image_size=32,
            channels=128,
            mult=(0.75, 1.5, 2),
            depth=1,
            attention=(16, 8),
            head_channels=32,
            context_width=256,
            fold=2,
            norm="layer",
            attention_mlp=True,
            in_channels=10,
        ),
        embed=256,
        text_width=256,
        text_embed=256,
        layout=LayoutConfig(side=16, width=896, depth=2),
        inpaint=True,
    ),
    # Table 3: 512 channels, depth 3, multiples 1 2 3 4, attention at 32 16 8, text 24 layers of 2048, learned variance.
    "paper": DecoderConfig(
        unet=UNetConfig(
            image_size=64,
            channels=512,
            mult=(1, 2, 3, 4),
            depth=3,
            attention=(32, 16, 8),
            dropout=0.1,
            out_channels=6,
            context_width=2048,
        ),
        embed=1024,
        text_width=2048,
        text_embed=2048,
        text=TextConfig(context=256, vocab=49408, width=2048, layers=24, heads=32),
    ),
}


class Layout(nn.Module):
    """z (B, E) and pooled captions (B, P) -> a small picture (B, 3, S, S) in [-1, 1], a little beyond at times."""

    def __init__(self, cfg: LayoutConfig, inputs: int):
        super().__init__()
        self.side = cfg.side
        widths = [inputs, *[cfg.width] * cfg.depth]
        hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
        self.mlp = nn.Sequential(*hidden, nn.Linear(cfg.width, 3 * cfg.side**2))

    def forward(self, z: Tensor, pooled: Tensor) -> Tensor:
        return self.mlp(torch.cat([z, pooled.to(z.dtype)], dim=1)).unflatten(1, (3, self.side, self.side))


class Decoder(nn.Module):
    def __init__(self, cfg: DecoderConfig):
        super().__init__()
        self.cfg = cfg
        width, context = cfg.unet.embed_width, cfg.unet.context_width
        assert context is not None  # the config has seen to it
        self.time = nn.Sequential(nn.Linear(cfg.unet.channels, width), nn.SiLU(), nn.Linear(width, width))
        self.z_to_time = nn.Linear(cfg.embed, width)
        self.text_to_time = nn.Linear(cfg.text_embed, width)
        self.z_to_tokens = nn.Linear(cfg.embed, cfg.image_tokens * context)
        self.text_to_tokens = nn.Linear(cfg.text_width, context)
        self.norm_text = nn.LayerNorm(context)
        self.null_z = nn.Parameter(torch.zeros(cfg.embed))
        self.text = None if cfg.text is None else TextEncoder(cfg.text, cfg.text_embed, "gelu", end_token=cfg.text.vocab - 1)
        self.layout = None if cfg.layout is None else Layout(cfg.layout, cfg.embed + cfg.text_embed)
        self.unet = UNet(cfg.unet)
        if cfg.inpaint:
            with torch.no_grad():
                self.unet.conv_in.weight[:, -knowns.CHANNELS * cfg.unet.fold**2 :] = 0

    def encode_text(self, ids: Tensor, mask: Tensor) -> Text:
        """The caption through the decoder's own transformer; only a decoder configured with one has it."""
        assert self.text is not None, "this decoder takes CLIP's text states"
        return self.text(ids, mask)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        z: Tensor,
        text: Text,
        drop_z: Tensor | None = None,
        known: Known | None = None,
        layout: Tensor | None = None,
    ) -> Tensor:
        """The network's output at x_t (B, 3, H, W), t (B,), z (B, E), raw or standardised as in training.

        `drop_z` (B,) bool: where True, z is replaced by the learned null. `known`: what a decoder for inpainting shall keep;
        None is nothing, and it paints all of the picture. `layout`: small pictures that the first rows find beside x_t in
        place of those drawn from their z. Returns (B, out_channels, H, W).
        """
        if drop_z is not None:
            z = torch.where(drop_z[:, None], self.null_z.to(z.dtype), z)
        emb = self.time(timestep_embedding(t, self.cfg.unet.channels)) + self.z_to_time(z) + self.text_to_time(text.pooled)
        beside = [x_t]
        assert layout is None or self.layout is not None, "only a decoder that draws layouts takes one"
        if self.layout is not None:
            small = self.layout(z, text.pooled)
            small = small if layout is None else torch.cat([layout.to(small.dtype), small[len(layout) :]])
            beside.append(F.interpolate(small, size=x_t.shape[2:], mode="bilinear").to(x_t.dtype))
        assert known is None or self.cfg.inpaint, "only a decoder for inpainting takes a known part"
        if self.cfg.inpaint:
            beside.append(knowns.beside(known, x_t))
        image_tokens = self.z_to_tokens(z).unflatten(-1, (self.cfg.image_tokens, -1))
        caption_tokens = self.norm_text(self.text_to_tokens(text.states))
        context = torch.cat([image_tokens, caption_tokens.to(image_tokens.dtype)], dim=1)
        mask = torch.cat([text.mask.new_ones(len(z), self.cfg.image_tokens), text.mask], dim=1)
        return self.unet(torch.cat(beside, dim=1), emb, context, mask)
