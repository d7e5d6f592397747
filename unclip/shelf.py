"""The networks of a model, built when they are first asked for; with `offload`, only the last one asked for is in memory.

A network is built on the meta device and filled from mapped files, each tensor straight in the type it is multiplied in. So
loading costs no more memory than the weights have bytes, and, off-loaded, no more than those of the largest part.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unclip.config import Config
from unclip.device import Precision, keep_freed_memory, weight_types
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import WeightsError
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.glide import Glide, GlideConfig
from unclip.models.laion_prior import LaionPrior, LaionPriorConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.stages import SamplingConfig
from unclip.weights import store
from unclip.weights.source import ModelSource, PartSource

Module = TypeVar("Module", bound=nn.Module)
Shape = TypeVar("Shape", bound=Config)

NETWORKS: dict[str, tuple[Callable[[Any], nn.Module], type[Config]]] = {
    "clip": (CLIP, CLIPConfig),
    "prior": (Prior, PriorConfig),
    "laion_prior": (LaionPrior, LaionPriorConfig),
    "decoder": (Decoder, DecoderConfig),
    "upsampler": (Upsampler, UpsamplerConfig),
    "finisher": (Upsampler, UpsamplerConfig),  # makes the last step of an upsampler
    "glide": (Glide, GlideConfig),
}


class Shelf:
    """A model's networks by name, on one device."""

    def __init__(self, source: ModelSource, *, device: torch.device, precision: Precision, offload: bool):
        self.source = source
        self.device = device
        self.precision: Precision = precision
        self.offload = offload
        self._built: dict[str, nn.Module] = {}
        if device.type == "cpu":
            keep_freed_memory()
        for part in source.networks.values():
            _kind(part)

    def names(self, kind: str) -> list[str]:
        """The parts of a kind, in their order."""
        return [name for name, part in self.source.networks.items() if part.kind == kind]

    def section(self, name: str, key: str, config: type[Shape]) -> Shape:
        """One section of a part's config; WeightsError where it is missing, ConfigError where it is wrong."""
        return _section(self.source.networks[name], key, config)

    def network(self, name: str) -> nn.Module:
        """The network, ready to sample; with `offload`, whatever was built before it is let go."""
        if name not in self._built:
            if self.offload:
                self._built.clear()
            self._built[name] = self._build(name)
        return self._built[name]

    def _build(self, name: str) -> nn.Module:
        part = self.source.networks[name]
        module = _shape(part)
        types = weight_types(module, self.device, self.precision)
        module = store.fill(module, part.read(), where=part.where, types=types)
        module.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # its fourth form
        return module.eval().requires_grad_(False)


class Network(Generic[Module, Shape]):
    """A network on a shelf, and its shape, which is known without it."""

    def __init__(self, shelf: Shelf, name: str):
        self._shelf, self.name = shelf, name
        self._share: Callable[[nn.Module], nn.Module] | None = None
        config = NETWORKS[shelf.source.networks[name].kind][1]
        self.cfg = cast(Shape, shelf.section(name, "model", config))

    @property
    def module(self) -> Module:
        network = self._shelf.network(self.name)
        return cast(Module, network if self._share is None else self._share(network))

    def share(self, through: Callable[[nn.Module], nn.Module]) -> None:
        """From now on `module` is `through(network)`: how a server answers many callers in one call."""
        self._share = through


class Stage(Network[Module, Shape]):
    """A diffusion network with what it takes to sample it."""

    def __init__(self, shelf: Shelf, name: str):
        super().__init__(shelf, name)
        self.diffusion = shelf.section(name, "diffusion", DiffusionConfig)
        self.sampling = shelf.section(name, "sampling", SamplingConfig)


class UpsamplerStage(Stage[Upsampler, UpsamplerConfig]):
    """An upsampler and, where the model has one, the network that makes its last step."""

    def __init__(self, shelf: Shelf, name: str):
        super().__init__(shelf, name)
        finishers = [n for n in shelf.names("finisher") if shelf.source.networks[n].config.get("finishes") == name]
        self.finisher = Network[Upsampler, UpsamplerConfig](shelf, finishers[0]) if finishers else None

    def network(self, last: bool) -> Upsampler:
        """The network of a step."""
        return self.finisher.module if last and self.finisher is not None else self.module


def count_parameters(part: PartSource) -> int:
    """The numbers in a part's weights, from its shape alone."""
    return sum(tensor.numel() for tensor in _shape(part).parameters())


def read_whole(source: ModelSource, name: str) -> int:
    """Reads every tensor of a part and puts it in its place; returns how many parameters there are. WeightsError as ever."""
    part = source.networks[name]
    state = part.read()
    store.check_fit(_shape(part).state_dict(), state, where=part.where)
    for tensor_name, tensor in state.items():
        # A torn or misread file. What the sampler analytic needs may never have been measured, and is NaN then.
        if tensor.is_floating_point() and tensor_name != "x0_error" and not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(f"{part.where}: {tensor_name} holds numbers that are not finite")
    return count_parameters(part)


def _shape(part: PartSource) -> nn.Module:
    """The part's network on the meta device."""
    make, config = _kind(part)
    cfg = _section(part, "model", config)
    with torch.device("meta"), _Undrawn():
        return make(cfg)


class _Undrawn(TorchFunctionMode):
    """Passes over initialisation: on the meta device it draws nothing, but imports torch's compiler, a second of a start."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _kind(part: PartSource) -> tuple[Callable[[Any], nn.Module], type[Config]]:
    """What makes a part's network, and of what config."""
    if part.kind not in NETWORKS:
        raise WeightsError(f"{part.where} is of the unknown kind {part.kind!r}, expected {', '.join(NETWORKS)}")
    return NETWORKS[part.kind]


def _section(part: PartSource, key: str, config: type[Shape]) -> Shape:
    if key not in part.config:
        raise WeightsError(f"{part.where}/{store.CONFIG}: the key {key} is missing")
    return config.parse(part.config[key], where=f"{part.where}/{store.CONFIG}: {key}")
