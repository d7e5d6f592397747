"""Recipes and network shapes: frozen pydantic models, one yaml file, `key.path=value` overrides.

An unknown key, a wrong type or an impossible combination is a `ConfigError` of one line that names the key.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from unclip.errors import ConfigError


class Config(BaseModel):
    """The base of every config: immutable, strict about its keys, made from yaml or plain dicts."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str = "config") -> Self:
        """`values` as this config; raises ConfigError that names `where`, the key, what was given and what was expected."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first_fault(error)}") from None

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The yaml file at `path` with `key.path=value` overrides applied, validated."""
        return cls.parse(apply_overrides(read_yaml(path), overrides), where=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a yaml file holds; ConfigError when it is missing, unreadable or holds something else."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {_reason(error)}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not yaml: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected a mapping of keys to values")
    return values


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b.c=value` set; the value is read as yaml, so 1e-4, true and [1, 2] work."""
    result = _copy(values)
    for override in overrides:
        path, separator, text = override.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"the override {override!r} is not of the form key.path=value")
        node = result
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(f"the override {override!r}: {key} is a value, not a group of keys")
        node[keys[-1]] = _read_value(text, override)
    return result


def _read_value(text: str, override: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"the override {override!r}: {text!r} is not a yaml value") from None
    if isinstance(value, str):  # yaml 1.1 takes 1e-4 for a string
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not utf-8 text"


def _first_fault(error: ValidationError) -> str:
    faults = error.errors(include_url=False)
    fault = faults[0]
    key = ".".join(str(part) for part in fault["loc"]) or "the whole"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key}{more}"
    if fault["type"] == "missing":
        return f"the key {key} is missing{more}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key} = {fault['input']!r}: {message[0].lower()}{message[1:]}{more}"
