"""Where the networks run, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from unclip.errors import ConfigError

Precision = Literal["auto", "bf16", "fp32"]


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first there is of cuda, mps, cpu; any other name is taken as it is, ConfigError if it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not there.get(device.type, False):
        choice = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise ConfigError(f"the device {name!r} is not there: this machine has {choice}")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware; elsewhere it is emulated, and slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[object]:
    """bf16 autocast where `precision` asks for it, or is `auto` and the hardware has it; else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if wants_bf16(device, precision) else nullcontext()


def wants_bf16(device: torch.device, precision: Precision) -> bool:
    return precision == "bf16" or (precision == "auto" and has_bf16(device))


def store_as_multiplied(module: nn.Module, device: torch.device, precision: Precision = "auto") -> None:
    """Keeps the weights of matrix products and convolutions in bf16 where `autocast` would convert them at every call.

    The numbers are the same, since the conversion is; norms, embeddings and statistics stay fp32. For sampling: what is
    trained needs its fp32 weights.
    """
    if not wants_bf16(device, precision):
        return
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            part.to(torch.bfloat16)
