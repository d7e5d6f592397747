"""What the tests of foreign files share: making such files, and what their refusals look like."""

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unclip.errors import WeightsError


def saved(path: Path, held: object, *, legacy: bool = False) -> Path:
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    return path


def archived(
    path: Path, pickled: bytes, records: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_STORED
) -> Path:
    """A zip file in torch's layout around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in (records or {}).items():
            archive.writestr(f"archive/{name}", content, compress_type=method)
    return path


def altered(source: Path, path: Path, changes: dict[str, bytes | None], *, method: int = zipfile.ZIP_STORED) -> Path:
    """A copy of a zip file whose records are replaced, or left out where the change is None."""
    with zipfile.ZipFile(source) as old:
        records = {name.partition("/")[2]: old.read(name) for name in old.namelist()} | changes
    pickled = records.pop("data.pkl")
    return archived(
        path, pickled, {name: content for name, content in records.items() if content is not None}, method=method
    )


def refusal(read, path: Path, words: str | None = None) -> str:
    with pytest.raises(WeightsError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.norm = nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("context_length", torch.tensor(77))
        self.sizes = [1, 2]
        self.names = {"a": 1}

    def forward(self, x):
        for block in self.blocks:
            x = self.norm(block(x)) * self.scale + self.sizes[0] + self.names["a"]
        return x


def script(path: Path, *, traced: bool = False) -> nn.Module:
    tower = Tower().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.save(torch.jit.trace(tower, torch.zeros(3, 2)) if traced else torch.jit.script(tower), path)
    return tower


def scripted(path: Path, state: dict[str, Tensor]) -> None:
    """OpenAI's way: a TorchScript archive of a module with that state dict, in fp16, and sizes beside the weights."""
    root = nn.Module()
    for name, tensor in state.items():
        *folders, leaf = name.split(".")
        module = root
        for part in folders:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(tensor.half()))
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.save(torch.jit.script(root), path)


class Calls:
    """Pickles as a call of `function`, which unpickling would make."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# getattr(__import__("os"), "system"), to be called
CHAIN = b"\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\nX\2\0\0\0os\x85RX\6\0\0\0system\x86R"
