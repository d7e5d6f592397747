"""A folder in the diffusers layout: `model_index.json`, and per component a config and weights; read, and written.

Components are the pipeline's constructor arguments. A config that lacks a key means the class's default, which is what
`Component.get` is told; a value that we have no network for is an error that names it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save as to_safetensors
from torch import Tensor

from unclip.config import Config
from unclip.errors import ConfigError, WeightsError
from unclip.weights.foreign import read_tensors
from unclip.weights.store import read_json

Shape = TypeVar("Shape", bound=Config)

INDEX = "model_index.json"
_JSON_TYPES = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}
# In the order of preference: no pickle if it can be helped, full precision before half.
_ENDINGS = (".safetensors", ".safetensors.index.json", ".fp16.safetensors", ".bin", ".fp16.bin")
_WEIGHTS = [f"{stem}{ending}" for ending in _ENDINGS for stem in ("diffusion_pytorch_model", "model", "pytorch_model")]


@dataclass(frozen=True)
class Component:
    """A component's folder and its config."""

    folder: Path
    config: Mapping[str, Any]
    file: str  # the config's

    @property
    def where(self) -> str:
        return f"{self.folder}/{self.file}"

    def get(self, key: str, default: Any) -> Any:
        """A value of the config, or the class's own where it is not said or null; WeightsError for one of another type."""
        value = self.config.get(key)
        return default if value is None else self._typed(key, value, type(default))

    def need(self, key: str, kind: type) -> Any:
        """A value of the config; WeightsError where it is not said, or of another type."""
        if self.config.get(key) is None:
            raise WeightsError(f"{self.where}: the key {key} is missing")
        return self._typed(key, self.config[key], kind)

    def shape(self, config: type[Shape], **values: Any) -> Shape:
        """A network's config of such values; WeightsError where no network can be so."""
        try:
            return config.parse(values, where=self.where)
        except ConfigError as error:
            raise WeightsError(str(error)) from None

    def _typed(self, key: str, value: Any, kind: type) -> Any:
        if isinstance(value, (int, float) if kind is float else kind) or kind is type(None):
            return value
        raise WeightsError(f"{self.where}: {key} is {value!r}, expected {_JSON_TYPES.get(kind, kind.__name__)}")

    def expect(self, key: str, *expected: Any, default: Any) -> None:
        """WeightsError unless a value is one of those for which we have a network."""
        value = self.get(key, default)
        if value not in expected:
            raise WeightsError(f"{self.where}: {key} is {value!r}, expected {' or '.join(map(repr, expected))}")

    def state(self) -> dict[str, Tensor]:
        """The component's tensors, mapped from its file; WeightsError where it has none."""
        for name in _WEIGHTS:
            if (self.folder / name).is_file():
                return read_tensors(self.folder / name)
        raise WeightsError(f"{self.folder} holds no weights: expected {_WEIGHTS[0]} or {_WEIGHTS[1]}")


def read_index(folder: Path) -> dict[str, Any]:
    """What `model_index.json` says: the pipeline's class as `_class_name`, and each component's library and class."""
    return read_json(folder / INDEX)


def component(folder: Path, name: str, *, file: str = "config.json") -> Component:
    """The component `name` of the pipeline in `folder`."""
    return Component(folder / name, read_json(folder / name / file), file)


def write_component(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor] | None, file: str) -> None:
    """A component's config and, unless it is None, its weights; `file` is the config's name."""
    folder.mkdir(parents=True)
    write_json(folder / file, config)
    if state is not None:
        stem = "model" if "architectures" in config else "diffusion_pytorch_model"
        content = to_safetensors({name: tensor.contiguous().clone() for name, tensor in state.items()}, {"format": "pt"})
        (folder / f"{stem}.safetensors").write_bytes(content)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
