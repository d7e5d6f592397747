"""Where the networks run, and in which precision."""

import ctypes
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
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
    """Whether `device` multiplies bf16 in hardware, and faster than fp32; elsewhere it is emulated, or no gain.

    Of CPUs those with AMX do, and AMD's with AVX512-BF16. Intel's without AMX, as some virtual machines show them, have that
    too, but no more of it a cycle than fp32: .17 TFLOP/s against .28 were measured on two cores, and pictures took 1.24 x as
    long. It goes by what the processor is, not by a trial, so that the same seed gives the same bytes each time.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and not _made_by_intel())


@cache
def _made_by_intel() -> bool:
    """Whether the processor is; what cannot be known is taken for a no."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        told = platform.processor()
    return "GenuineIntel" in told


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[object]:
    """bf16 autocast where `precision` asks for it, or is `auto` and the hardware has it; else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if wants_bf16(device, precision) else nullcontext()


def wants_bf16(device: torch.device, precision: Precision) -> bool:
    return precision == "bf16" or (precision == "auto" and has_bf16(device))


def weight_types(module: nn.Module, device: torch.device, precision: Precision = "auto") -> dict[str, torch.dtype]:
    """The type in which to keep each tensor of a network that samples, by its name in the state dict.

    Weights of matrix products and convolutions are kept in bf16 where `autocast` would convert them at every call: the
    numbers are the same, since the conversion is. Norms, embeddings and statistics stay fp32. What is trained needs fp32.
    """
    types = dict.fromkeys(module.state_dict(), torch.float32)
    if wants_bf16(device, precision):
        for path, part in module.named_modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                types |= {f"{path}.{name}".lstrip("."): torch.bfloat16 for name, _ in part.named_parameters(recurse=False)}
    return types


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of <malloc.h>


def keep_freed_memory(largest: int = 1 << 30) -> None:
    """Has the C library keep blocks of up to `largest` bytes that are freed, for the next that is asked for.

    By default glibc gives anything past 32 MB back to the system, which hands it out again page by page, each zeroed first:
    a seventh of the time of a network whose features are larger than that, as Karlo's at 256 px are. Nothing happens where
    the library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, min(largest, 1 << 30))
    mallopt(_TRIM_THRESHOLD, largest)
