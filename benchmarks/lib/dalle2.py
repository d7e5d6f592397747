"""dalle2-pytorch, the peer to be faster than: its import, and one training step of its decoder and of its prior.

Both are set up as its README does, on the same sizes as ours: the caption's states and z come precomputed. It imports
torchvision, which has no build for every torch, and uses none of it in a training step: where torchvision is not installed,
empty modules take its place.
"""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

# The U-Net of Table 3 (2204.06125) an eighth as wide: 64 channels x 1 2 3 4, attention at 32, 16 and 8 px. 23M parameters.
UNET = {"dim": 64, "dim_mults": (1, 2, 3, 4), "self_attn": (False, True, True, True), "attn_heads": 8}
# Its README's prior, 25M parameters; 256 + 4 tokens.
PRIOR = {"dim": 512, "depth": 6, "dim_head": 64, "heads": 8, "max_text_len": 256}


def import_peer() -> ModuleType:
    """The package dalle2_pytorch; ends the process with code 2 and one line when it is not there."""
    if find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms"):
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            sys.modules[name] = module
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.cuda.amp, in much of what it imports
    try:
        import dalle2_pytorch
    except ImportError as error:
        print(f"dalle2-pytorch cannot be imported ({error}): `make bench` installs it", file=sys.stderr)
        raise SystemExit(2) from None
    return dalle2_pytorch


def decoder(peer: Any, embed: int, context: int) -> nn.Module:
    """Its decoder at 64 px, with learned variance; z and the caption's states are both `embed` wide."""
    unet = peer.Unet(**UNET, image_embed_dim=embed, text_embed_dim=embed, cond_on_text_encodings=True, max_text_len=context)
    return peer.Decoder(unet, image_size=64, timesteps=1000).train()


def prior(peer: Any) -> nn.Module:
    network = peer.DiffusionPriorNetwork(**PRIOR)
    return peer.DiffusionPrior(network, image_embed_dim=PRIOR["dim"], timesteps=1000, cond_drop_prob=0.1).train()


def training_step(module: nn.Module, loss: Callable[[], Tensor], *, bf16: bool = False) -> Callable[[], object]:
    """One step of `loss` by its own optimizer, in fp32 as it comes, or under bf16 autocast."""
    from dalle2_pytorch.optimizer import get_optimizer

    optimizer = get_optimizer(module.parameters(), lr=1e-4)

    def step() -> None:
        precision: AbstractContextManager[object] = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
        with precision:
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
